"""A loader process that is lost is told of with the signal that ended it, also after a fit."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from bnnlight.data.loading import worker_signals


class Dying(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def never_set(monkeypatch):
    """As in a process that has not had a loader with workers yet."""
    kept = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    yield
    signal.signal(signal.SIGCHLD, kept)


def test_the_reason_is_heard_after_all_handlers_were_put_back(never_set):
    file = "bnnlight/data/loading/worker_signals.py"
    assert worker_signals._set_SIGCHLD_handler, f"torch {torch.__version__} has no _set_SIGCHLD_handler: adapt {file}"
    worker_signals.hear_of_lost_workers()
    # as Lightning does it: the handlers of before a fit, whose loader sets torch's, come back at its end
    found = signal.getsignal(signal.SIGCHLD)
    assert list(DataLoader([1], batch_size=None, num_workers=1)) == [1]
    signal.signal(signal.SIGCHLD, found)
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        next(iter(DataLoader(Dying(), num_workers=1)))
    # where it came while the loader waited, torch puts its own words in front
    assert "killed by signal: Killed" in f"{caught.value} {caught.value.__cause__}"


def test_a_torch_without_it_trains_on(never_set, monkeypatch):
    monkeypatch.setattr(worker_signals, "_set_SIGCHLD_handler", None)
    worker_signals.hear_of_lost_workers()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
