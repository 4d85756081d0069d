"""Drawn people: an endless pose data set that needs no files."""

from __future__ import annotations

import dataclasses

import numpy as np

from bnnlight.data.keypoints.data_module import PoseDataModule
from bnnlight.data.keypoints.figures.body import Body, Figure, place
from bnnlight.data.keypoints.figures.dice import Dice
from bnnlight.data.keypoints.figures.look import Look
from bnnlight.data.keypoints.figures.painting import draw_figure
from bnnlight.data.keypoints.figures.poses import draw_pose
from bnnlight.data.keypoints.figures.scenes import Scene
from bnnlight.data.keypoints.person import Person, PosePicture
from bnnlight.data.keypoints.transforms import PoseAugmentation
from bnnlight.imaging.skeletons import MPII

SKELETON = dataclasses.replace(MPII, excluded=())
"""MPII's; but pelvis and thorax are known exactly here, and every joint counts."""
CANVAS_PX = 192
MARGIN_PX = 6
"""From the picture's border to the nearest point of the body, at least."""
BOX_PER_EXTENT = 1.1
"""Side of the box that is cut out, in widths or heights of the figure, whichever is larger."""
SMALLEST_BOX = 0.6
"""The same in heights of a grown-up: one who cowers is not blown up to full size."""
BYSTANDER = 0.07
"""Share of the pictures with a second, unannotated figure at the border."""
DEFAULT_AUGMENTATION = PoseAugmentation(scale=(0.85, 1.2), rotation_deg=20.0)
"""Mild: the pictures themselves differ in light and in the figures' turn more than photos do."""
SPLITS = ("train", "val", "test")


def draw_person(seed: int, index: int, split: str = "train") -> PosePicture:
    """Draw one person, all of whose joints lie in the picture and in the box; hidden ones are annotated too.

    The picture follows from the arguments alone.

    Args:
        seed: from 0; other seeds give other pictures.
        index: from 0; of the picture.
        split: "train", "val" or "test"; no picture of one is in another.
    """
    dice = Dice(seed, SPLITS.index(split), index)
    figure = frame(place(Body.draw(dice), draw_pose(dice)), dice)
    scene = Scene(CANVAS_PX, figure, dice)
    scene.paint_background()
    if dice.chance(BYSTANDER):
        bystander = place(Body.draw(dice), draw_pose(dice))
        draw_figure(scene.brush, beside(figure, bystander, dice), Look.draw(dice))
    draw_figure(scene.brush, figure, Look.draw(dice))
    scene.paint_foreground()
    return PosePicture(scene.developed(), annotate(figure, dice))


def frame(figure: Figure, dice: Dice) -> Figure:
    """Give a figure a random size and place in the picture, such that all of it lies inside."""
    low, high = figure.extent
    room = CANVAS_PX - 2 * MARGIN_PX
    height_px = min(CANVAS_PX * dice.uniform(0.68, 0.9), room / float((high - low).max()))
    free = room - height_px * (high - low)
    # rather in the middle, as photographers have it
    shares = np.array([dice.near(0.5, 0.5), dice.near(0.5, 0.5)])
    return figure.moved(height_px, MARGIN_PX + shares * free - height_px * low)


def beside(figure: Figure, other: Figure, dice: Dice) -> Figure:
    """Give a second figure a place at the border of the picture, mostly outside the first one's box."""
    low, high = figure.extent
    height_px = figure.height_px * dice.uniform(0.6, 1.0)
    # on the side with more room
    right = low[0] + high[0] < CANVAS_PX
    x = CANVAS_PX - dice.uniform(-10, 25) if right else dice.uniform(-10, 25)
    return other.moved(height_px, np.array([x, (low[1] + high[1]) / 2 + dice.near(0, 20)]))


def annotate(figure: Figure, dice: Dice) -> Person:
    """What a careful annotator would note down about a figure."""
    low, high = figure.extent
    side_px = max(BOX_PER_EXTENT * float((high - low).max()), SMALLEST_BOX * figure.height_px)
    jitter = np.array([dice.near(0, 0.03), dice.near(0, 0.03)])
    head_low, head_high = figure.head_box
    return Person(
        joints=figure.joints.astype(np.float32),
        annotated=np.ones(len(SKELETON.joints), bool),
        center=((low + high) / 2 + jitter * side_px).astype(np.float32),
        side_px=side_px,
        head_px=0.6 * float(np.hypot(*(head_high - head_low))),
    )


class People:
    """Drawn people, drawn again each time one is asked for.

    Args:
        seed: of the pictures.
        num: of pictures.
        split: "train", "val" or "test".
    """

    def __init__(self, seed: int, num: int, split: str) -> None:
        self.seed, self.num, self.split = seed, num, split

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> PosePicture:
        if not 0 <= index < self.num:
            raise IndexError(f"picture {index} of {self.num}")
        return draw_person(self.seed, index, self.split)


class PeopleDataModule(PoseDataModule):
    """Drawn people with MPII's 16 joints: nothing is downloaded, and nothing is read from disk.

    Each picture follows from ``seed``, its split and its index alone, so all processes, machines and
    runs see the same ones; the people to test on are never those of the training.

    Args:
        num_train, num_val, num_test: numbers of pictures.
        image_size: width and height of the network's input, px.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        augmentation: of the training pictures; None for none.
        seed: of the pictures; independent of the run's seed.
    """

    def __init__(
        self,
        num_train: int = 10000,
        num_val: int = 500,
        num_test: int = 1000,
        image_size: int = 128,
        batch_size: int = 32,
        num_workers: int | None = None,
        augmentation: PoseAugmentation | None = DEFAULT_AUGMENTATION,
        seed: int = 0,
    ) -> None:
        super().__init__(SKELETON, image_size, augmentation, batch_size, num_workers)
        self.nums = {"train": num_train, "val": num_val, "test": num_test}
        for split, num in self.nums.items():
            if num < 1:
                raise ValueError(f"num_{split} is {num}: give 1 or more")
        if seed < 0:
            raise ValueError(f"seed is {seed}: give 0 or more")
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        """Make the three views; the same for every stage."""
        self.train_set = self.augmented(People(self.seed, self.nums["train"], "train"))
        self.val_set = self.plain(People(self.seed, self.nums["val"], "val"))
        self.test_set = self.plain(People(self.seed, self.nums["test"], "test"))
