"""The exit code behind torchrun."""

import os
import signal
import sys

import pytest
from fixtures.free_port import free_port
from fixtures.processes import Started, ended_together


@pytest.fixture
def start(tmp_path):
    """Start a script by torchrun."""
    started = []

    def torchrun(script, *options, processes=2):
        (tmp_path / "script.py").write_text(script)
        options = options or ("--standalone",)
        command = [sys.executable, "-m", "bnnlight.commands.torchrun", *options, f"--nproc-per-node={processes}"]
        started.append(Started([*command, "script.py"], cwd=tmp_path))
        return started[-1]

    yield torchrun
    for process in started:
        process.close()


BOTH = "import os, sys, signal; rank = os.environ['RANK']\n"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("pass", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2)", 2),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
        # the one that fails, not the one that torchrun then ends
        ("sys.exit(75) if rank == '1' else signal.pause()", 75),
    ],
)
def test_it_is_that_of_what_was_run(start, script, code):
    process = start(BOTH + script)
    assert process.ended() == code, process


SAVES = """
import os, signal, sys, time
def save(*_):
    open(f"told{os.environ['RANK']}", "w").close()
    while not os.path.exists("slowly saved"):
        time.sleep(0.02)
    open(f"saved{os.environ['RANK']}", "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
open(f"ready{os.environ['RANK']}", "w").close()
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_told_to_stop_all_processes_may_save(start, tmp_path, told, code):
    process = start(SAVES)
    process.wait_until(lambda: number(tmp_path, "ready") == 2)
    os.kill(process.pid, told)
    process.wait_until(lambda: number(tmp_path, "told") == 2)
    (tmp_path / "slowly saved").touch()
    assert process.ended() == code, process
    assert number(tmp_path, "saved") == 2


def number(folder, name):
    """Ranks that have left a file of a name."""
    return len(list(folder.glob(f"{name}[01]")))


def of_two():
    """Options of one machine of two that meet on this one."""
    return "--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=test"


IN_TURN = """
import glob, os, signal, sys, time
def stop(*_):
    open("told", "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
first = not os.path.exists("told")
open(("first" if first else "second") + os.environ["RANK"], "w").close()
while len(glob.glob("first*" if first else "second*")) < 2 or first:
    time.sleep(0.1)
    if first and os.path.exists("told"):
        sys.exit(75)
"""


def test_a_machine_takes_the_place_of_a_lost_one(start, tmp_path):
    options = (*of_two(), "--max-restarts=1")
    # all meet at the one that stays
    stays = start(IN_TURN, *options, "--rdzv-conf=is_host=1", processes=1)
    goes = start(IN_TURN, *options, "--rdzv-conf=is_host=0", processes=1)
    goes.wait_until(lambda: number(tmp_path, "first") == 2)
    os.kill(goes.pid, signal.SIGTERM)
    assert goes.ended() == 75, goes
    comes = start(IN_TURN, *options, "--rdzv-conf=is_host=0", processes=1)
    assert ended_together([stays, comes]) == [0, 0], f"{stays}\n{comes}"
    assert number(tmp_path, "second") == 2


def test_machines_that_do_not_come_are_a_reason_to_try_again(start):
    process = start("pass", *of_two(), "--rdzv-conf=join_timeout=2")
    assert process.ended() == 75, process
    last = process.err.splitlines()[-1]
    assert last.startswith("torchrun: the other machines cannot be reached, start this again")
