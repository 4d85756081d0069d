"""What a process draws, against small cases by hand, and that nothing but seed, epoch and position decides it."""

import pickle
import random

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bnnlight.data import PeopleDataModule
from bnnlight.data.classes.data_module import View
from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.data.loading.sampling import (
    Draw,
    SameSampler,
    TrainSampler,
    UnpaddedSampler,
    items_at,
    no_items,
    run_seed,
    seeded_by,
)


def draws(sampler, epoch=0):
    sampler.set_epoch(epoch)
    made = list(sampler)
    assert len(made) == len(sampler)
    return [(int(draw), draw.seed) for draw in made]


def test_an_epoch_shows_every_position_once_in_an_order_of_its_own():
    orders = [tuple(draws(TrainSampler(range(50), seed=3), epoch)) for epoch in range(4)]
    for order in orders:
        assert sorted(position for position, _ in order) == list(range(50))
        assert len({seed for _, seed in order}) == 50
    assert len({tuple(position for position, _ in order) for order in orders}) == 4
    # a picture looks different each epoch
    assert len({dict(order)[7] for order in orders}) == 4
    assert draws(TrainSampler(range(50), seed=3), 2) == list(orders[2])
    other = draws(TrainSampler(range(50), seed=4), 2)
    assert dict(other)[7] != dict(orders[2])[7]
    assert [p for p, _ in other] != [p for p, _ in orders[2]]


def test_neither_seed_and_epoch_nor_position_may_be_exchanged():
    # seed + epoch, as torch's own sampler has it, would let one run's second epoch be the next run's first
    assert draws(TrainSampler(range(20), seed=1), 0) != draws(TrainSampler(range(20), seed=0), 1)
    # nor does the seed of a picture depend on how many there are
    assert dict(draws(TrainSampler(range(20), seed=5)))[3] == dict(draws(TrainSampler(range(30), seed=5)))[3]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num", [12, 13, 14])
