"""Files of `bnnlight export --format lce` in Larq Compute Engine's own interpreter, beside the networks in torch.

A run of configs/quickstart.yaml and the shipped CIFAR-10 network on their whole test sets, the shipped hourglass on
test pictures of Leeds Sports Pose, a ResNet-18 with random numbers at 224×224 px, and two networks of torchvision
made binary, with gates and shuffled channels, whose norms have seen some random pictures. Every sign and every answer
is compared; then both engines are timed on this machine, in turn.

    python -m venv ENV && ENV/bin/pip install larq-compute-engine==0.16.0 'numpy<2'
    python benchmarks/shipping/lce_agreement.py --peer-python ENV/bin/python --digits RUN/checkpoints/best.ckpt \\
        --cifar10 data/cifar10_jpeg --lsp data/lsp --output results/lce
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from bnnlight.backbones import ResNet18
from bnnlight.data import CIFAR10DataModule, LSPDataModule
from bnnlight.deploy.formats.larq.operators import to_lce
from bnnlight.deploy.formats.lce import save_lce
from bnnlight.deploy.formats.onnx import save_onnx
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.packed import load_packed, save_packed
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program
from bnnlight.deploy.shipped import shipped_models
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance
from bnnlight.experiment.trained.network import load_trained
from bnnlight.experiment.trained.shipping import describe
from bnnlight.nn import convert

SAME_ANSWERS, DIFFERENCE = 0.999, 1e-5
"""Least share of equal answers of a classifier; largest relative difference of an output where no sign differs."""
PIECE = 500
"""Pictures that are run at a time: their signs are kept until both engines have them."""
ROUNDS = 3
"""Of timing, the engines in turn."""

TORCHVISION = ("mobilenet_v3_small", "shufflenet_v2_x0_5")
"""Of torchvision's networks, those that are compared."""

Case = tuple[Program, Manifest, np.ndarray]


def cases(args: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Networks by name, with their test pictures ``(N, C, H, W)``."""
    for checkpoint in args.only:
        yield str(checkpoint), trained(checkpoint)
    if not args.only and not args.torchvision:
        yield from usual(args)
    for name in args.torchvision or ([] if args.only else TORCHVISION):
        yield f"torchvision's {name} made binary, random, 224×224", random(converted(name), args.large)


def usual(args: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Networks of this project."""
    if args.digits:
        yield "digits, quickstart", trained(args.digits)
    for name, title, module in (
        ("cifar10", "CIFAR-10, shipped", lambda: CIFAR10DataModule(root=args.cifar10, num_workers=0)),
        ("lsp", "hourglass, LSP, shipped", lambda: LSPDataModule(str(args.lsp), None, "lsp", image_size=96)),
    ):
        program, manifest = load_packed(shipped_models()[name] / "model.safetensors")
        yield title, (program, manifest, pictures_of(module(), args.poses if name == "lsp" else None))
    yield "ResNet-18, random, 224×224", random(resnet(), args.large)


def trained(checkpoint: Path) -> Case:
    """A checkpoint's network on its own test set."""
    experiment = load_trained("benchmark", checkpoint, None)
    data = experiment.datamodule
    program = freeze(experiment.model.backbone.eval(), (data.num_channels, data.image_size, data.image_size))
    return program, describe(experiment, checkpoint, None), pictures_of(data)


def pictures_of(data: Any, count: int | None = None) -> np.ndarray:
    """The test set's pictures as a network takes them, or the first of them."""
    data.prepare_data()
    data.setup("test")
    size = len(data.test_set)
    found = [data.test_set[i] for i in range(size if count is None else min(count, size))]
    return np.stack([np.asarray(one["image"] if isinstance(one, dict) else one[0]) for one in found])


def resnet() -> nn.Module:
    """A ResNet-18 whose batch norms, slopes and α are such as training leaves."""
    torch.manual_seed(0)
    network = ResNet18()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.5)
                module.bias.normal_()
    return network


def converted(name: str) -> nn.Module:
    """A network of torchvision made binary, whose norms have gathered statistics of 64 random pictures."""
    torch.manual_seed(0)
    network = convert(torchvision.models.get_model(name, weights=None))
    with torch.no_grad():
        for _ in range(8):
            network.train()(torch.randn(8, 3, 224, 224))
    return network


