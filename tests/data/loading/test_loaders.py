import os
import random
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch

from bnnlight.data import DigitsDataModule, ImageFolderDataModule
from bnnlight.data.classes.data_module import ClassificationDataModule, View
from bnnlight.data.loading.loaders import default_num_workers
from bnnlight.data.loading.transforms import ImageFormat


class Recorder(lightning.LightningModule):
    """Keeps every training batch it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def record(seed, num_workers):
    lightning.seed_everything(seed, workers=True, verbose=False)
    recorder = Recorder()
    trainer = lightning.Trainer(
        max_steps=25,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(recorder, DigitsDataModule(num_workers=num_workers))
    return recorder.batches


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_trainer_gives_the_same_batches_for_the_same_seed(num_workers):
    first, again, other = (record(seed, num_workers) for seed in (7, 7, 8))
    assert len(first) == 25
    for (images, labels), (images_again, labels_again) in zip(first, again, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)
    assert not torch.equal(first[0][0], other[0][0])
    # 19 batches are an epoch: the second epoch is drawn anew.
    assert not torch.equal(first[0][1], first[19][1])


def test_augmentation_draws_from_torch_alone(draw_folder):
    data = ImageFolderDataModule(str(draw_folder("train", num_images=10)), image_size=8)
    data.setup("fit")
    batches = []
    for other_seed in (1, 2):
        random.seed(other_seed)
        np.random.seed(other_seed)
        torch.manual_seed(0)
        batches.append(torch.stack([data.train_set[i][0] for i in range(10)]))
    assert torch.equal(batches[0], batches[1])


def module_over(num_images, batch_size, num_workers=0):
    image_format = ImageFormat(num_channels=3, image_size=4, mean=(0,) * 3, std=(1,) * 3, resize_px=4)
    data = ClassificationDataModule(image_format, [], batch_size, num_workers)
    items = [(torch.full((3, 4, 4), i, dtype=torch.uint8), i) for i in range(num_images)]
    data.train_set, data.val_set = data.augmented(items), data.plain(items)
    return data


def test_training_shuffles_and_drops_the_incomplete_batch():
    torch.manual_seed(0)
    data = module_over(num_images=50, batch_size=8)
    labels = [batch.tolist() for _, batch in data.train_dataloader()]
    assert [len(batch) for batch in labels] == [8] * 6
    flat = [label for batch in labels for label in batch]
    assert len(set(flat)) == 48
    assert flat != sorted(flat)


def test_a_training_set_below_one_batch_is_kept():
    [(images, _)] = module_over(num_images=5, batch_size=8).train_dataloader()
    assert images.shape == (5, 3, 4, 4)


def test_incomplete_batch_is_kept_where_processes_share_too_few_images():
    data = module_over(num_images=50, batch_size=20)
    assert data.train_dataloader().drop_last
    data.trainer = SimpleNamespace(world_size=4, global_rank=0, strategy=SimpleNamespace(broadcast=lambda seed: seed))
    assert not data.train_dataloader().drop_last


def test_validation_keeps_order_and_every_image():
    batches = list(module_over(num_images=50, batch_size=8).val_dataloader())
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(50))
    images = torch.cat([images for images, _ in batches])
    np.testing.assert_allclose(images[:, 0, 0, 0].numpy() * 255, np.arange(50), atol=1e-4)


@pytest.mark.parametrize(("num_images", "shares"), [(5, [[0, 3], [1, 4], [2]]), (2, [[0], [1], []])])
def test_processes_share_the_validation_images_without_repeating_any(num_images, shares):
    data = module_over(num_images, batch_size=8)
    for rank, share in enumerate(shares):
        data.trainer = SimpleNamespace(world_size=3, global_rank=rank)
        # a batch in any case, or the others would wait for this process
        [(images, labels)] = data.val_dataloader()
        assert labels.tolist() == share
        assert images.shape == (len(share), 3, 4, 4)


def test_view_shows_chosen_items_in_order():
    view = View([(number, number % 2) for number in range(10)], lambda x: -x, [7, 2])
    assert [view[i] for i in range(len(view))] == [(-7, 1), (-2, 0)]


@pytest.mark.parametrize(("num_cores", "expected"), [(3, 3), (64, 8)])
def test_default_workers_follow_the_cores_that_are_granted(monkeypatch, num_cores, expected):
    granted = set(range(num_cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: granted, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    assert default_num_workers() == expected
    assert ImageFolderDataModule("anywhere").num_workers == expected
    assert DigitsDataModule().num_workers == 0


def test_default_workers_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert default_num_workers() == 5


@pytest.mark.parametrize("has_cuda", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_options(monkeypatch, has_cuda, num_workers):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    data = module_over(num_images=8, batch_size=4, num_workers=num_workers)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert loader.pin_memory is has_cuda
        assert loader.persistent_workers is (num_workers > 0)