def test_three_processes_see_in_each_step_what_one_sees(num, drop_last):
    batch_size = 2
    whole = draws(TrainSampler(range(num), seed=9), epoch=1)
    shares = [draws(TrainSampler(range(num), 9, 3, rank, drop_last), epoch=1) for rank in range(3)]
    # by hand: 4 each; without dropping, the first ranks take one of the rest each
    assert [len(share) for share in shares] == [4 + (not drop_last and rank < num - 12) for rank in range(3)]
    for step in range(12 // (3 * batch_size)):
        together = [draw for share in shares for draw in share[step * batch_size : (step + 1) * batch_size]]
        assert sorted(together) == sorted(whole[step * 3 * batch_size : (step + 1) * 3 * batch_size])
    assert shares[1][:4] == whole[1:12:3]


def test_each_process_has_something_to_train_on():
    shares = [draws(TrainSampler(range(2), 0, 5, rank)) for rank in range(5)]
    assert [len(share) for share in shares] == [1] * 5
    first, second = (share[0] for share in shares[:2])
    assert first[0] != second[0]
    assert [share[0] for share in shares] == [first, second, first, second, first]


def test_nothing_to_train_on_is_said(check_one_line):
    with pytest.raises(ValueError, match="training set is empty") as error:
        TrainSampler([], seed=0)
    check_one_line(error)


@pytest.mark.parametrize(
    ("num", "shares"),
    [(7, [[0, 3, 6], [1, 4], [2, 5]]), (3, [[0], [1], [2]]), (1, [[0], [0], [0]]), (0, [[], [], []])],
)
def test_measuring_repeats_nothing(num, shares):
    samplers = [UnpaddedSampler(range(num), 3, rank) for rank in range(3)]
    assert [list(sampler) for sampler in samplers] == shares
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


def test_a_batch_without_items_keeps_its_form():
    images, labels = no_items([(torch.ones(3, 4, 4), 1)])
    assert (images.shape, images.dtype) == ((0, 3, 4, 4), torch.float32)
    assert (labels.shape, labels.dtype) == ((0,), torch.int64)
    assert no_items([{"joints": torch.ones(16, 2)}])["joints"].shape == (0, 16, 2)


def numbers():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_a_draw_rules_all_generators_and_leaves_them_as_they_were():
    def seen(position, disturbed):
        torch.manual_seed(disturbed)
        np.random.seed(disturbed)
        random.seed(disturbed)
        with seeded_by(position):
            inside = numbers()
        return inside, numbers()

    inside, after = seen(Draw(4, 2**32 - 2), 1)
    again, after_another = seen(Draw(5, 2**32 - 2), 2)
    assert inside == again
    for mine, others in zip(inside, seen(Draw(4, 2**32 - 3), 1)[0], strict=True):
        assert mine != others
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    untouched = numbers()
    assert after == untouched
    assert after_another != untouched
    # a plain position seeds nothing: what is drawn goes on from where the generators stand
    assert seen(4, 1)[0] == untouched


def test_generators_are_put_back_after_an_error():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = numbers()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with pytest.raises(OSError, match="damaged"), seeded_by(Draw(0, 5)):
        numbers()
        raise OSError("damaged")
    assert numbers() == expected


def test_a_draw_is_a_position_and_survives_the_way_to_a_worker():
    draw = pickle.loads(pickle.dumps(Draw(2, 99)))
    assert (draw, draw.seed) == (2, 99)
    assert isinstance(draw, Draw)
    assert "abc"[draw] == "c"
    assert torch.arange(5)[draw] == 2


@pytest.mark.parametrize("chosen", ["11", None])
def test_seed_of_the_run(monkeypatch, chosen):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if chosen:
        monkeypatch.setenv("PL_GLOBAL_SEED", chosen)
    torch.manual_seed(5)
    assert run_seed() == (11 if chosen else 5)


class Noise(ImageDataModule):
    """Thirteen pictures of one number, each shown with noise of three generators."""

    def __init__(self, num_workers, batch_size=2):
        super().__init__(batch_size, num_workers)

    def setup(self, stage):
        items = [(float(number), number) for number in range(13)]
        self.train_set = View(items, lambda value: torch.tensor([value, *(n[0] for n in numbers())]))
        self.val_set = View(items, torch.tensor)


class Dropout(lightning.LightningModule):
    """Records its batches, and what a dropout makes of the ones."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches, self.dropped = [], []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch[0])
        self.dropped.append(torch.nn.functional.dropout(torch.ones(20)))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(num_workers=0, max_epochs=2, seed=7, ckpt_path=None, folder=None, **options):
    lightning.seed_everything(seed, workers=True, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    task = Dropout()
    trainer.fit(task, Noise(num_workers), ckpt_path=ckpt_path)
    if folder:
        trainer.save_checkpoint(folder / "half.ckpt")
    return task


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_loader_workers_change_neither_pictures_nor_the_trainings_own_random_numbers():
    alone, workers, other = train(0), train(3), train(0, seed=8)
    assert len(alone.batches) == 12
    for name in ("batches", "dropped"):
        assert torch.equal(torch.stack(getattr(alone, name)), torch.stack(getattr(workers, name)))
    assert not torch.equal(torch.stack(alone.batches), torch.stack(other.batches))
    # no two showings of a picture are alike, and each of the three generators had its say
    for column in range(1, 4):
        assert len({float(n) for batch in alone.batches for n in batch[:, column]}) == 24


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
def test_a_run_resumed_at_an_epochs_start_sees_what_the_whole_one_sees(tmp_path):
    whole = train(max_epochs=3)
    train(max_epochs=2, folder=tmp_path)
    rest = train(max_epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert len(rest.batches) == 6
    assert torch.equal(torch.stack(whole.batches[12:]), torch.stack(rest.batches))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.parametrize("share, num_batches", [(3, 3), (0.5, 3)])
def test_batches_to_overfit_are_the_same_each_epoch_resumed_or_not(tmp_path, share, num_batches):
    whole = train(max_epochs=3, overfit_batches=share)
    batches = torch.stack(whole.batches)
    assert len(batches) == 3 * num_batches
    assert batches[:num_batches, :, 0].flatten().tolist() == list(range(2 * num_batches))
    for epoch in (1, 2):
        assert torch.equal(batches[epoch * num_batches :][:num_batches], batches[:num_batches])
    train(max_epochs=2, folder=tmp_path, overfit_batches=share)
    rest = train(max_epochs=3, ckpt_path=tmp_path / "half.ckpt", overfit_batches=share)
    workers = train(num_workers=2, max_epochs=1, overfit_batches=share)
    for part in (rest, workers):
        assert torch.equal(torch.stack(part.batches), batches[:num_batches])


def test_processes_share_the_batches_to_overfit():
    whole = draws(SameSampler(range(10), seed=3))
    assert [position for position, _ in whole] == list(range(10))
    shares = [draws(SameSampler(range(10), 3, 2, rank), epoch=5) for rank in (0, 1)]
    assert [draw for pair in zip(*shares, strict=True) for draw in pair] == whole
    # what Lightning asks, in `_resolve_overfit_batches` and `_requires_distributed_sampler`, before it takes its own
    for sampler in (SameSampler(range(10), 3, 2, 1), UnpaddedSampler(range(10), 2, 1)):
        assert isinstance(sampler, torch.utils.data.SequentialSampler)
        assert isinstance(sampler, torch.utils.data.DistributedSampler)


def test_poses_are_augmented_by_the_draw_too():
    data = PeopleDataModule(num_train=2, num_val=1, num_test=1, image_size=32)
    data.setup()
    torch.manual_seed(0)
    first, again, other = (data.train_set[draw]["to_image"] for draw in (Draw(1, 3), Draw(1, 3), Draw(1, 4)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # plain positions follow the global generator
    assert not torch.equal(data.train_set[1]["to_image"], data.train_set[1]["to_image"])


class Shown:
    """Shows of each position what the generators of torch, numpy and Python give there."""

    __getitems__ = items_at

    def __getitem__(self, position):
        with seeded_by(position):
            return numbers()


def test_a_batch_of_draws_shows_what_each_shows_alone_and_leaves_the_generators():
    shown, draws = Shown(), [Draw(3, 7), Draw(0, 2**32 - 1), Draw(3, 8)]
    alone = [shown[draw] for draw in draws]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    # half of a pair of normal numbers is kept by numpy's generator
    np.random.randn()
    expected = numbers(), np.random.randn()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    np.random.randn()
    assert shown.__getitems__(draws) == alone
    assert (numbers(), np.random.randn()) == expected
    # plain positions draw on from where the generators stand
    torch.manual_seed(1)
    rows = torch_rows(seed=1)
    assert [torch_numbers for torch_numbers, _, _ in shown.__getitems__([0, 1])] == rows[:2]
    # and leave them further on
    assert torch.rand(3).tolist() == rows[2]


def torch_rows(seed):
    return torch.rand(3, 3, generator=torch.Generator().manual_seed(seed)).tolist()


def test_loaders_keep_the_generators_once_a_batch(monkeypatch):
    kept = []
    get_state = np.random.get_state
    monkeypatch.setattr(np.random, "get_state", lambda: kept.append(0) or get_state())
    batches = DataLoader(Shown(), batch_size=4, sampler=[Draw(0, seed) for seed in range(8)], collate_fn=list)
    assert len([shown for batch in batches for shown in batch]) == 8
    assert len(kept) == 2
