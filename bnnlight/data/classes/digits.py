"""Handwritten digits that come with scikit-learn: nothing is downloaded."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from bnnlight.data.classes.data_module import ClassificationDataModule
from bnnlight.data.classes.splits import choose_stratified
from bnnlight.data.loading.transforms import ImageFormat

NUM_VAL = 180
NUM_TEST = 360
MAX_INK = 16


class DigitsDataModule(ClassificationDataModule):
    """scikit-learn's digits: 1,797 grey images, 8×8 px, bright strokes on a dark ground.

    1,257 images to train on, 180 for validation, 360 to test on, stratified by class. A
    picture of dark ink on white paper must be inverted before it is predicted.

    Args:
        batch_size: images in a batch, per process.
        num_workers: loader processes; the images are so small that workers only cost time.
        train_transforms: augmentation of the training images in place of the usual one
            (rotation by up to 10 degrees, shift by up to one pixel); an empty list is none.
            Conversion and normalization are always added.
        split_seed: of the split; independent of the run's seed.
        more_transforms: further transforms of the training images, after the augmentation whatever
            that is: {class_path: torchvision.transforms.v2.RandAugment}, for instance.
    """

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        train_transforms: list[v2.Transform] | None = None,
        split_seed: int = 0,
        more_transforms: list[v2.Transform] | None = None,
    ) -> None:
        image_format = ImageFormat(num_channels=1, image_size=8, mean=(0.3053,), std=(0.3760,), resize_px=8)
        if train_transforms is None:
            one_px = 1 / image_format.image_size
            bilinear = v2.InterpolationMode.BILINEAR
            train_transforms = [v2.RandomAffine(10, translate=(one_px, one_px), interpolation=bilinear)]
        super().__init__(image_format, train_transforms, batch_size, num_workers, more_transforms=more_transforms)
        self.classes = [str(digit) for digit in range(10)]
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """Load the images and split them; the same for every stage."""
        if self.train_set is not None:
            return
        digits = load_digits()
        # Grey levels 0..16 become 0..255, so that any image transform can be used on them.
        grey = np.rint(digits.images * (255 / MAX_INK)).astype(np.uint8)
        items = [(Image.fromarray(image), int(label)) for image, label in zip(grey, digits.target, strict=True)]

        test, rest = choose_stratified(digits.target, NUM_TEST, self.split_seed, self.classes, "NUM_TEST")
        val, train = choose_stratified(digits.target[rest], NUM_VAL, self.split_seed, self.classes, "NUM_VAL")
        self.train_set = self.augmented(items, rest[train])
        self.val_set = self.plain(items, rest[val])
        self.test_set = self.plain(items, test)
