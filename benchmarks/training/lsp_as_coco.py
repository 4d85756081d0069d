"""Writes Leeds Sports Pose in COCO's JSON form: the people of a run, in its order, as three files.

A run on these files is to give what one on the data set itself gives: the same pictures in the same order, with the
same augmentation.

    python benchmarks/training/lsp_as_coco.py --lsp_root DIR/lsp --lspet_root DIR/lspet --output DIR/lsp_coco

prints the options of `bnnlight fit` that read them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.lsp import BOX, LSPDataModule
from bnnlight.imaging.skeletons import LSP

ORIGIN = 0.5
"""What the files call the middle of the top left pixel, as LSP's own do."""


def people_of(view: Any) -> list[PosePeople]:
    """Who is seen in a view of a data module, one after the other."""
    sets = getattr(view.items, "datasets", [view.items])
    people = [files.people.take(np.array([i])) for files in sets for i in range(len(files.people))]
    return [people[index] for index in view.indices]


def as_coco(people: list[PosePeople]) -> dict[str, Any]:
    """COCO's form: pictures, annotations and a category, without boxes, so that they follow from the joints."""
    names = {person.images[0]: index for index, person in enumerate(people)}
    annotations = []
    for index, person in enumerate(people):
        flags = np.where(person.annotated[0], 2, 0)[:, None]
        points = np.hstack((person.joints[0].astype(np.float64) + ORIGIN * (flags > 0), flags))
        entry = {"id": index, "image_id": names[person.images[0]], "category_id": 1}
        annotations.append(entry | {"keypoints": points.ravel().tolist()})
    images = [{"id": index, "file_name": str(name)} for name, index in names.items()]
    limbs = [[a + 1, b + 1] for a, b in LSP.limbs]
    category = {"id": 1, "name": "athlete", "keypoints": list(LSP.joints), "skeleton": limbs}
    return {"images": images, "annotations": annotations, "categories": [category]}


def main() -> None:
    """Writes the files, and prints how they are trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lsp_root", type=Path, required=True)
    parser.add_argument("--lspet_root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args()
    data = LSPDataModule(str(options.lsp_root), str(options.lspet_root), "lspet")
    data.setup()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, view in (("train", data.train_set), ("val", data.val_set), ("test", data.test_set)):
        (options.output / f"{name}.json").write_text(json.dumps(as_coco(people_of(view))))
    folders = [str((root / "images").resolve()) for root in (options.lspet_root, options.lsp_root)]
    reading = {
        "root": str(options.output.resolve()),
        **{f"{name}_annotations": f"{name}.json" for name in ("train", "val", "test")},
        "images": json.dumps(folders),
        "box_padding": BOX,
        "origin": ORIGIN,
    }
    print("--data=bnnlight.data.COCOKeypointsDataModule", *(f"--data.{k}='{v}'" for k, v in reading.items()))


if __name__ == "__main__":
    main()
