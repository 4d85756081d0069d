"""A QONNX file of `bnnlight export` in the tools that make FPGA designs of it, beside the checkpoint.

    python benchmarks/shipping/fpga.py RUN/checkpoints/best.ckpt --tool qonnx --peer_python PEER/bin/python

Each tool lives in an environment of its own:

    python3 -m venv qonnx  && qonnx/bin/pip  install qonnx==1.0.0
    python3 -m venv hls4ml && hls4ml/bin/pip install hls4ml==1.3.0 qonnx==1.0.0
    python3 -m venv finn   && finn/bin/pip   install finn-plus==1.6.1 psutil

hls4ml needs g++; no tool needs a vendor's compiler for this.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bnnlight.cli import main as bnnlight
from bnnlight.deploy.formats.qonnx import FILE, HLS4ML, QonnxEngine, to_pixels
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance
from bnnlight.experiment.trained.network import load_trained
from bnnlight.experiment.trained.shipping import check_pictures

TOOLS = {"qonnx": "fpga_qonnx.py", "hls4ml": "fpga_hls4ml.py", "finn": "fpga_finn.py"}
"""What runs in each tool's environment."""


def main() -> None:
    """Exports a checkpoint, runs one tool on it, and prints JSON; writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tool", required=True, choices=TOOLS)
    parser.add_argument("--peer_python", required=True, type=Path, help="Python of the tool's environment")
    parser.add_argument("--num_pictures", type=int, help="test pictures, spread over the test set (default: all)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, start = Path(folder), time.time()
        command = ["export", "--ckpt_path", str(args.checkpoint), "--format", "qonnx", "--output", f"{folder}/model"]
        if bnnlight([*command, "--num_check", "0"]):
            sys.exit(1)
        pictures(args.checkpoint, args.num_pictures, place / "model", place / "pictures.npz")
        script = Path(__file__).with_name(TOOLS[args.tool])
        files = [place / "model" / FILE, place / "model" / HLS4ML, place / "pictures.npz", place / "found.json"]
        subprocess.run([args.peer_python, script, *files], check=True, cwd=folder)
        found = json.loads((place / "found.json").read_text())
        record = {**provenance(), "machine": machine(), "seconds": round(time.time() - start), **found}
    text = json.dumps({"tool": args.tool, "checkpoint": str(args.checkpoint), **record}, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


@torch.no_grad()
def pictures(checkpoint: Path, count: int | None, model: Path, file: Path) -> None:
    """Writes pixels ``(N, C, H, W)``, the checkpoint's outputs on them and the right classes to a file."""
    experiment = load_trained("export", checkpoint, None)
    loader = check_pictures(experiment, count)
    network, picture = experiment.model.backbone.eval(), QonnxEngine(model / FILE).manifest.input
    pixels, outputs, classes = [], [], []
    for images, labels in loader:
        pixels.append(to_pixels(images.numpy(), picture))
        outputs.append(network(images).numpy())
        classes.append(labels.numpy())
    arrays = {"pixels": pixels, "outputs": outputs, "classes": classes}
    np.savez(file, **{name: np.concatenate(parts) for name, parts in arrays.items()})


if __name__ == "__main__":
    main()
