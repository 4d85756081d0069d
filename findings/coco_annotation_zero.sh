#!/usr/bin/env bash
# Annotations with id 0, and without num_keypoints, with pycocotools 2.0.11 and faster-coco-eval 1.8.0.
#
# Both: the annotated person with id 0 is never found. A prediction that lies exactly on it counts as wrong, since its match
# is kept as the id of the annotation, and 0 stands for none. With ids 0 and 1 and two perfect predictions recall is 0.5.
# faster-coco-eval takes keypoints without num_keypoints for people without joints, and gives -1 for all figures without
# a word, where pycocotools ends with KeyError.
#
# Exits 0 while this is so. Usage: findings/coco_annotation_zero.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

print("pycocotools", version("pycocotools"), "faster-coco-eval", version("faster-coco-eval"))
LIBRARIES = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}


def recall(library, first_id, count=True):
    """AR of predictions that are the annotations themselves."""
    coco, evaluator = LIBRARIES[library]
    people = []
    for number in range(2):
        points = [v for i in range(17) for v in (50 + 100 * number + 3 * i, 50 + 5 * i, 2)]
        base = {"image_id": 1, "category_id": 1, "keypoints": points}
        people.append(base | {"id": first_id + number, "area": 4000, "bbox": [0, 0, 99, 99], "iscrowd": 0})
        people[-1] |= {"num_keypoints": 17} if count else {}
    results = [
        {name: person[name] for name in ("image_id", "category_id", "keypoints")} | {"score": 0.9} for person in people
    ]
    truth = coco()
    truth.dataset = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "person"}], "annotations": people}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = evaluator(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[5])


for library in LIBRARIES:
    found = [recall(library, first) for first in (1, 0)]
    print(f"{library}: AR {found[0]} with ids 1 and 2, {found[1]} with ids 0 and 1")
    assert found == [1.0, 0.5]
silent = recall("faster-coco-eval", 1, count=False)
print(f"faster-coco-eval without num_keypoints: AR {silent}")
assert silent == -1
PYTHON
