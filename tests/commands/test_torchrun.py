"""The exit code behind torchrun."""

import signal
import subprocess
import sys
import time

import pytest
from fixtures.free_port import free_port


def start(script, tmp_path, *options, processes=2):
    (tmp_path / "script.py").write_text(script)
    options = options or ("--standalone",)
    command = [
        *(sys.executable, "-m", "bnnlight.commands.torchrun", *options, f"--nproc-per-node={processes}"),
        "script.py",
    ]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


BOTH = "import os, sys, time, signal; rank = os.environ['RANK']\n"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("pass", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2)", 2),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
        # the one that fails, not the one that torchrun then ends
        ("sys.exit(75) if rank == '1' else time.sleep(60)", 75),
    ],
)
def test_it_is_that_of_what_was_run(tmp_path, script, code):
    process = start(BOTH + script, tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err


SAVES = """
import os, signal, sys, time
def save(*_):
    time.sleep(0.5)
    open(f"saved{os.environ['RANK']}", "w").close()
    sys.exit(75)
signal.signal(signal.Signals[sys.argv[1] if sys.argv[1:] else "SIGTERM"], save)
open(f"ready{os.environ['RANK']}", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_told_to_stop_all_processes_may_save(tmp_path, told, code):
    process = start(SAVES.replace('"SIGTERM"', f'"{told.name}"'), tmp_path)
    while process.poll() is None and len(list(tmp_path.glob("ready*"))) < 2:
        time.sleep(0.1)
    process.send_signal(told)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert len(list(tmp_path.glob("saved*"))) == 2


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


def test_a_machine_takes_the_place_of_a_lost_one(tmp_path):
    options = (*of_two(), "--max-restarts=1")
    # all meet at the one that stays
    stays = start(IN_TURN, tmp_path, *options, "--rdzv-conf=is_host=1", processes=1)
    goes = start(IN_TURN, tmp_path, *options, "--rdzv-conf=is_host=0", processes=1)
    while goes.poll() is None and len(list(tmp_path.glob("first*"))) < 2:
        time.sleep(0.1)
    goes.send_signal(signal.SIGTERM)
    goes.communicate(timeout=60)
    assert goes.returncode == 75
    comes = start(IN_TURN, tmp_path, *options, "--rdzv-conf=is_host=0", processes=1)
    ends = [process.communicate(timeout=180)[1] for process in (stays, comes)]
    assert [stays.returncode, comes.returncode] == [0, 0], ends
    assert len(list(tmp_path.glob("second*"))) == 2


def test_machines_that_do_not_come_are_a_reason_to_try_again(tmp_path):
    process = start("pass", tmp_path, *of_two(), "--rdzv-conf=join_timeout=2")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert err.splitlines()[-1].startswith("torchrun: the other machines cannot be reached, start this again")
