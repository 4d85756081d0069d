"""The modules on the real data sets; each test skips where its set is absent."""

import numpy as np
import torch

from bnnlight.data import CIFAR10DataModule, FashionMNISTDataModule, ImageFolderDataModule


def nearest_mean_accuracy(train, test):
    """Classify test images by the nearest class mean of the training images."""
    images, labels = (
        torch.stack([image for image, _ in train]),
        torch.tensor([y for _, y in train]),
    )
    means = torch.stack([images[labels == label].mean(0) for label in range(10)]).flatten(1)
    tests, truth = torch.stack([image for image, _ in test]), torch.tensor([y for _, y in test])
    return (torch.cdist(tests.flatten(1), means).argmin(1) == truth).float().mean().item()


def test_fashion_mnist(real_data):
    data = FashionMNISTDataModule(str(real_data("fashion-mnist")), num_workers=0, train_size=2000)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (2000, 5000, 10_000)
    # The published file of test labels begins so: ankle boot, pullover, trouser, trouser, shirt.
    labels = [data.test_set[i][1] for i in range(5)]
    assert [data.classes[y] for y in labels] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
        "Trouser",
        "Shirt",
    ]
    pixels = data.train_set.items.data.numpy() / np.float32(255)
    white = data.eval_transform(torch.full((28, 28), 255, dtype=torch.uint8))[0, 0, 0].item()
    assert abs(white - (1 - pixels.mean()) / pixels.std()) < 1e-3
    test = [data.test_set[i] for i in range(1000)]
    assert nearest_mean_accuracy(data.plain(data.train_set.items, data.train_set.indices), test) > 0.6


def test_cifar10_as_jpeg(real_data):
    data = CIFAR10DataModule(str(real_data("cifar10_jpeg")), num_workers=2, batch_size=500)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (45_000, 5000, 10_000)
    targets = np.array(data.val_set.items.targets)
    assert np.bincount(targets[data.val_set.indices]).tolist() == [500] * 10
    assert np.bincount(targets[data.train_set.indices]).tolist() == [4500] * 10
    images = next(iter(data.train_dataloader()))[0]
    assert images.shape == (500, 3, 32, 32)
    plain = torch.stack([data.val_set[i][0] for i in range(0, 5000, 10)])
    # 500 images tell the mean to about 0.02 and the deviation to about 0.02.
    torch.testing.assert_close(plain.mean((0, 2, 3)), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(plain.std((0, 2, 3)), torch.ones(3), atol=0.1, rtol=0)


def test_imagenette(real_data):
    root = real_data("imagenette72")
    data = ImageFolderDataModule(str(root), image_size=64, num_workers=2, batch_size=100)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (9469, 3925, 3925)
    assert data.classes == sorted(path.name for path in (root / "val").iterdir())
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images = next(iter(loader))[0]
        assert images.shape == (100, 3, 64, 64)
        assert torch.isfinite(images).all()
