"""Seconds are those of a clock that only the test moves."""

import resource

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bnnlight.callbacks import StepTime, step_time

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(step_time, "time", made)
    return made


@pytest.fixture
def data(clock):
    """A set of 12 batches that take 2 s each."""

    class Slow(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            clock.now += 2
            return torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 2, 0])

    return DataLoader(Slow(), batch_size=None)


@pytest.fixture
def timed(clock, network):
    """A network whose batches take 3 s, those from the tenth on 5 s, and whose validation takes 100 s a batch."""

    class Timed(network):
        def training_step(self, batch, batch_idx):
            clock.now += 3 if batch_idx < 10 else 5
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock.now += 100

    return Timed()


def times(logged):
    return {step: (values["time/step"], values["time/data"]) for step, values in logged.items()}


def test_means_since_the_last_look(fit, timed, data):
    _, logged, _ = fit(StepTime(interval=5), network=timed, data=data, max_steps=12)
    assert times(logged) == {5: (5, 2), 10: (5, 2)}
    _, logged, _ = fit(StepTime(interval=6), network=timed, data=data, max_steps=12)
    # of steps 7 to 12 two take 7 s
    assert times(logged) == {6: (5, 2), 12: (pytest.approx((4 * 5 + 2 * 7) / 6), 2)}


def test_batches_of_an_accumulated_step_add_up(fit, timed, data):
    _, logged, _ = fit(StepTime(interval=2), network=timed, data=data, max_steps=4, accumulate_grad_batches=2)
    assert times(logged) == {2: (10, 4), 4: (10, 4)}


def test_validation_is_left_out(fit, timed, data):
    options = {"val_data": DataLoader([0, 1]), "val_check_interval": 3, "num_sanity_val_steps": 1}
    _, logged, _ = fit(StepTime(interval=5), network=timed, data=data, max_steps=10, **options)
    assert times(logged) == {5: (5, 2), 10: (5, 2)}


def test_epochs_are_left_out_between(fit, timed, data, clock):
    timed.on_train_epoch_end = lambda: setattr(clock, "now", clock.now + 50)
    _, logged, _ = fit(StepTime(interval=15), network=timed, data=data, max_steps=15)
    assert times(logged) == {15: (pytest.approx((13 * 5 + 2 * 7) / 15), 2)}


def test_a_resumed_run_counts_its_own_steps_alone(fit, timed, data, network, tmp_path, clock):
    trainer, _, _ = fit(StepTime(interval=5), network=timed, data=data, max_steps=7)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    clock.now += 10_000
    again = type(timed)()
    _, logged, _ = fit(StepTime(interval=5), network=again, data=data, max_steps=11, ckpt_path=tmp_path / "last.ckpt")
    assert times(logged) == {10: (5, 2)}


def test_peak_memory_is_what_the_system_says_in_bytes(fit):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, logged, _ = fit(StepTime(interval=1), max_steps=1)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if step_time.sys.platform == "darwin" else 1024
    assert unit * before <= logged[1]["mem/peak"] <= unit * after


def test_peak_memory_on_a_gpu_is_torchs(monkeypatch):
    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {device: 12345}.__getitem__)
    assert step_time.peak_bytes(device) == 12345


def test_without_a_way_to_know_no_memory_is_logged(fit, monkeypatch):
    monkeypatch.setattr(step_time, "resource", None)
    _, logged, _ = fit(StepTime(interval=1), max_steps=1)
    assert logged[1].keys() == {"time/step", "time/data"}


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_below_one_is_an_error(interval):
    with pytest.raises(ValueError, match=f"interval is {interval}"):
        StepTime(interval)
