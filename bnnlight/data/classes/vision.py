"""Data modules for Fashion-MNIST, CIFAR-10 and CIFAR-100, read by torchvision's data set classes."""

from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets
from torchvision.transforms import v2

from bnnlight.data.classes.data_module import ClassificationDataModule
from bnnlight.data.classes.folders import ClassFolders, KeptPictures, class_names
from bnnlight.data.classes.splits import choose_stratified
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.imaging.reading import one_line

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# As a list, these would fill a hundred lines.
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
""".split()  # noqa: SIM905


class TorchvisionDataModule(ClassificationDataModule):
    """Base of the three: a training set, of which some is held out, and a test set.

    A subclass states as class attributes what distinguishes its data set.

    Args:
        root: folder in which torchvision looks for the data set, or puts it.
        download: fetch the data set with torchvision where it is missing.
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        train_transforms: augmentation of the training images in place of the usual one
            (random crop of the padded image, flip); an empty list is none. Conversion and
            normalization are always added.
        val_size: number of training images to hold out for validation, stratified by class.
        train_size: number of the remaining images to train on, stratified by class; all if
            None.
        split_seed: of both choices; independent of the run's seed.
        on_bad_image: what to do about an image file in CIFAR's class folders that cannot be read: "stop" or "skip"
            it.
        more_transforms: further transforms of the training images, after the augmentation whatever
            that is: {class_path: torchvision.transforms.v2.RandAugment}, for instance.
    """

    title: str
    dataset_class: Any
    data_folder: str
    image_format: ImageFormat
    padding_px: int
    names: list[str]

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        batch_size: int = 128,
        num_workers: int | None = None,
        train_transforms: list[v2.Transform] | None = None,
        val_size: int = 5000,
        train_size: int | None = None,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "stop",
        more_transforms: list[v2.Transform] | None = None,
    ) -> None:
        if train_transforms is None:
            crop = v2.RandomCrop(self.image_format.image_size, padding=self.padding_px)
            train_transforms = [crop, v2.RandomHorizontalFlip()]
        super().__init__(self.image_format, train_transforms, batch_size, num_workers, on_bad_image, more_transforms)
        self.classes = list(self.names)
        self.root = Path(root).expanduser()
        self.download = download
        self.val_size = val_size
        self.train_size = train_size
        self.split_seed = split_seed

    def prepare_data(self) -> None:
        """Fetch the data set if ``download`` is set and it is not there.

        Raises:
            OSError: If it cannot be fetched.
        """
        if not self.download or self._has_class_folders():
            return
        try:
            self.dataset_class(self.root, download=True)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"cannot download {self.title} to {self.root}: {one_line(error)}; "
                "check the connection and the free space, or pass --data.root with a copy"
            ) from error

    def setup(self, stage: str | None = None) -> None:
        """Load the images that a stage needs.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.

        Raises:
            FileNotFoundError: If the data set is not under root.
            OSError: If it is incomplete or damaged.
            ValueError: If val_size or train_size do not fit the number of images.
        """
        self._check_found()
        if stage in (None, "fit", "validate") and self.train_set is None:
            images = self._read(train=True)
            val, rest = choose_stratified(images.targets, self.val_size, self.split_seed, self.classes, "val_size")
            self.train_set = self.augmented(images, self._limit(rest, images.targets))
            self.val_set = self.plain(images, val)
        if stage in (None, "test") and self.test_set is None:
            self.test_set = self.plain(self._read(train=False))

    def _limit(self, rest: np.ndarray, targets: Any) -> np.ndarray:
        # Chosen after the validation images, so that runs of every train_size share those.
        if self.train_size is None or self.train_size == len(rest):
            return rest
        labels = np.asarray(targets)[rest]
        chosen, _ = choose_stratified(labels, self.train_size, self.split_seed, self.classes, "train_size")
        return rest[chosen]

    def _has_class_folders(self) -> bool:
        return False

    def _check_found(self) -> None:
        folder = self.root / self.data_folder
        if not folder.is_dir():
            raise FileNotFoundError(self._not_found(str(folder)))

    def _not_found(self, looked_for: str) -> str:
        return (
            f"{self.title} not found: looked for {looked_for}; "
            "pass --data.root, or --data.download true to fetch it with torchvision"
        )

    def _read(self, train: bool) -> Any:
        try:
            return self.dataset_class(self.root, train=train)
        except (AssertionError, LookupError, RuntimeError, ValueError) as error:
            # Which of them it is depends on which bytes are wrong or missing.
            raise OSError(
                f"{self.title} in {self.root / self.data_folder} is incomplete or damaged "
                f"({one_line(error)}); replace it, or delete it and pass --data.download true"
            ) from error


class FashionMNISTDataModule(TorchvisionDataModule):
    """Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28×28 px, 10 classes.

    Read from ``root/FashionMNIST/raw``. Bright clothes on a black ground. The arguments are
    those of `TorchvisionDataModule`.
    """

    title = "Fashion-MNIST"
    dataset_class = datasets.FashionMNIST
    data_folder = "FashionMNIST/raw"
    image_format = ImageFormat(num_channels=1, image_size=28, mean=(0.2860,), std=(0.3530,), resize_px=28)
    padding_px = 2
    names = datasets.FashionMNIST.classes


class CIFAR10DataModule(TorchvisionDataModule):
    """CIFAR-10: 50,000 + 10,000 colour images, 32×32 px, 10 classes.

    Read from torchvision's ``root/cifar-10-batches-py``; or, where that is not there, from
    class folders of images, ``root/train/CLASS/*`` and ``root/test/CLASS/*``. The arguments
    are those of `TorchvisionDataModule`.
    """

    title = "CIFAR-10"
    dataset_class = datasets.CIFAR10
    data_folder = datasets.CIFAR10.base_folder
    image_format = ImageFormat(
        num_channels=3,
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        resize_px=32,
    )
    padding_px = 4
    names = CIFAR10_CLASSES

    def _has_class_folders(self) -> bool:
        return not (self.root / self.data_folder).is_dir() and (self.root / "train").is_dir()

    def _check_found(self) -> None:
        batches, train = self.root / self.data_folder, self.root / "train"
        if batches.is_dir():
            return
        if not train.is_dir():
            looked_for = f"{batches}, and for class folders in {train}"
            raise FileNotFoundError(self._not_found(looked_for))
        for folder in (train, self.root / "test"):
            # Names and their order are fixed: so labels mean the same in both layouts.
            for name in sorted(set(class_names(folder)).symmetric_difference(self.names)):
                raise ValueError(
                    f"the class folders in {folder} are not those of {self.title}: {name} "
                    f"{'is missing' if name in self.names else 'does not belong'}; "
                    "rename them, or use ImageFolderDataModule for classes of your own"
                )

    def _read(self, train: bool) -> Any:
        if not self._has_class_folders():
            return super()._read(train)
        return ClassFolders(self.root / ("train" if train else "test"), KeptPictures())


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: 50,000 + 10,000 colour images, 32×32 px, 100 classes.

    Read from torchvision's ``root/cifar-100-python``; or, where that is not there, from class
    folders of images, ``root/train/CLASS/*`` and ``root/test/CLASS/*``. The arguments are
    those of `TorchvisionDataModule`.
    """

    title = "CIFAR-100"
    dataset_class = datasets.CIFAR100
    data_folder = datasets.CIFAR100.base_folder
    image_format = ImageFormat(
        num_channels=3,
        image_size=32,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        resize_px=32,
    )
    names = CIFAR100_CLASSES
