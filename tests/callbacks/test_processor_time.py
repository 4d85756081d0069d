"""Processor seconds are those of a clock that only the test moves, but for one look at real processes."""

import multiprocessing
import os
import sys

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from bnnlight.callbacks import ProcessorTime, processor_time

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


@pytest.fixture
def used(monkeypatch):
    """Seconds so far, in a list of one; 500 before the training."""
    made = [500.0]
    monkeypatch.setattr(processor_time, "processor_seconds", lambda: made[0])
    return made


@pytest.fixture
def working(used, network):
    """A network whose batches take 3 s, and those of its validation 100 s."""

    class Working(network):
        def training_step(self, batch, batch_idx):
            used[0] += 3
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            used[0] += 100
            self.log("val/acc1", 0.5)

    return Working


def validated(logged):
    return {step: values["time/processor"] for step, values in logged.items() if "val/acc1" in values}


OPTIONS = {"val_check_interval": 2, "num_sanity_val_steps": 1}


def test_seconds_since_training_began_stand_beside_the_figures_of_each_validation(fit, working):
    _, logged, _ = fit(ProcessorTime(), network=working(), val_data=DataLoader([0]), max_steps=6, **OPTIONS)
    # two steps and a validation each time; what came before, the tried validation too, is left out
    assert list(validated(logged).values()) == [106, 212, 318]


def test_a_run_that_goes_on_counts_on(fit, working, used, tmp_path):
    first, _, _ = fit(ProcessorTime(), network=working(), val_data=DataLoader([0]), max_steps=3, **OPTIONS)
    first.save_checkpoint(tmp_path / "last.ckpt")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["ProcessorTime"] == {"seconds": 109}
    used[0] = 7.0  # of another process
    again = {"network": working(), "val_data": DataLoader([0]), "max_steps": 6, "ckpt_path": tmp_path / "last.ckpt"}
    _, logged, _ = fit(ProcessorTime(), **again, **OPTIONS)
    assert list(validated(logged).values()) == [109 + 3 + 100, 109 + 9 + 200]
    # what an earlier version did not keep cannot be known
    kept["callbacks"].clear()
    torch.save(kept, tmp_path / "last.ckpt")
    _, logged, _ = fit(ProcessorTime(), **again, **OPTIONS)
    assert logged and not any("time/processor" in values for values in logged.values())


def test_a_validation_outside_of_training_is_no_part_of_it(working):
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[ProcessorTime()], logger=False, enable_progress_bar=False,
        enable_checkpointing=False,
    )  # fmt: skip
    assert trainer.validate(working(), DataLoader([0]), verbose=False) == [{"val/acc1": 0.5}]


def _work(seconds, done, stay):
    while sum(os.times()[:2]) < seconds:
        pass
    done.set()
    stay.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="loaders that go on can be looked at on Linux alone")
def test_children_count_while_they_go_on_and_once_they_have_ended():
    context = multiprocessing.get_context("fork")
    done, stay = context.Event(), context.Event()
    child = context.Process(target=_work, args=(0.3, done, stay))
    own = sum(os.times()[:2])
    before = processor_time.processor_seconds()
    child.start()
    done.wait()
    beside = processor_time.processor_seconds() - before - (sum(os.times()[:2]) - own)
    stay.set()
    child.join()
    behind = processor_time.processor_seconds() - before - (sum(os.times()[:2]) - own)
    # ticks of a hundredth, rounded down for user and system time apart
    assert beside >= 0.26 and behind >= beside - 0.04
