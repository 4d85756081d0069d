"""Times the pose data pipeline on one core: a 1280×720 JPEG to a 256×256 augmented crop with its targets.

    python benchmarks/training/pose_data.py [--root DIR] [--people 150000]

In the same run, in turn with it: decoding the JPEG alone, in full, with the same library. Persons have the sizes
that people have in MPII's validation list (0.1, 0.5 and 0.9 quantile of the box's side), and one small enough that
nothing can be saved in decoding. Pictures are drawn, or with --root those of an MPII folder (annot/sample5.json).
People of median size are read from a JSON file in COCO's form too. With --people, a file of so many is made by
repetition, and its reading is timed; the memory is that of the process that made it too. Prints JSON; times are
medians of the processor time that a picture takes, ratios are of those.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from bnnlight.data import COCOKeypointsDataModule, MPIIDataModule
from bnnlight.data.keypoints.annotations import PoseFiles, PosePeople
from bnnlight.data.keypoints.data_module import PoseView
from bnnlight.data.keypoints.heatmaps import render
from bnnlight.data.keypoints.people import draw_person
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.imaging.heatmaps import to_heatmap
from bnnlight.imaging.skeletons import MPII

SIDES_PX = {"small": 300.0, "0.1 quantile": 346.0, "median": 689.0, "0.9 quantile": 1439.0}
"""Sides of the box of a person, 200 px × 1.25 × scale, in annot/valid.json of MPII."""
IMAGE_SIZE, STRIDE = 256, 4


def draw_pictures(folder: Path, count: int) -> list[str]:
    """1280×720 JPEGs with as much detail as a photograph has: drawn people side by side, and fine grain."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        row = np.hstack([draw_person(number, index).image for index in range(7)])[:, :1280]
        picture = np.vstack([row] * 4)[:720, :1280].astype(np.int16)
        picture += rng.normal(0, 12, picture.shape).astype(np.int16)
        names.append(f"{number}.jpg")
        cv2.imwrite(str(folder / names[-1]), picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return names


def people_in(folder: Path, names: list[str], side_px: float) -> PosePeople:
    """One person of the given size in the middle of each picture."""
    count = len(names)
    rng = np.random.default_rng(1)
    joints = rng.uniform(-0.4, 0.4, (count, 16, 2)) * side_px + (640, 360)
    return PosePeople(
        file=folder,
        numbers=np.arange(count),
        num_entries=count,
        origin=0.0,
        images=np.array(names),
        joints=joints.clip(0, (1279, 719)).astype(np.float32),
        annotated=np.ones((count, 16), bool),
        center=np.tile(np.float32([640, 360]), (count, 1)),
        side_px=np.full(count, side_px, np.float32),
        head_px=np.full(count, np.nan, np.float32),
    )


def write_coco(folder: Path, people: PosePeople, count: int, name: str) -> None:
    """A JSON file in COCO's form of so many people, over and over the same ones; an outline of 60 numbers each."""
    images = [
        {"id": i, "file_name": name, "width": 1280, "height": 720} for i, name in enumerate(people.images.tolist())
    ]
    flags = np.full((len(people), 16, 1), 2)
    points = np.concatenate((people.joints.round(2).astype(float), flags), 2).reshape(len(people), -1).tolist()
    side = float(people.side_px[0]) / 1.25
    entries = []
    for number in range(count):
        i = number % len(people)
        entry = {
            "id": number,
            "image_id": i,
            "category_id": 1,
            "keypoints": points[i],
            "num_keypoints": 16,
            "iscrowd": 0,
        }
        entry |= {"bbox": [640 - side / 2, 360 - side / 2, side, side], "area": side**2 / 2}
        entries.append({**entry, "segmentation": [[float(x) for x in range(60)]]})
    category = {"id": 1, "name": "person", "keypoints": list(MPII.joints), "skeleton": []}
    (folder / name).write_text(json.dumps({"images": images, "annotations": entries, "categories": [category]}))


def read_coco(folder: Path, name: str) -> tuple[COCOKeypointsDataModule, dict[str, float]]:
    """The data module, ready to train, and what its start took."""
    start = time.process_time()
    data = COCOKeypointsDataModule(str(folder), name, name, image_size=IMAGE_SIZE, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    took = {"num_people": len(data.train_set), "file_mb": (folder / name).stat().st_size / 1e6}
    took["start_s"] = time.process_time() - start
    return data, {**took, "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def measure(view: PoseView, paths: list[Path], repeats: int) -> dict[str, float]:
    """Milliseconds of both, taken in turn picture by picture, and their ratio."""
    decoding, pipeline = [], []
    for repeat in range(repeats + 1):
        for index, path in enumerate(paths):
            start = time.process_time()
            cv2.imread(str(path), cv2.IMREAD_COLOR)
            middle = time.process_time()
            sample = view[index]
            joints = to_heatmap(sample["joints"].unsqueeze(0), STRIDE)
            render(joints, IMAGE_SIZE // STRIDE, IMAGE_SIZE // STRIDE)
            end = time.process_time()
            if repeat:  # the first round warms up
                decoding.append(1000 * (middle - start))
                pipeline.append(1000 * (end - middle))
    decode_ms, pipeline_ms = statistics.median(decoding), statistics.median(pipeline)
    return {
        "decode_ms": decode_ms,
        "pipeline_ms": pipeline_ms,
        "images_per_second_and_core": 1000 / pipeline_ms,
        "ratio": pipeline_ms / decode_ms,
    }


def main() -> None:
    """Measures each size of person, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--root", help="an MPII folder with images/ and annot/sample5.json")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--people", type=int, default=0, help="in a JSON file in COCO's form whose reading is timed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    augmentation = PoseAugmentation()
    transform = PoseTransform(MPII, IMAGE_SIZE, augmentation)
    results = {}
    if args.root:
        data = MPIIDataModule(args.root, "annot/sample5.json", "annot/sample5.json", num_workers=0)
        data.setup("fit")
        items = data.train_set.items
        paths = [items.folder / str(name) for name in items.people.images]
        results["MPII's own people"] = measure(data.train_set, paths, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        names = draw_pictures(Path(folder), 8)
        paths = [Path(folder) / name for name in names]
        for size, side_px in SIDES_PX.items():
            people = people_in(Path(folder), names, side_px)
            view = PoseView(PoseFiles(people, Path(folder), IMAGE_SIZE, augmentation), transform)
            results[f"drawn, {size} ({side_px:.0f} px)"] = measure(view, paths, args.repeats)
        people = people_in(Path(folder), names, SIDES_PX["median"])
        write_coco(Path(folder), people, len(names), "coco.json")
        data, _ = read_coco(Path(folder), "coco.json")
        results["drawn, median, in COCO's form"] = measure(data.train_set, paths, args.repeats)
        reading = None
        if args.people:
            write_coco(Path(folder), people, args.people, "large.json")
            _, reading = read_coco(Path(folder), "large.json")
    record = {"machine": platform.machine(), "opencv": cv2.__version__, "repeats": args.repeats, "results": results}
    record |= {"reading": reading} if reading else {}
    print(json.dumps(record, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
