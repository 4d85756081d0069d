"""Image classification data as Lightning data modules.

The map of this folder:

=================== =========================================================================
``digits.py``       `DigitsDataModule`: scikit-learn's digits, part of the installation
``vision.py``       `FashionMNISTDataModule`, `CIFAR10DataModule`, `CIFAR100DataModule`
``image_folder.py`` `ImageFolderDataModule`: ImageNet's layout, or any folder of class folders
``loaders.py``      what all of them share: batches, workers, attributes
``transforms.py``   pictures to network inputs: resizing, channels, normalization, augmentation
``splits.py``       held-out images: stratified, and the same in every run
``folders.py``      reading class folders and single image files, with errors that name the file
=================== =========================================================================

A batch is a pair: images, float32 of shape (batch, num_channels, image_size, image_size),
normalized; and labels, int64 of shape (batch,). Training images pass through the
augmentation; validation and test images never do.

Add your own data set:

1. If it can be laid out as ``train/CLASS/*`` and ``val/CLASS/*``, nothing need be written:
   use `ImageFolderDataModule`.
2. Otherwise subclass `bnnlight.data.loaders.ClassificationDataModule`. In the constructor,
   with plain type annotations, hand it an `ImageFormat` and the usual augmentation. In
   ``setup``, first check that the data are there, then set ``classes``, ``train_set``,
   ``val_set`` and ``test_set`` from anything that has a length and yields (picture, label):
   ``self.augmented(items)`` to train on, ``self.plain(items)`` to measure on.
   `DigitsDataModule` is the shortest example.
3. Name the class in YAML: ``data: {class_path: my_package.MyDataModule}``. Nothing is
   registered anywhere.
"""

from bnnlight.data.digits import DigitsDataModule
from bnnlight.data.image_folder import ImageFolderDataModule
from bnnlight.data.vision import CIFAR10DataModule, CIFAR100DataModule, FashionMNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
]
