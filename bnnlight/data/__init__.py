"""Image classification and human pose data as Lightning data modules.

The map of this folder:

=================== =========================================================================
``digits.py``       `DigitsDataModule`: scikit-learn's digits, part of the installation
``vision.py``       `FashionMNISTDataModule`, `CIFAR10DataModule`, `CIFAR100DataModule`
``image_folder.py`` `ImageFolderDataModule`: ImageNet's layout, or any folder of class folders
``loaders.py``      what all of them share: batches, workers, attributes
``sampling.py``     which pictures a process sees, in which order, with which random numbers
``by_value.py``     small tensors on their way from the workers, copied instead of shared
``bad_images.py``   pictures that cannot be read, left out of their batches and counted
``checking.py``     a whole data set read through once; ``files.py`` tells an item's file
``transforms.py``   pictures to network inputs: resizing, channels, normalization, augmentation
``splits.py``       held-out images: stratified, and the same in every run
``folders.py``      reading class folders, with errors that name the folder or the file
``mpii.py``         `MPIIDataModule`: MPII Human Pose, from lists of people; they are read in
                    ``mpii_json.py``, ``mpii_heads.py`` and ``mpii_release.py``
``lsp.py``          `LSPDataModule`: Leeds Sports Pose and its extended training set
``people.py``       `PeopleDataModule`: drawn people, part of the installation; ``figures`` draws them
``pose.py``         what the three pose sets share: a person in a picture, samples, attributes
``pose_transforms.py`` a person cut out of a picture: one warp of pixels, one of colours
``heatmaps.py``     joints to targets, heat maps to joints
``pose_files.py``   annotated people and their pictures; ``pictures.py`` reads a picture
``pose_checks.py``  what is checked of annotations, with errors that name file and entry
=================== =========================================================================

A batch of a classification set is a pair: images, float32 of shape (batch, num_channels,
image_size, image_size), normalized; and labels, int64 of shape (batch,). A batch of a pose set
is a dictionary; `bnnlight.data.pose_transforms.PoseTransform` lists what is in it. Training
images pass through the augmentation; validation and test images never do.

Add your own data set:

1. If it can be laid out as ``train/CLASS/*`` and ``val/CLASS/*``, nothing need be written:
   use `ImageFolderDataModule`.
2. Otherwise subclass `bnnlight.data.loaders.ClassificationDataModule`. In the constructor,
   with plain type annotations, hand it an `ImageFormat` and the usual augmentation. In
   ``setup``, first check that the data are there, then set ``classes``, ``train_set``,
   ``val_set`` and ``test_set`` from anything that has a length and yields (picture, label):
   ``self.augmented(items)`` to train on, ``self.plain(items)`` to measure on.
   `DigitsDataModule` is the shortest example.
3. People with joints: write MPII's JSON lists and use `MPIIDataModule`, if they have MPII's 16
   joints; else subclass `bnnlight.data.pose.PoseDataModule`, as `LSPDataModule` does.
4. Name the class in YAML: ``data: {class_path: my_package.MyDataModule}``. Nothing is
   registered anywhere.
"""

from bnnlight.data.digits import DigitsDataModule
from bnnlight.data.image_folder import ImageFolderDataModule
from bnnlight.data.lsp import LSPDataModule
from bnnlight.data.mpii import MPIIDataModule
from bnnlight.data.people import PeopleDataModule
from bnnlight.data.vision import CIFAR10DataModule, CIFAR100DataModule, FashionMNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageFolderDataModule",
    "LSPDataModule",
    "MPIIDataModule",
    "PeopleDataModule",
]
