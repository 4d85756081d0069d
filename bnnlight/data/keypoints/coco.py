"""Keypoints of anything in COCO's JSON form: your own pictures and skeletons, many people in a picture."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from bnnlight.data.keypoints.annotations import PoseFiles, PosePeople
from bnnlight.data.keypoints.checks import (
    and_more,
    check_finite,
    check_inside,
    check_pictures,
    in_folders,
    stored_sizes,
)
from bnnlight.data.keypoints.coco_files.boxes import BoxFrom, check_boxes
from bnnlight.data.keypoints.coco_files.reading import CocoFile, read_coco
from bnnlight.data.keypoints.coco_files.skeleton import LimbsFrom, coco_skeleton, joint_index
from bnnlight.data.keypoints.coco_files.truth import coco_truth
from bnnlight.data.keypoints.data_module import PoseDataModule
from bnnlight.data.keypoints.transforms import PoseAugmentation
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.imaging.skeletons import Skeleton

DEFAULT_AUGMENTATION = PoseAugmentation()
_FILES = (
    "pass --data.root with the folder of the data, and --data.train_annotations and --data.val_annotations with the "
    "places in it of JSON files in COCO's keypoint form"
)
_PICTURES = "pass --data.images with the folder below --data.root that the files' file_name starts from"
_FAR = 1.0
"""How far a joint may lie outside its picture, by the picture's longer side: a body that the edge cuts off goes on."""


