"""PCK@0.2 on Leeds Sports Pose of a predictor that always answers with the mean pose: the floor of every comparison.

python benchmarks/training/mean_pose.py --lsp DIR/lsp --lspet DIR/lspet
"""

from __future__ import annotations

import argparse

import numpy as np

from bnnlight.data import LSPDataModule


def mean_pose(data: LSPDataModule) -> float:
    """PCK@0.2 on the test pictures, in %, of the training joints' mean place in the box."""
    total, count = np.zeros((14, 2)), np.zeros((14, 1))
    items = data.train_set.items
    for index in data.train_set.indices:
        person = items[index].person
        places = (person.joints - person.center) / person.side_px
        total += np.where(person.annotated[:, None], places, 0)
        count += person.annotated[:, None]
    mean = total / count
    left, right = data.skeleton.torso
    correct = []
    for index in data.test_set.indices:
        person = data.test_set.items[index].person
        distance = np.linalg.norm(mean * person.side_px + person.center - person.joints, axis=1)
        torso = np.linalg.norm(person.joints[left] - person.joints[right])
        correct.append((distance <= 0.2 * torso)[person.annotated])
    return 100 * float(np.concatenate(correct).mean())


def main() -> None:
    """Reads the data and prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lsp", required=True, help="LSP's folder")
    parser.add_argument("--lspet", required=True, help="LSP Extended's folder")
    args = parser.parse_args()
    data = LSPDataModule(args.lsp, args.lspet, train_on="lspet", image_size=96)
    data.setup()
    print(f"{mean_pose(data):.2f} %")


if __name__ == "__main__":
    main()
