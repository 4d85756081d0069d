"""Drawn people in MPII's layout: `images/`, `annot/train.json`, `annot/valid.json`, `annot/gt_valid.mat`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from bnnlight.data.keypoints.people import draw_person


def draw_mpii(root: Path, num_train: int, num_valid: int) -> Path:
    """Writes the folder and returns it. Coordinates count from 1, as MPII's do."""
    (root / "images").mkdir(parents=True)
    (root / "annot").mkdir()
    for split, drawn_as, number in (("train", "train", num_train), ("valid", "val", num_valid)):
        entries, heads = [], []
        for index in range(number):
            picture = draw_person(0, index, drawn_as)
            person, name = picture.person, f"{split}{index:05}.jpg"
            Image.fromarray(picture.image).save(root / "images" / name, quality=92)
            entries.append(
                {
                    "image": name,
                    "center": (person.center + 1).tolist(),
                    "scale": float(person.side_px) / 1.25 / 200,
                    "joints": (person.joints + 1).round(2).tolist(),
                    "joints_vis": person.annotated.astype(int).tolist(),
                }
            )
            side = float(person.head_px) / 0.6 / 2**0.5
            top = person.joints[9] + 1
            heads.append([top - side / 2, top + side / 2])
        (root / "annot" / f"{split}.json").write_text(json.dumps(entries))
    joints = np.array([entry["joints"] for entry in entries])
    missing = 1 - np.array([entry["joints_vis"] for entry in entries])
    scipy.io.savemat(
        root / "annot/gt_valid.mat",
        {
            "pos_gt_src": joints.transpose(1, 2, 0),
            "headboxes_src": np.array(heads).transpose(1, 2, 0),
            "jnt_missing": missing.T.astype(np.uint8),
        },
    )
    return root
