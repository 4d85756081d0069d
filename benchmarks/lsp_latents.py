"""Compares latent weights and scales on Leeds Sports Pose, beside the mean pose and the real-valued network.

    python benchmarks/lsp_latents.py --lsp DIR/lsp --lspet DIR/lspet --epochs 3 --rates 0.01 0.03 \
        --runs runs/lsp_latents --output results/lsp_latents

See comparison.py for the protocol.
"""

from __future__ import annotations

import argparse

import numpy as np
from comparison import Comparison, factorized, real_valued

from bnnlight.data import LSPDataModule

METHODS = {
    "dense, analytic α": factorized("Dense", "analytic"),
    "dense, channel α": factorized("Dense", "channel"),
    "Tucker, channel α": factorized("Tucker", "channel", start="hosvd", factor_lr=0.1),
    "Holistic, channel α": factorized("Holistic", "channel", start="hosvd", factor_lr=0.1),
    "real-valued": real_valued,
}


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
    """Mean pose, then the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lsp", required=True, help="LSP's folder")
    parser.add_argument("--lspet", required=True, help="LSP Extended's folder")
    known, _ = parser.parse_known_args()
    data = LSPDataModule(known.lsp, known.lspet, train_on="lspet", image_size=96)
    data.setup()
    note = (
        f"A predictor that always answers with the training joints' mean place in the box has {mean_pose(data):.2f} %."
    )
    comparison = Comparison(
        title="Latent weights and scales on Leeds Sports Pose",
        config="configs/hg_lsp_small.yaml",
        metric="pck",
        metric_name="PCK@0.2",
        baseline="dense, channel α",
        methods=METHODS,
        note=note,
    )
    comparison.main(parser, lambda args: [f"--data.lsp_root={args.lsp}", f"--data.lspet_root={args.lspet}"])


if __name__ == "__main__":
    main()
