"""A loader that begins where a run was stopped hands out what was left of the epoch."""

import pytest
import torch
from torch.utils.data import TensorDataset

from bnnlight.data.loading.sampling import TrainSampler
from bnnlight.data.loading.train_loader import TrainLoader

ITEMS = TensorDataset(torch.arange(23))


def loader(batch_size=4, num_workers=0, ranks=1, rank=0):
    sampler = TrainSampler(ITEMS, seed=7, num_replicas=ranks, rank=rank, drop_last=True)
    return TrainLoader(
        ITEMS, batch_size=batch_size, sampler=sampler, drop_last=True, num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )  # fmt: skip


def batches(found):
    return [batch[0].tolist() for batch in found]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("taken", [0, 1, 3, 5])
def test_the_rest_of_an_epoch_and_all_of_the_next(num_workers, taken):
    whole = loader()
    whole.sampler.set_epoch(4)
    first = batches(whole)
    whole.sampler.set_epoch(5)
    second = batches(whole)
    assert first != second and len(first) == 5

    stopped = loader(num_workers=num_workers)
    stopped.sampler.set_epoch(4)
    iterator = iter(stopped)
    assert [next(iterator)[0].tolist() for _ in range(taken)] == first[:taken]
    state = stopped.state_dict()
    assert state == {"epoch": 4, "num_batches": taken, "total_batch_size": 4}

    # Lightning takes an iterator before it hands over the state and says the epoch
    resumed = loader(num_workers=num_workers)
    iterator = iter(resumed)
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(4)
    assert batches(iterator) == first[taken:]
    assert resumed.state_dict()["num_batches"] == 5
    resumed.sampler.set_epoch(5)
    assert batches(resumed) == second
    assert len(resumed) == 5


def test_a_state_of_another_epoch_counts_for_nothing():
    whole, resumed = loader(), loader()
    resumed.load_state_dict({"epoch": 4, "num_batches": 5, "total_batch_size": 4})
    for each in (whole, resumed):
        each.sampler.set_epoch(5)
    assert batches(resumed) == batches(whole)


def test_two_processes_go_on_where_one_stopped():
    one = loader(batch_size=4)
    iterator = iter(one)
    next(iterator), next(iterator)
    state, rest = one.state_dict(), batches(iterator)
    ranks = [loader(batch_size=2, ranks=2, rank=rank) for rank in range(2)]
    for each in ranks:
        each.load_state_dict(state)
    for together, *shares in zip(rest, *map(batches, ranks), strict=True):
        assert sorted(together) == sorted(shares[0] + shares[1])


def test_steps_of_another_size_within_an_epoch(check_one_line):
    state = {"epoch": 0, "num_batches": 1, "total_batch_size": 4}
    with pytest.raises(ValueError) as error:
        loader(batch_size=4, ranks=2).load_state_dict(state)
    check_one_line(error, "a step took 4 pictures in all processes, and now it takes 8", "data.batch_size")
    # between two epochs there is nothing left to share out differently
    loader(batch_size=2).load_state_dict(state | {"num_batches": 0})
    loader(batch_size=4, ranks=2).load_state_dict(state | {"num_batches": 5})
