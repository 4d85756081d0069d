"""MPII Human Pose (Andriluka et al., CVPR 2014)."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from bnnlight.data.keypoints.annotations import PoseFiles, PosePeople, hold_out
from bnnlight.data.keypoints.checks import and_more, check_inside, check_pictures, stored_sizes
from bnnlight.data.keypoints.data_module import PoseDataModule
from bnnlight.data.keypoints.mpii_heads import match, with_heads
from bnnlight.data.keypoints.mpii_json import Boxes, read_json
from bnnlight.data.keypoints.mpii_release import read_release
from bnnlight.data.keypoints.transforms import PoseAugmentation
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.imaging.skeletons import MPII

DEFAULT_AUGMENTATION = PoseAugmentation()
VAL_ANNOTATIONS = "annot/valid.json"
_LISTS = (
    "pass --data.root with the folder of MPII, and --data.train_annotations and --data.val_annotations with the "
    "files' places in it: HRNet's JSON lists, or the authors' mpii_human_pose_v1_u12_1.mat for both"
)
_HEADS = (
    "pass --data.head_boxes with the place of gt_valid.mat below --data.root, or --data.head_boxes null to measure "
    "PCK alone"
)
_PICTURES = "pass --data.root with the folder of MPII, or --data.images with the place of its pictures below that"


class MPIIDataModule(PoseDataModule):
    """MPII: people in scenes of 410 activities, 16 joints, pictures of about 1280×720 px.

    Either from HRNet's lists, on which most published figures are measured:
    ``root/images/*.jpg``, ``root/annot/train.json`` (22,246 people), ``root/annot/valid.json`` (2,958 people)
    and ``root/annot/gt_valid.mat`` (head boxes of the latter). Or from the file that MPII's authors publish:
    ``train_annotations: mpii_human_pose_v1_u12_1.mat``; validation people are then those of valid.json, if it
    is there, and training does without the pictures that it names; else some pictures are held out.

    The annotations of MPII's own test pictures are withheld: the test set is the validation set. Training
    people have a head size only if they come from the authors' file.

    Args:
        root: folder that the other paths are relative to.
        train_annotations: a JSON list or the authors' .mat.
        val_annotations: likewise; may be left out only with the .mat.
        head_boxes: file with the head sizes of a JSON list of validation people; None measures PCK alone.
            Without this file, those of the authors' .mat are used where that is given.
        images: folder of all pictures.
        image_size: width and height of the network's input, px.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        augmentation: of the training pictures; None for none.
        boxes: form of the JSON lists, "raw" or "padded", see :func:`bnnlight.data.keypoints.mpii_json.read_json`;
            "auto" decides by the numbers in each list, and asks where they do not say.
        val_size: how much to hold out where the .mat is the only file: below 1 a fraction of the pictures, else a
            number of them. People of one picture stay together.
        split_seed: of the held-out choice; independent of the run's seed.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.
    """

    def __init__(
        self,
        root: str = "data/mpii",
        train_annotations: str = "annot/train.json",
        val_annotations: str = VAL_ANNOTATIONS,
        head_boxes: str | None = "annot/gt_valid.mat",
        images: str = "images",
        image_size: int = 256,
        batch_size: int = 32,
        num_workers: int | None = None,
        augmentation: PoseAugmentation | None = DEFAULT_AUGMENTATION,
        boxes: Boxes = "auto",
        val_size: int | float = 0.1,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(MPII, image_size, augmentation, batch_size, num_workers, on_bad_image)
        self.root = Path(root).expanduser()
        self.train_file, self.val_file = self.root / train_annotations, self.root / val_annotations
        self.head_file = None if head_boxes is None else self.root / head_boxes
        self.folder = self.root / images
        self.boxes: Boxes = boxes
        self.val_size, self.split_seed = val_size, split_seed
        # people of the authors' file have them always
        self.has_head_sizes = self.head_file is not None or not self._val_is_list
        self._is_checked = False

    def prepare_data(self) -> None:
        """Compare all joints with the sizes of the pictures, once.

        Raises:
            FileNotFoundError: If annotations or pictures are missing.
            OSError: If a picture's header cannot be read.
            ValueError: If annotations are wrong, or joints lie far outside their picture.
        """
        if self._is_checked:
            return
        check_inside(self._val, stored_sizes(self._val, self.folder, self.on_bad_image), MPII)
        # to measure a network, nobody needs the training list
        if self.train_file.is_file():
            check_inside(self._train, stored_sizes(self._train, self.folder, self.on_bad_image), MPII)
        self._is_checked = True

    def setup(self, stage: str | None = None) -> None:
        """Read the annotations that a stage needs; pictures are read when a batch is.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.

        Raises:
            FileNotFoundError: If annotations or pictures are missing.
            ValueError: If annotations are wrong, or val_size does not fit the number of pictures.
        """
        if self.val_set is None:
            self.val_set = self.test_set = self.plain(PoseFiles(self._val, self.folder, self.image_size))
        if stage in (None, "fit") and self.train_set is None:
            augmentation = self.train_transform.augmentation
            self.train_set = self.augmented(PoseFiles(self._train, self.folder, self.image_size, augmentation))

    @cached_property
    def _train(self) -> PosePeople:
        if _is_release(self.train_file):
            people = self._release.take(~self._held_out)
        else:
            people = read_json(self.train_file, self.boxes, _LISTS)
        check_pictures(people, self.folder, _PICTURES)
        return people

    @cached_property
    def _val(self) -> PosePeople:
        if self._val_is_list:
            people = self._with_heads(read_json(self.val_file, self.boxes, _LISTS))
        else:
            people = self._release.take(self._held_out)
        check_pictures(people, self.folder, _PICTURES)
        return people

    @property
    def _val_is_list(self) -> bool:
        # another name than the default was meant, so that its absence is an error
        is_meant = self.val_file.is_file() or self.val_file != self.root / VAL_ANNOTATIONS
        return not _is_release(self.val_file) and (is_meant or not _is_release(self.train_file))

    @cached_property
    def _release(self) -> PosePeople:
        files = {file for file in (self.train_file, self.val_file) if _is_release(file)}
        if len(files) > 1:
            names = " and ".join(sorted(map(str, files)))
            raise ValueError(f"train_annotations and val_annotations are two .mat files, {names}: give the same one")
        return read_release(files.pop(), _LISTS)

    @cached_property
    def _held_out(self) -> np.ndarray:
        """``(N,)`` bool, which people of the authors' file are validation people, or are kept out for them."""
        people = self._release
        if self._val_is_list:
            held_out, names = np.isin(people.images, self._val.images), f"those in {self.val_file}"
        elif _is_release(self.train_file):
            held_out, names = hold_out(people.images, self.val_size, self.split_seed, people.file), "chosen at random"
        else:
            held_out, names = ~np.isin(people.images, self._train.images), f"those not in {self.train_file}"
        if held_out.all() or not held_out.any():
            raise ValueError(
                f"{people.file}: of {len(people)} people, {held_out.sum()} are in validation pictures ({names}), which "
                f"leaves one side empty; {_LISTS}"
            )
        num_pictures = len(np.unique(people.images[held_out]))
        rank_zero_info(f"{people.file}: {held_out.sum()} people in {num_pictures} pictures held out, {names}")
        return held_out

    def _with_heads(self, people: PosePeople) -> PosePeople:
        if self.head_file is None:
            return people
        if self.head_file.is_file() or not _is_release(self.train_file):
            return with_heads(people, self.head_file, _HEADS)
        release = self._release.take(np.isin(self._release.images, people.images))
        rows = match(people, release.joints, release.annotated)
        if (rows < 0).any():
            raise ValueError(
                f"{people.where((rows < 0).argmax())}: {self.train_file} has nobody with these joints"
                f"{and_more((rows < 0).sum() - 1)}, and so no head size; {_HEADS}"
            )
        return replace(people, head_px=release.head_px[rows])


def _is_release(file: Path) -> bool:
    return file.suffix.lower() == ".mat"