class COCOKeypointsDataModule(PoseDataModule):
    """Keypoints in COCO's JSON form, as CVAT, Label Studio and many public sets write it.

    Any number of joints, and of people, hands, faces, animals or things in a picture; each is one item, cut out by its
    box. Names of joints and limbs are those of the file's category; joints without names are numbered,
    ``keypoint_0`` and so on. What is left and what is right, which a mirror image swaps, follows from the names, or
    from ``flip_pairs``. For what a file may leave out, see
    :func:`bnnlight.data.keypoints.coco_files.reading.read_coco`.

    Coordinates are taken as COCO has them by custom: (0, 0) is the middle of the top left pixel, for joints and boxes
    alike. Strictly speaking, COCO's boxes count from the picture's corner, half a pixel away, which is negligible
    beside the padding. For files that count otherwise, from the corner (0.5) or from 1, set ``origin``.

    All people have a box, so PCK by the box (``val/pck_box``, 0.2 of the longer side) can always be measured, and
    NME (``val/nme``); the torso's PCK (``val/pck``) where a left shoulder and a right hip are among the joints; average
    precision by OKS (``val/ap``) where there are ``sigmas``. There are no head boxes.

    Args:
        root: folder that the other paths are relative to.
        train_annotations, val_annotations: JSON files.
        images: folder that picture names are relative to; or several, each picture being in one of them.
        test_annotations: JSON file; None tests on the validation people.
        box_padding: side of the square that is cut out, divided by the longer side of the box.
        box_from: "box", the annotated one; "keypoints", the extent of the annotated joints; None takes the box where
            there is one.
        flip_pairs: the left and the right joint, pair by pair, as names or as indices from 0; None goes by the names.
        limbs_from: whether the file's ``skeleton`` counts from 0 or from 1; None goes by the numbers.
        sigmas: one per joint, the constants of OKS; None takes COCO's own for its 17 joints, and none for others.
        nme_joints: two joints, as names or as indices from 0, such as the outer corners of the eyes: their annotated
            distance is the reference length of NME. None takes √(width · height) of the box.
        category: name or id, where the file has joints of several categories.
        visible: flags of joints that count as annotated; None takes all above 0.
        origin: what the file calls the middle of the top left pixel.
        image_size: width and height of the network's input, px.
        batch_size: people in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        augmentation: of the training pictures; None for none.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.

    Raises:
        ValueError: ``box_padding`` is not above 0.
    """

    has_head_sizes = False
    has_boxes = True

    def __init__(
        self,
        root: str,
        train_annotations: str,
        val_annotations: str,
        images: list[str] | str = ".",
        test_annotations: str | None = None,
        box_padding: float = 1.25,
        box_from: BoxFrom | None = None,
        flip_pairs: list[list[str | int]] | None = None,
        limbs_from: LimbsFrom | None = None,
        sigmas: list[float] | None = None,
        nme_joints: list[str | int] | None = None,
        category: str | int | None = None,
        visible: list[float] | None = None,
        origin: float = 0.0,
        image_size: int = 256,
        batch_size: int = 32,
        num_workers: int | None = None,
        augmentation: PoseAugmentation | None = DEFAULT_AUGMENTATION,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(None, image_size, augmentation, batch_size, num_workers, on_bad_image)
        if not 0 < box_padding < np.inf:
            raise ValueError(f"box_padding is {box_padding}: give a factor above 0, such as 1.25")
        self.box_padding = box_padding
        self.root = Path(root).expanduser()
        self.train_file, self.val_file = self.root / train_annotations, self.root / val_annotations
        self.test_file = self.val_file if test_annotations is None else self.root / test_annotations
        self.images = images
        # with several folders pictures are named from the root
        self.folder = self.root / images if isinstance(images, str) else self.root
        self.reading = {
            "category": category,
            "visible": visible,
            "origin": origin,
            "box_from": box_from,
            "box_padding": box_padding,
        }
        self.skeleton_options = {"flip_pairs": flip_pairs, "limbs_from": limbs_from, "sigmas": sigmas}
        self.nme_joints = nme_joints
        self._read: dict[Path, CocoFile] = {}
        self._truths: dict[Path, dict[str, Any]] = {}
        self._is_checked = False

    @cached_property
    def skeleton(self) -> Skeleton:
        """Of the validation file, or of another one that has names where it has none. Reads the file.

        Raises:
            FileNotFoundError: none of the files exists.
            ValueError: a file is wrong, or an option does not fit its joints.
        """
        files = [path for path in (self.val_file, self.test_file, self.train_file) if path.is_file()]
        content = self._content(files[0] if files else self.val_file)
        for path in files[1:]:
            if content.names is None and self._content(path).names is not None:
                content = self._content(path)
        return coco_skeleton(content.people, content.names, content.limbs, **self.skeleton_options)

    def prepare_data(self) -> None:
        """Compare all joints and boxes with the sizes of the pictures, once.

        Raises:
            FileNotFoundError: annotations or pictures are missing.
            OSError: a picture's header cannot be read.
            ValueError: annotations are wrong, a box lies outside its picture, or joints lie far outside.
        """
        if self._is_checked:
            return
        # to measure a network, nobody needs the training file
        for path in dict.fromkeys((self.val_file, self.test_file, self.train_file)):
            if path.is_file():
                people = self._people(path)
                sizes = stored_sizes(people, self.folder, self.on_bad_image)
                check_boxes(people, sizes)
                check_inside(people, sizes, self.skeleton, _FAR)
                _compare_sizes(people, self._content(path).sizes, sizes)
        self._is_checked = True

    def setup(self, stage: str | None = None) -> None:
        """Read the annotations that a stage needs; pictures are read when a batch is.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.

        Raises:
            FileNotFoundError: annotations or pictures are missing.
            ValueError: annotations are wrong, or two files have different joints.
        """
        self.train_transform.skeleton = self.eval_transform.skeleton = self.skeleton
        if stage in (None, "fit", "validate") and self.val_set is None:
            self.val_set = self.plain(self._files(self.val_file))
        if stage in (None, "test") and self.test_set is None:
            same = self.val_set is not None and self.test_file == self.val_file
            self.test_set = self.val_set if same else self.plain(self._files(self.test_file))
        if stage in (None, "fit") and self.train_set is None:
            self.train_set = self.augmented(self._files(self.train_file, self.train_transform.augmentation))

    def oks_truth(self, split: Literal["val", "test"]) -> dict[str, Any]:
        """What average precision by OKS is measured against: all of a file's annotations, crowds too.

        The file is read when this is called for the first time.

        Args:
            split: whose file.

        Returns:
            As :func:`bnnlight.data.keypoints.coco_files.truth.coco_truth` gives it. The annotations' ids are a batch's
            ``entry``.
        """
        path = self.val_file if split == "val" else self.test_file
        if path not in self._truths:
            chosen = {name: self.reading[name] for name in ("category", "visible", "origin")}
            self._truths[path] = coco_truth(path, _FILES, **chosen)
        return self._truths[path]

    def _files(self, path: Path, augmentation: PoseAugmentation | None = None) -> PoseFiles:
        return PoseFiles(self._people(path), self.folder, self.image_size, augmentation)

    def _people(self, path: Path) -> PosePeople:
        content = self._content(path)
        people, joints = content.people, self.skeleton.joints
        if people.joints.shape[1] != len(joints):
            raise ValueError(
                f"{path} has {people.joints.shape[1]} joints, and another of the files has {len(joints)} joints: give "
                "files of one kind"
            )
        if content.names is not None and content.names != joints:
            index = next(i for i, pair in enumerate(zip(content.names, joints, strict=True)) if pair[0] != pair[1])
            raise ValueError(
                f"{path}: joint {index} is {content.names[index]}, and {joints[index]} in another of the files: give "
                "files with the same joints in the same order"
            )
        check_finite(people, self.skeleton)
        check_pictures(people, self.folder, _PICTURES)
        return replace(people, nme_px=self._nme_px(people))

    def _nme_px(self, people: PosePeople) -> np.ndarray:
        if self.nme_joints is None:
            return np.sqrt(people.box[:, 2:].prod(1))
        joints = self.skeleton.joints
        if len(self.nme_joints) != 2:
            raise ValueError(f"data.nme_joints is {self.nme_joints}: give two joints")
        pair = [joint_index(people.file, joints, joint, "data.nme_joints") for joint in self.nme_joints]
        a, b = people.joints[:, pair].transpose(1, 0, 2)
        length = np.where(people.annotated[:, pair].all(1), np.linalg.norm(a - b, axis=1), np.nan)
        if not (length > 0).any():
            names = " and ".join(joints[index] for index in pair)
            raise ValueError(
                f"{people.file}: nobody has both {names} annotated, apart from each other: set data.nme_joints to "
                "others, or leave it out to measure by the box"
            )
        return length.astype(np.float32)

    def _content(self, path: Path) -> CocoFile:
        if path not in self._read:
            content = read_coco(path, _FILES, **self.reading)
            if not isinstance(self.images, str):
                content = replace(content, people=in_folders(content.people, self.root, self.images, _PICTURES))
            self._read[path] = content
        return self._read[path]


def _compare_sizes(people: PosePeople, told: np.ndarray, stored: np.ndarray) -> None:
    """Pictures that were resized, or turned as their EXIF data say, after they were annotated or before."""
    other = ((told != stored) & (told > 0) & (stored > 0)).any(1)
    if other.any():
        index = int(other.argmax())
        sizes = [f"{width}×{height}" for width, height in (stored[index], told[index])]
        rank_zero_warn(
            f"{people.where(index)}: its picture is stored with {sizes[0]} px, and the file says {sizes[1]}"
            f"{and_more(len(np.unique(people.images[other])) - 1)}: look at the crops that `bnnlight check` draws"
        )