def random(network: nn.Module, count: int) -> Case:
    """A network for 1,000 classes, and random pictures."""
    taken = PictureInput(3, 224, (0.0,) * 3, (1.0,) * 3, 224)
    manifest = Manifest("classification", type(network).__name__, taken, tuple(f"n{i:08d}" for i in range(1000)))
    images = np.random.default_rng(0).normal(size=(count, 3, 224, 224)).astype(np.float32)
    return freeze(network.eval(), (3, 224, 224)), manifest, images


class Peer:
    """Larq Compute Engine's interpreter in its own environment."""

    def __init__(self, python: str, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.version = ""

    def __call__(self, content: bytes, images: np.ndarray, times: int = 0) -> tuple[list[np.ndarray], list[float]]:
        """A file's outputs for pictures ``(N, C, H, W)``, and the milliseconds of runs on the first of them."""
        files = [self.folder / f"peer.{ending}" for ending in ("tflite", "npy", "npz")]
        files[0].write_bytes(content)
        np.save(files[1], np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        script = Path(__file__).with_name("lce_agreement_run.py")
        command = [self.python, str(script), "--times", str(times), "--run", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Larq Compute Engine failed: {done.stderr.strip().splitlines()[-1]}")
        record = json.loads(done.stdout.splitlines()[-1])
        self.version = record["version"]
        with np.load(files[2]) as archive:
            return [archive[str(i)] for i in range(len(archive.files))], record["milliseconds"][0]


def compare(program: Program, images: np.ndarray, peer: Peer) -> dict[str, Any]:
    """How far the engine agrees with the frozen network in torch."""
    network, content = FrozenNetwork(program), to_lce(program, {}, look=True)
    names = [step.name for step in program.steps if step.op == "binarize"]
    same = signs = flipped = turned = 0
    largest = 0.0
    for start in range(0, len(images), PIECE):
        piece = images[start : start + PIECE]
        found, _ = peer(content, piece)
        wanted, expected = in_torch(network, piece, {*names})
        output = np.moveaxis(found[0], -1, -3) if found[0].ndim > 3 else found[0]
        differ = np.zeros(len(piece), np.int64)
        for name, words in zip(names, found[1:], strict=True):
            last = np.moveaxis(expected[name], 1, -1)
            bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")[..., : last.shape[-1]]
            differ += ((bits == 0) != last).reshape(len(piece), -1).sum(1)
            signs += last.size
        same += int((answers(output) == answers(wanted)).all(1).sum())
        flipped += int(differ.sum())
        turned += int((differ > 0).sum())
        apart = np.abs(output - wanted).reshape(len(piece), -1).max(1) / np.abs(wanted).reshape(len(piece), -1).max(1)
        largest = max(largest, float(apart[differ == 0].max(initial=0)))
    return {
        "num_images": len(images),
        "num_same": same,
        "num_signs": signs,
        "num_flipped": flipped,
        "num_images_flipped": turned,
        "output_difference": largest,
    }


@torch.inference_mode()
def in_torch(network: FrozenNetwork, images: np.ndarray, names: set[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The output, and for each binarization where it is +1."""
    outputs, parts = [], []
    for start in range(0, len(images), 50):
        seen: dict[str, np.ndarray] = {}

        def look(name: str, value: torch.Tensor, seen: dict[str, np.ndarray] = seen) -> None:
            if name in names:
                seen[name] = value.numpy() > 0

        outputs.append(network(torch.from_numpy(images[start : start + 50]), look).numpy())
        parts.append(seen)
    return np.concatenate(outputs), {name: np.concatenate([part[name] for part in parts]) for name in names}


def answers(output: np.ndarray) -> np.ndarray:
    """The best class, or every joint's pixel in the last stack: ``(N, answers)``."""
    maps = output[:, -1].reshape(*output.shape[:1], output.shape[2], -1) if output.ndim > 3 else output[:, None]
    return maps.argmax(-1)


def measure(program: Program, manifest: Manifest, images: np.ndarray, peer: Peer, times: int) -> dict[str, Any]:
    """Bytes of every format, and a picture's processor time in Larq Compute Engine and in OpenVINO, one thread each."""
    sizes, files = {}, {}
    savers = {"lce": save_lce, "openvino": save_openvino, "onnx": save_onnx, "packed": save_packed}
    for name, save in savers.items():
        place = peer.folder / name
        place.mkdir()
        files[name] = save(program, manifest, place)
        sizes[name] = sum(path.stat().st_size for path in place.iterdir())
    engine = OpenVINOEngine(files["openvino"], 1)
    milliseconds: dict[str, list[float]] = {"lce": [], "openvino": []}
    for _ in range(ROUNDS):
        milliseconds["lce"] += peer(files["lce"].read_bytes(), images[:1], times)[1]
        for _ in range(times):
            start = time.process_time()
            engine(images[:1])
            milliseconds["openvino"].append(1e3 * (time.process_time() - start))
    return {
        "file_bytes": sizes,
        "processor_ms": {name: float(np.median(found)) for name, found in milliseconds.items()},
    }


def main() -> None:
    """Compares all, prints JSON, writes a table where asked, and exits with 1 where too much differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--peer-python", required=True, help="Python of an environment with larq-compute-engine")
    parser.add_argument("--digits", type=Path, help="checkpoint of configs/quickstart.yaml")
    text = "checkpoints to compare on their own test sets, instead of all these networks"
    parser.add_argument("--only", type=Path, nargs="+", default=[], help=text)
    text = "networks of torchvision to make binary and compare, instead of all these networks"
    parser.add_argument("--torchvision", nargs="+", default=[], metavar="NAME", help=text)
    parser.add_argument("--cifar10", type=Path, default=Path("data/cifar10_jpeg"), help="folder of CIFAR-10")
    parser.add_argument("--lsp", type=Path, default=Path("data/lsp"), help="folder of Leeds Sports Pose")
    parser.add_argument("--poses", type=int, default=1000, help="test pictures of Leeds Sports Pose")
    parser.add_argument("--large", type=int, default=50, help="pictures for the networks with random numbers")
    parser.add_argument("--times", type=int, default=10, help="timed runs of each engine in each round")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, results = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, (program, manifest, images) in cases(args):
            peer = Peer(args.peer_python, Path(folder) / str(len(results)))
            peer.folder.mkdir()
            agreement = compare(program, images, peer)
            judged = manifest.task == "pose" or agreement["num_same"] >= SAME_ANSWERS * len(images)
            agreement["met"] = bool(judged and agreement["output_difference"] <= DIFFERENCE)
            results.append({"network": name, **agreement, **measure(program, manifest, images, peer, args.times)})
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    record = {
        **provenance(),
        "machine": machine(),
        "larq_compute_engine": peer.version,
        "num_runs": ROUNDS * args.times,
        "seconds": round(time.time() - start),
        "results": results,
    }
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    sys.exit(0 if all(result["met"] for result in results) else 1)


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# Larq Compute Engine",
        "",
        "Files of `bnnlight export --format lce`, run by the interpreter of larq-compute-engine "
        f"{record['larq_compute_engine']} beside the same frozen networks in torch. An answer is the best class, or "
        "the pixels of all joints. Required: 99.9 % of the classes the same, and a relative difference of at most 1e-5 "
        "on pictures of which no sign differs. Signs differ where a number lies on its threshold to the last bit: this "
        "engine adds up real convolutions in another order than torch, and rounds a batch norm twice.",
        "",
        "| network | pictures | same answer | signs that differ | pictures with such signs "
        "| largest relative difference on the others |",
        "|---|---|---|---|---|---|",
    ]
    for r in record["results"]:
        share, flipped = 100 * r["num_same"] / r["num_images"], f"{r['num_flipped']:,} of {r['num_signs']:,}"
        cells = (r["network"], f"{r['num_images']:,}", f"{share:.2f} %", flipped, f"{r['num_images_flipped']:,}")
        lines.append(f"| {' | '.join(cells)} | {r['output_difference']:.1e} |")
    lines += [
        "",
        "Bytes of all files, and the time that one picture takes on this x86 processor, one thread: medians of "
        f"{record['num_runs']} runs, the engines in turn, beside other work. Larq Compute Engine has its quick kernels "
        "for ARM alone: on x86 it computes binary convolutions in plain C++, and these times say nothing about a "
        "phone. OpenVINO's are those of `--format openvino` in float32.",
        "",
        "| network | `lce` bytes | `openvino` | `onnx` | `packed` | Larq, x86 | OpenVINO, x86 |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in record["results"]:
        sizes = [f"{r['file_bytes'][name]:,}" for name in ("lce", "openvino", "onnx", "packed")]
        times = [f"{r['processor_ms'][name]:.2f} ms" for name in ("lce", "openvino")]
        lines.append(f"| {' | '.join([r['network'], *sizes, *times])} |")
    command = f"python benchmarks/shipping/{record['command']}"
    lines += ["", f"Command: `{command}`, commit {record['commit']}, {record['machine']}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
