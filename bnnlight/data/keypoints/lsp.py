"""Leeds Sports Pose (Johnson & Everingham, BMVC 2010) and its extended training set (CVPR 2011)."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import ConcatDataset

from bnnlight.data.keypoints.annotations import PoseFiles, PosePeople, hold_out
from bnnlight.data.keypoints.checks import and_more, check_finite, check_inside, list_pictures, read_mat, stored_sizes
from bnnlight.data.keypoints.data_module import PoseDataModule
from bnnlight.data.keypoints.transforms import PoseAugmentation
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.imaging.skeletons import LSP

LSP_NUM_TRAIN = 1000
"""By custom the first 1,000 pictures are trained on and all others tested on."""
BOX = 1.5
"""Side of the box by the longer side of the joints' extent."""
DEFAULT_AUGMENTATION = PoseAugmentation()
# The files' coordinates of the middle of the top left pixel. Both sets count from the picture's corner, as far as the
# numbers tell: in crops of LSP Extended that are 1.5 times as wide as the joints' extent, its middle lies at half the
# width exactly, and LSP's joints come as near to the left and top edge as to the right and bottom one.
_ORIGIN = 0.5


class LSPDataModule(PoseDataModule):
    """LSP: people doing sports, 14 joints, one in each picture; pictures of about 150 px, 200 at most.

    Each set is a folder with ``images/im0001.jpg``, … (four or five digits) and ``joints.mat``. The
    first 1,000 pictures of LSP are trained on, the others are the test set; all of LSP Extended may be trained on.
    Validation pictures are held out from the training pictures.

    Neither set has boxes around people: here the box is 1.5 × the square around the annotated joints, for
    test people too, as usual with these sets. There are no head boxes either, so only PCK can be measured.
    All joints of LSP are annotated, even occluded ones; those of LSP Extended only where they are visible.

    Args:
        lsp_root: folder of LSP.
        lspet_root: folder of LSP Extended; None where it is not trained on.
        train_on: whose pictures to train on.
        image_size: width and height of the network's input, px.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        augmentation: of the training pictures; None for none.
        val_size: how much of the training pictures to hold out: below 1 a fraction, else a number.
        split_seed: of the held-out choice; independent of the run's seed.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.
    """

    has_head_sizes = False

    def __init__(
        self,
        lsp_root: str = "data/lsp",
        lspet_root: str | None = "data/lspet",
        train_on: Literal["lsp+lspet", "lspet", "lsp"] = "lsp+lspet",
        image_size: int = 256,
        batch_size: int = 32,
        num_workers: int | None = None,
        augmentation: PoseAugmentation | None = DEFAULT_AUGMENTATION,
        val_size: int | float = 500,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(LSP, image_size, augmentation, batch_size, num_workers, on_bad_image)
        if lspet_root is None and "lspet" in train_on:
            raise ValueError(f"train_on {train_on} needs LSP Extended: give lspet_root its folder, or train_on lsp")
        self.lsp_root = Path(lsp_root).expanduser()
        self.lspet_root = None if lspet_root is None else Path(lspet_root).expanduser()
        self.train_on = train_on
        self.val_size, self.split_seed = val_size, split_seed
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
        check_inside(self._lsp, stored_sizes(self._lsp, self.lsp_root / "images", self.on_bad_image), LSP)
        # to measure a network, nobody needs the training pictures
        if "lspet" in self.train_on and self.lspet_root.is_dir():
            check_inside(self._lspet, stored_sizes(self._lspet, self.lspet_root / "images", self.on_bad_image), LSP)
        self._is_checked = True

    def setup(self, stage: str | None = None) -> None:
        """Read the annotations that a stage needs; pictures are read when a batch is.

        Args:
            stage: "fit", "validate", "test", "predict", or None for all.

        Raises:
            FileNotFoundError: If annotations or pictures are missing.
            ValueError: If annotations are wrong, or val_size does not fit the number of pictures.
        """
        if stage in (None, "fit", "validate") and self.train_set is None:
            augmentation = self.train_transform.augmentation
            plain = self._training_files(None)
            file = " and ".join(str(files.people.file) for files in plain.datasets)
            held_out = hold_out(np.arange(len(plain)), self.val_size, self.split_seed, file)
            self.train_set = self.augmented(self._training_files(augmentation), np.flatnonzero(~held_out))
            self.val_set = self.plain(plain, np.flatnonzero(held_out))
        if stage in (None, "test") and self.test_set is None:
            people = self._lsp.take(np.arange(LSP_NUM_TRAIN, len(self._lsp)))
            self.test_set = self.plain(PoseFiles(people, self.lsp_root / "images", self.image_size))

    def _training_files(self, augmentation: PoseAugmentation | None) -> ConcatDataset:
        sets = []
        if self.train_on != "lspet":
            sets.append((self._lsp.take(np.arange(LSP_NUM_TRAIN)), self.lsp_root))
        if self.train_on != "lsp":
            sets.append((self._lspet, self.lspet_root))
        return ConcatDataset([PoseFiles(p, root / "images", self.image_size, augmentation) for p, root in sets])

    @cached_property
    def _lsp(self) -> PosePeople:
        advice = "pass --data.lsp_root with the folder of LSP, with images/ and joints.mat"
        # x, y and "is occluded", which is annotated all the same
        table = _read_table(self.lsp_root / "joints.mat", (3, len(LSP.joints)), advice).transpose(2, 1, 0)
        people = _people(table, np.ones(table.shape[:2], bool), self.lsp_root, advice)
        if len(people) <= LSP_NUM_TRAIN:
            raise ValueError(
                f"{people.file} has {len(people)} people: LSP's test set begins after number {LSP_NUM_TRAIN}; {advice}"
            )
        return people

    @cached_property
    def _lspet(self) -> PosePeople:
        advice = "pass --data.lspet_root with the folder of LSP Extended, with images/ and joints.mat"
        # x, y and "is visible", without which x and y mean nothing
        table = _read_table(self.lspet_root / "joints.mat", (len(LSP.joints), 3), advice).transpose(2, 0, 1)
        return _people(table, table[:, :, 2] == 1, self.lspet_root, advice)


def _read_table(file: Path, shape: tuple[int, int], advice: str) -> np.ndarray:
    """``(*shape, N)`` float64, with N ≥ 1."""
    table = np.asarray(read_mat(file, ("joints",), advice)["joints"])
    if table.ndim != 3 or table.shape[:2] != shape or not table.size:
        hint = "; it looks like the other set's" if table.shape[:2] == shape[::-1] else ""
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{file}: joints is of shape {table.shape} where ({expected}, N) belongs{hint}; {advice}")
    return table.astype(np.float64)


def _people(table: np.ndarray, annotated: np.ndarray, root: Path, advice: str) -> PosePeople:
    """People from a table ``(N, 14, 3)`` of x, y and flag."""
    file, number = root / "joints.mat", len(table)
    joints = np.where(annotated[..., None], table[..., :2] - _ORIGIN, 0).astype(np.float32)
    people = PosePeople(
        file=file,
        numbers=np.arange(1, number + 1),
        num_entries=number,
        origin=_ORIGIN,
        images=_pictures(file, number, root / "images", advice),
        joints=joints,
        annotated=annotated,
        center=np.zeros((number, 2), np.float32),
        side_px=np.zeros(number, np.float32),
        head_px=np.full(number, np.nan, np.float32),
    )
    check_finite(people, LSP)
    low = np.where(annotated[..., None], joints, np.inf).min(1)
    high = np.where(annotated[..., None], joints, -np.inf).max(1)
    extent_px = (high - low).max(1)
    if (extent_px <= 0).any():
        index = (extent_px <= 0).argmax()
        problem = "all joints lie in one place" if annotated[index].any() else "no joint is annotated"
        raise ValueError(f"{people.where(index)}: {problem}, so that there is no box; correct or remove the entry")
    center, side_px = (low + high) / 2, BOX * extent_px
    return replace(people, center=center.astype(np.float32), side_px=side_px.astype(np.float32))


def _pictures(file: Path, number: int, folder: Path, advice: str) -> np.ndarray:
    """``(N,)`` names of the pictures, numbered from 1."""
    names = list_pictures(folder, advice)
    choices = [(f"im{i:04}.jpg", f"im{i:05}.jpg") for i in range(1, number + 1)]
    images = [next((name for name in pair if name in names), "") for pair in choices]
    if "" in images:
        index = images.index("")
        raise FileNotFoundError(
            f"{file}: entry {index + 1} of {number}: its picture {' or '.join(choices[index])} is not in {folder}"
            f"{and_more(images.count('') - 1)}; {advice}"
        )
    return np.array(images)
