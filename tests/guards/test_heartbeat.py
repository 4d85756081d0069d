"""Two processes of the real command, one of which comes to harm; and what the callback does by itself."""

import json
import os
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.processes import LIMIT_S, Started, is_running, wait_until

from bnnlight.console.errors import explain
from bnnlight.guards.heartbeat import Heartbeat
from bnnlight.guards.meeting_place import Place, call

CONFIG = Path(__file__).parents[2] / "configs/quickstart.yaml"
HARM = """
import multiprocessing, os, pathlib, signal
import lightning as L

class Harm(L.Callback):
    def __init__(self, kind: str):
        self.kind = kind

    def on_train_batch_end(self, trainer, *args):
        workers = [child.pid for child in multiprocessing.active_children()]
        pathlib.Path(f"pids{trainer.global_rank}").write_text(" ".join(map(str, [os.getpid(), *workers])))
        if trainer.global_rank == 1 and trainer.global_step == 3:
            if self.kind == "error":
                raise ValueError("no such ant")
            os.kill(os.getpid(), getattr(signal, self.kind))
"""


@pytest.fixture
def harmed(tmp_path):
    """Run `bnnlight fit` in two processes, the second of which comes to harm; return exit status and output."""
    (tmp_path / "harm.py").write_text(HARM)
    started = []

    def run(kind):
        callback = json.dumps([{"class_path": "harm.Harm", "init_args": {"kind": kind}}])
        options = ("--run_dir=RUN", "--trainer.devices=2", "--trainer.accelerator=cpu", "--num_threads=1")
        options += ("--heartbeat.timeout_s=8", "--data.num_workers=1", f"--trainer.callbacks={callback}")
        options += ("--trainer.enable_progress_bar=false", "--model.backbone.width=0.0625", "--trainer.logger=false")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "BNNLIGHT", "PL_"))}
        env |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bnnlight", "fit", "--config", CONFIG, *options]
        started.append(Started(command, env, tmp_path))
        return started[-1].ended(), started[-1].out + started[-1].err

    yield run
    for process in started:
        process.close()


def errors(text):
    return [line for line in text.splitlines() if line.startswith("bnnlight fit: error: ")]


def test_a_rank_that_stands_still_ends_the_run_and_its_data_loaders(harmed, tmp_path):
    code, text = harmed("SIGSTOP")
    [line] = errors(text)
    assert re.search(r"error: rank 1 on host \S+ has not been heard from for \d+ s; ", line)
    assert line.endswith("started again with --run_dir RUN --resume")
    assert code == 75
    # rank zero and its data loaders
    pids = list(map(int, (tmp_path / "pids0").read_text().split()))
    assert len(pids) >= 2
    wait_until(lambda: not any(map(is_running, pids)), pids)


@pytest.mark.slow
def test_the_error_of_a_rank_reaches_the_others(harmed):
    _, text = harmed("error")
    # its own, and that of the other, if that is not stopped before it can say it
    found = errors(text)
    assert "bnnlight fit: error: no such ant" in found
    assert all("rank 1 on host" in line and "(ValueError: no such ant)" in line for line in found if "rank" in line)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none(timeout_s, check_one_line):
    with pytest.raises(ValueError) as error:
        Heartbeat(timeout_s)
    check_one_line(error, timeout_s, "heartbeat.timeout_s", "null")


@pytest.mark.parametrize(("timeout_s", "world_size"), [(45.0, 1), (None, 2)])
def test_nothing_is_watched_alone_or_where_not_wanted(timeout_s, world_size):
    heartbeat, trainer = Heartbeat(timeout_s), SimpleNamespace(world_size=world_size)
    before = threading.active_count()
    heartbeat.on_train_start(trainer, None)
    assert threading.active_count() == before
    heartbeat.on_train_end(trainer, None)


def test_a_run_goes_on_unwatched_where_rank_zero_cannot_be_reached():
    place = Place("127.0.0.1", 9, "token", "host-a")
    strategy = SimpleNamespace(broadcast=lambda value: (place, ""), barrier=lambda: None)
    trainer = SimpleNamespace(world_size=2, is_global_zero=False, global_rank=1, strategy=strategy)
    heartbeat = Heartbeat(1.0)
    before = threading.active_count()
    with pytest.warns(UserWarning, match="rank 1 goes on without a heartbeat .*127.0.0.1 port 9: .*refused"):
        heartbeat.on_train_start(trainer, None)
    assert threading.active_count() == before
    heartbeat.on_train_end(trainer, None)


@pytest.fixture
def rank_zero():
    """A started heartbeat of rank zero of two, the trainer around it, and the other rank's connection."""
    places = []
    environment = SimpleNamespace(main_address="127.0.0.1", main_port=9)
    strategy = SimpleNamespace(
        broadcast=lambda value: places.append(value[0]) or value,
        barrier=lambda: None,
        cluster_environment=environment,
    )
    trainer = SimpleNamespace(world_size=2, num_nodes=2, is_global_zero=True, global_rank=0, strategy=strategy)
    trainer.default_root_dir = "RUN"
    heartbeat = Heartbeat(60.0)
    heartbeat.on_train_start(trainer, None)
    with call(places[0], LIMIT_S) as other:
        hello = {"kind": "hello", "token": places[0].token, "rank": 1, "host": "far"}
        other.sendall(json.dumps(hello).encode() + b"\n")
        yield heartbeat, trainer, other
    heartbeat.on_train_end(trainer, None)


def test_a_broken_connection_names_the_rank_that_is_gone(rank_zero):
    heartbeat, trainer, other = rank_zero
    other.close()
    error = RuntimeError("[/x/gloo/transport/tcp/pair.cc:525] Connection closed by peer [10.0.0.2]:4242")
    heartbeat.on_exception(trainer, None, error)
    code, line = explain(error)
    assert code == 1
    assert line.startswith("rank 1 on host far is gone: its process was killed or its host went down; ")
    assert line.endswith("started again with --run_dir RUN --resume")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no ant\nat all"), {"kind": "failed", "why": "ValueError: no ant"}),
        (KeyboardInterrupt(), {"kind": "bye"}),
    ],
)
def test_an_error_is_told_to_the_others_but_an_interrupt_is_not(rank_zero, error, told):
    heartbeat, trainer, other = rank_zero
    wait_until(lambda: [peer.rank for peer in heartbeat._lifeline._peers] == [1])
    heartbeat.on_exception(trainer, None, error)
    assert [json.loads(line) for line in other.makefile().readlines()] == [told]


class DistBackendError(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:525] Connection closed by peer [10.0.0.2]:4242"),
        RuntimeError("[/x/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation"),
        DistBackendError("NCCL error in: x.cpp:3690, remote process exited or there was a network error, NCCL 2.21"),
    ],
)
def test_a_broken_connection_is_one_line(error):
    code, line = explain(error)
    assert code == 1 and "\n" not in line
    assert line.startswith("the connection to another process of the run broke (") and "--resume" in line
    error.lost_rank = "rank 3 on host x is gone"
    assert explain(error) == (1, "rank 3 on host x is gone")


@pytest.mark.parametrize("error", [RuntimeError("Connection closed by peer"), RuntimeError("gloo: bad shape")])
def test_other_errors_keep_their_words(error):
    assert explain(error)[1] == f"RuntimeError: {error} (run again with --debug to see where)"
