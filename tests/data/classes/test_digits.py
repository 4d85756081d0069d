import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from bnnlight.data import DigitsDataModule


@pytest.fixture
def digits():
    data = DigitsDataModule()
    data.setup()
    return data


def test_attributes_are_there_before_any_data():
    data = DigitsDataModule()
    assert (data.num_channels, data.image_size) == (1, 8)
    assert data.eval_transform(Image.new("RGB", (30, 20))).shape == (1, 8, 8)
    assert data.classes == list("0123456789")


def test_more_transforms_change_training_pictures_alone(digits):
    data = DigitsDataModule(train_transforms=[], more_transforms=[v2.RandomInvert(p=1.0)])
    data.setup()
    place = data.train_set.indices[0]
    image, mean, std = data.train_set.items[place][0], 0.3053, 0.3760
    expected = ((255 - np.asarray(image, np.float64)) / 255 - mean) / std
    np.testing.assert_allclose(data.train_set[0][0][0].numpy(), expected, atol=1e-5)
    assert torch.equal(data.val_set[0][0], digits.val_set[0][0])


def test_splits_are_disjoint_complete_and_of_the_stated_size(digits):
    parts = [set(view.indices.tolist()) for view in (digits.train_set, digits.val_set, digits.test_set)]
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert set.union(*parts) == set(range(1797))


def test_splits_are_stratified(digits):
    shares = np.bincount(load_digits().target) / 1797
    for view in (digits.train_set, digits.val_set, digits.test_set):
        counts = np.bincount([label for _, label in view], minlength=10)
        np.testing.assert_allclose(counts, shares * len(view), atol=1.5)


def test_split_follows_split_seed_and_not_the_run(digits):
    def test_indices(run_seed, **options):
        torch.manual_seed(run_seed)
        np.random.seed(run_seed)
        data = DigitsDataModule(**options)
        data.setup()
        return data.test_set.indices.tolist()

    assert test_indices(1) == test_indices(2) == digits.test_set.indices.tolist()
    assert test_indices(1, split_seed=1) != test_indices(1)


def test_images_are_scikit_learns_normalized(digits):
    source = load_digits()
    scaled = source.images / 16
    expected = (scaled - scaled.mean()) / scaled.std()
    for view in (digits.val_set, digits.test_set):
        for position, index in enumerate(view.indices):
            image, label = view[position]
            assert label == source.target[index]
            # Rounding to 255 levels moves a value by up to half a level.
            np.testing.assert_allclose(image[0].numpy(), expected[index], atol=0.5 / 255 / 0.376 + 1e-3)


def test_only_training_images_are_augmented(digits):
    def varies(view):
        return any(not torch.equal(view[i][0], view[i][0]) for i in range(10))

    assert varies(digits.train_set)
    assert not varies(digits.val_set)
    assert not varies(digits.test_set)


def test_usual_augmentation_is_small(digits):
    # An average over many draws stays close to the image; a wild augmentation would not.
    torch.manual_seed(0)
    draws = torch.stack([digits.train_set[0][0] for _ in range(300)])
    plain = digits.eval_transform(digits.train_set.items[digits.train_set.indices[0]][0])
    correlation = np.corrcoef(draws.mean(0).flatten(), plain.flatten())[0, 1]
    assert 0.75 < correlation < 0.999


def test_list_replaces_the_usual_augmentation():
    source = load_digits().images
    for transforms, change in (([], lambda x: x), ([v2.RandomVerticalFlip(1.0)], np.flipud)):
        data = DigitsDataModule(train_transforms=transforms)
        data.setup("fit")
        index = data.train_set.indices[0]
        expected = (change(source[index]) / 16 - 0.3053) / 0.3760
        np.testing.assert_allclose(data.train_set[0][0][0].numpy(), expected, atol=0.01)


def test_batch_shapes(digits):
    images, labels = next(iter(digits.train_dataloader()))
    assert images.shape == (64, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.shape == (64,)
    assert labels.dtype == torch.int64
