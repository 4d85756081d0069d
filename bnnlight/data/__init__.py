"""Image classification and human pose data as Lightning data modules.

The folders in here; the docstring of each says what its files do:

============= ==========================================================================
``classes``   `DigitsDataModule`, `FashionMNISTDataModule`, `CIFAR10DataModule`,
              `CIFAR100DataModule`, and `ImageFolderDataModule`: ImageNet's layout, or any
              folder of class folders
``keypoints`` `COCOKeypointsDataModule`: keypoints of anything in COCO's form;
              `MPIIDataModule`, `LSPDataModule`, and `PeopleDataModule`: drawn people, part of the
              installation
``loading``   what both share: loaders, order and seeds, workers, pictures that cannot be
              read, transforms; it imports neither of the two
============= ==========================================================================

A batch of a classification set is a pair: images, float32 of shape (batch, num_channels,
image_size, image_size), normalized; and labels, int64 of shape (batch,). A batch of a pose set
is a dictionary; `bnnlight.data.keypoints.transforms.PoseTransform` lists what is in it. Training
images pass through the augmentation; validation and test images never do.

Add your own data set:

1. If it can be laid out as ``train/CLASS/*`` and ``val/CLASS/*``, you need not write anything:
   use `ImageFolderDataModule`.
2. Otherwise subclass `bnnlight.data.classes.data_module.ClassificationDataModule`. In the constructor,
   with plain type annotations, hand it an `ImageFormat` and the usual augmentation. In
   ``setup``, first check that the data are there, then set ``classes``, ``train_set``,
   ``val_set`` and ``test_set`` from anything that has a length and yields (picture, label):
   ``self.augmented(items)`` to train on, ``self.plain(items)`` to measure on.
   `DigitsDataModule` is the shortest example.
3. People, or anything else, with joints: write a JSON file in COCO's form and use
   `COCOKeypointsDataModule`; else subclass
   `bnnlight.data.keypoints.data_module.PoseDataModule`, as `LSPDataModule` does.
4. Name the class in YAML: ``data: {class_path: my_package.MyDataModule}``. Nothing is
   registered anywhere.
"""

from bnnlight.data.classes.digits import DigitsDataModule
from bnnlight.data.classes.image_folder import ImageFolderDataModule
from bnnlight.data.classes.vision import CIFAR10DataModule, CIFAR100DataModule, FashionMNISTDataModule
from bnnlight.data.keypoints.coco import COCOKeypointsDataModule
from bnnlight.data.keypoints.lsp import LSPDataModule
from bnnlight.data.keypoints.mpii import MPIIDataModule
from bnnlight.data.keypoints.people import PeopleDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "COCOKeypointsDataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "LSPDataModule",
    "MPIIDataModule",
    "PeopleDataModule",
]
