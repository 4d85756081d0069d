"""Data module for ImageNet's layout, or any folder of class folders."""

from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torchvision.transforms import v2

from bnnlight.data.classes.data_module import ClassificationDataModule, View
from bnnlight.data.classes.folders import ClassFolders, class_names
from bnnlight.data.classes.splits import choose_stratified
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.transforms import ImageFormat

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolderDataModule(ClassificationDataModule):
    """Images in ``root/train/CLASS/``, with ``root/val/CLASS/``, ``root/test/CLASS/`` or both.

    Validation images are those of val/, or else held out from train/. Test images are those
    of test/, or else the validation images. Labels follow the sorted class names of train/,
    which are ``classes``; where val/ or test/ lacks some of them, measurements are on
    the others. Images of every usual 8-bit format are read as RGB: what is transparent is put on
    white, and of an animated GIF the first picture is read. Pixels are used as they are stored: an
    EXIF tag that says how a photograph was held is ignored, as in torchvision's
    ``ImageFolder``. ``bnnlight predict`` does apply it.

    ImageNet has no test/ whose labels are public: what is chosen by val/, such as a learning rate or the best epoch,
    is then measured on the images it was chosen by. ``val_folder=None, test_folder="val"`` holds out images of train/
    for choosing, and keeps val/ for the last measurement.

    Args:
        root: folder that holds train/.
        image_size: width and height of the network's input, px.
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        train_transforms: augmentation of the training images in place of the usual one (crop
            of random size and shape to image_size, flip); an empty list is none. Conversion
            and normalization are always added, and resizing where a picture has another size.
        val_size: how much of train/ to hold out where there is no val/: below 1 a fraction,
            else a number of images.
        val_folder, test_folder: names of those two folders under root; None to do without one.
        split_seed: of the held-out choice; independent of the run's seed.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.
        more_transforms: further transforms of the training images, after the augmentation whatever
            that is: {class_path: torchvision.transforms.v2.RandAugment}, for instance.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int | None = None,
        train_transforms: list[v2.Transform] | None = None,
        val_size: int | float = 0.1,
        val_folder: str | None = "val",
        test_folder: str | None = "test",
        split_seed: int = 0,
        on_bad_image: OnBadImage = "stop",
        more_transforms: list[v2.Transform] | None = None,
    ) -> None:
        if val_folder is not None and val_folder == test_folder:
            raise ValueError(f"val_folder and test_folder are both {val_folder!r}: leave one out, or name another")
        resize_px = round(image_size * 256 / 224)
        image_format = ImageFormat(3, image_size, IMAGENET_MEAN, IMAGENET_STD, resize_px)
        if train_transforms is None:
            train_transforms = [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip()]
        super().__init__(image_format, train_transforms, batch_size, num_workers, on_bad_image, more_transforms)
        self.root = Path(root).expanduser()
        self.val_size = val_size
        self.val_folder, self.test_folder = val_folder, test_folder
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """List the files that a stage needs; images are read when a batch is.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.

        Raises:
            FileNotFoundError: If train/ is missing or empty, a class has no images, or a folder that was named is
                not there.
            ValueError: If a split has a class that train/ lacks, or val_size does not fit
                the number of images.
        """
        self.classes = class_names(self.root / "train")
        for split, usual in ((self.val_folder, "val"), (self.test_folder, "test")):
            if self._has(split):
                self._check_known(split)
            elif split not in (None, usual):
                raise FileNotFoundError(f"no folder {self.root / split}: put its images there, or name another")

        has_test = self._has(self.test_folder)
        needs_val = stage in (None, "fit", "validate") or (stage == "test" and not has_test)
        if needs_val and self.val_set is None:
            self._setup_train_and_val()
        if stage in (None, "test") and self.test_set is None:
            self.test_set = self._measured(self.test_folder) if has_test else self.val_set

    def _has(self, split: str | None) -> bool:
        return split is not None and (self.root / split).is_dir()

    def _setup_train_and_val(self) -> None:
        images = ClassFolders(self.root / "train")
        if self._has(self.val_folder):
            self.train_set = self.augmented(images)
            self.val_set = self._measured(self.val_folder)
            return
        num_val = round(self.val_size * len(images) if self.val_size < 1 else self.val_size)
        argument = f"val_size {self.val_size}"
        try:
            val, train = choose_stratified(images.targets, num_val, self.split_seed, self.classes, argument)
        except ValueError as error:
            raise ValueError(f"cannot hold out validation images from {self.root / 'train'}: {error}") from error
        self.train_set = self.augmented(images, train)
        self.val_set = self.plain(images, val)

    def _check_known(self, split: str) -> None:
        for name in class_names(self.root / split):
            if name not in self.classes:
                raise ValueError(
                    f"{self.root / split / name} is a class that {self.root / 'train'} does not have, so it is "
                    "not learned: add images of it to train on, or remove the folder"
                )

    def _measured(self, split: str) -> View:
        # by the names of train/: a folder less would shift the labels of all after it
        images = ClassFolders(self.root / split, classes=self.classes)
        if lacking := images.without_images:
            rank_zero_warn(
                f"{self.root / split} has no images of {len(lacking)} of the {len(self.classes)} classes "
                f"({', '.join(lacking[:3])}{', …' if len(lacking) > 3 else ''}): it is measured on the others"
            )
        return self.plain(images)
