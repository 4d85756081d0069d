"""A data set of your own: discs and squares, drawn when they are asked for.

Copy this file beside your config and name the class there: ``class_path: own_data.ShapesDataModule``. Pictures in
folders, one folder a class, need no code: `bnnlight.data.ImageFolderDataModule` reads them.
"""

import random

from PIL import Image, ImageDraw

from bnnlight.data.classes.data_module import ClassificationDataModule
from bnnlight.data.loading.transforms import ImageFormat


class Shapes:
    """Anything with a length that yields (picture, label) is a data set.

    Args:
        num_pictures: half of them discs.
        seed: of what is drawn. Two sets with different seeds have different pictures.
    """

    def __init__(self, num_pictures: int, seed: int) -> None:
        self.num_pictures, self.seed = num_pictures, seed

    def __len__(self) -> int:
        return self.num_pictures

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        # item i is the same picture whenever and in whatever order it is asked for
        draw = random.Random(f"{self.seed} {index}")
        picture, label = Image.new("L", (16, 16), draw.randrange(60)), index % 2
        x, y, size = draw.uniform(1, 6), draw.uniform(1, 6), draw.uniform(6, 9)
        shape = ImageDraw.Draw(picture).ellipse if label == 0 else ImageDraw.Draw(picture).rectangle
        shape((x, y, x + size, y + size), fill=draw.randrange(150, 256))
        return picture, label


class ShapesDataModule(ClassificationDataModule):
    """Discs and squares of 16×16 px, grey.

    Args:
        num_train: pictures to train on. There are 200 for validation and 200 to test on.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes.
    """

    def __init__(self, num_train: int = 1000, batch_size: int = 50, num_workers: int = 0) -> None:
        # what the network sees: one channel, 16 px, normalized by the mean and spread of the pixels, in [0, 1]
        image_format = ImageFormat(num_channels=1, image_size=16, mean=(0.3,), std=(0.3,), resize_px=16)
        super().__init__(image_format, [], batch_size, num_workers)  # [] is the augmentation: none
        self.classes = ["disc", "square"]
        self.num_train = num_train

    def setup(self, stage: str | None = None) -> None:
        self.train_set = self.augmented(Shapes(self.num_train, seed=0))
        self.val_set = self.plain(Shapes(200, seed=1))
        self.test_set = self.plain(Shapes(200, seed=2))
