"""Compares latent weights and scales on CIFAR-10.

    python benchmarks/cifar10_latents.py --root DIR --epochs 2 --rates 0.01 0.03 \
        --runs runs/cifar10_latents --output results/cifar10_latents

See comparison.py for the protocol.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from comparison import Comparison, factorized

METHODS = {
    "dense, analytic α": factorized("Dense", "analytic"),
    "dense, channel α": factorized("Dense", "channel"),
    "Matrix, channel α": factorized("Matrix", "channel", start="svd", factor_lr=0.7),
    "Tucker, channel α": factorized("Tucker", "channel", start="hosvd", factor_lr=0.1),
    "Holistic, channel α": factorized("Holistic", "channel", start="hosvd", factor_lr=0.1),
}


def main() -> None:
    """The runs and their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--root", required=True, help="CIFAR-10's folder")
    known, _ = parser.parse_known_args()
    data = "CIFAR-10 (JPEG)" if (Path(known.root) / "train").is_dir() else "CIFAR-10"
    comparison = Comparison(
        title=f"Latent weights and scales on {data}",
        config="configs/resnet_small_cifar10.yaml",
        metric="acc1",
        metric_name="accuracy",
        baseline="dense, channel α",
        methods=METHODS,
    )
    comparison.main(parser, lambda args: [f"--data.root={args.root}"])


if __name__ == "__main__":
    main()
