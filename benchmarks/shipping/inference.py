"""Latency of shipped binary networks beside real-valued ones, all taking turns in one process.

ResNet-18 at 224×224 against torchvision's real-valued ResNet-18 and MobileNets, and the hourglass of
configs/hg_mpii.yaml at 256×256 against its real-valued twin: in OpenVINO, in float32, in bfloat16 and on 8-bit
integers, and in torch (eager, channels last); with the exports of the other formats beside them. Weights are random:
they do not change the time. Larq Compute Engine and NNCF join where environments of their own have them:
`--larq_python ENV/bin/python --nncf_python ENV/bin/python`.

    python benchmarks/shipping/inference.py --output results/inference
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
import torchvision
from inference_networks import Network, in_torch, real_networks, small_networks, to_ir
from torch import nn

from bnnlight.backbones import ResNet18, StackedHourglass
from bnnlight.commands.bench import in_turn
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.onnx import OnnxEngine, save_onnx
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.packed import PackedEngine, save_packed
from bnnlight.deploy.formats.workers import num_cores
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance
from bnnlight.imaging.skeletons import MPII
from bnnlight.nn import real_valued

MODEL, REAL, EAGER = "binary, OpenVINO", "real, OpenVINO", "real, torch eager, channels last"
GOALS = {"ResNet-18": {REAL: 3.3, EAGER: 4.4}, "hourglass": {REAL: 3.0, EAGER: 4.0}}
"""How many times quicker the binary network must be."""
LIGHT = "binary, light stem, OpenVINO"
MOST = {"ResNet-18": {LIGHT: 0.55}, "hourglass": {}}
"""How much of the binary network's time others may take."""


def binary_and_real(name: str) -> tuple[nn.Module, nn.Module, tuple[int, int, int]]:
    """A binary network, the real-valued one that it is measured against, and the shape of their input."""
    torch.manual_seed(0)
    if name == "ResNet-18":
        return ResNet18(), torchvision.models.resnet18(weights=None), (3, 224, 224)
    return StackedHourglass(), real_valued(StackedHourglass()), (3, 256, 256)


def measure(name: str, threads: int, num_runs: int, folder: Path, nncf_python: str | None) -> dict[str, Any]:
    """Milliseconds of every variant of a network, and their ratios to the binary one in OpenVINO."""
    binary, real, shape = binary_and_real(name)
    program = freeze(binary.eval(), shape)
    images = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    taken = PictureInput(3, shape[-1], (0.0,) * 3, (1.0,) * 3, shape[-1] if name == "ResNet-18" else None)
    classes = Manifest("classification", name, taken, tuple(f"n{i:08d}" for i in range(1000)))
    joints = Manifest("pose", name, taken, skeleton=MPII, sigmoid=True, flip_test=True)
    manifest = classes if name == "ResNet-18" else joints
    files = {}
    for kind, save, options in (
        ("openvino", save_openvino, {}),
        ("openvino fp16", save_openvino, {"real_dtype": "fp16"}),
        ("openvino int8", save_openvino, {"ranges": find_ranges(program, [images])}),
        ("packed", save_packed, {}),
        ("packed fp16", save_packed, {"real_dtype": "fp16"}),
        ("onnx", save_onnx, {}),
        ("onnx fp16", save_onnx, {"real_dtype": "fp16"}),
    ):
        place = folder / f"{name} {kind}"
        place.mkdir(exist_ok=True)
        files[kind] = save(program, manifest, place, **options)
    engine = OpenVINOEngine(files["openvino"], threads)
    networks: dict[str, Network] = {
        MODEL: engine,
        "binary, OpenVINO, real layers on int8": OpenVINOEngine(files["openvino int8"], threads),
        "binary, onnxruntime": OnnxEngine(files["onnx"], threads),
        "binary, packed, torch": PackedEngine(files["packed"], threads),
        EAGER: in_torch(real, threads),
    }
    found, sizes = real_networks(REAL, to_ir(real, shape), threads, images, folder, nncf_python)
    networks |= found
    small_bytes: dict[str, dict[str, int]] = {}
    if name == "ResNet-18":
        found, small_bytes = small_networks(threads, images, folder, nncf_python)
        networks |= found
    kinds = engine.executed()
    networks |= with_light_stem(name, threads, images, manifest, folder)
    times = in_turn(networks, images, num_runs)
    ours = np.array(times[MODEL])
    rows = {
        kind: {
            "median_ms": 1e3 * float(np.median(seconds)),
            "tenth_ms": 1e3 * float(np.quantile(seconds, 0.1)),
            "ninetieth_ms": 1e3 * float(np.quantile(seconds, 0.9)),
            "over_binary_openvino": float(np.median(np.array(seconds) / ours)),
        }
        for kind, seconds in times.items()
    }
    real_numbers = sum(t.numel() for t in (*real.parameters(), *real.buffers()) if t.is_floating_point())
    return {
        "network": name,
        "input_shape": shape,
        "num_threads": threads,
        "num_runs": num_runs,
        "binary_layers_on": sorted(set(kinds.values())),
        "num_binary_layers": len(kinds),
        "rows": rows,
        "bytes": {
            "binary weights": program.num_binary // 8,
            "real numbers": 4 * program.num_real,
            **{k: sum(part.stat().st_size for part in f.parent.iterdir()) for k, f in files.items()},
            "the real-valued network's numbers": 4 * real_numbers,
            "the real-valued network, openvino int8": sizes["int8"],
        },
        "small_bytes": small_bytes,
        "goals": {
            kind: {"asked": asked, "measured": rows[kind]["over_binary_openvino"], "at": at}
            for at, goals in (("least", GOALS[name]), ("most", MOST[name]))
            for kind, asked in goals.items()
        },
    }


def with_light_stem(
    name: str, threads: int, images: np.ndarray, manifest: Manifest, folder: Path
) -> dict[str, Network]:
    """The binary network with a light stem, as it is and with its real layers on 8-bit integers."""
    torch.manual_seed(0)
    network = ResNet18(stem="light") if name == "ResNet-18" else StackedHourglass(stem="light")
    program = freeze(network.eval(), images.shape[1:])
    found: dict[str, Network] = {}
    for row, ranges in ((LIGHT, None), (f"{LIGHT}, real layers on int8", find_ranges(program, [images]))):
        place = folder / f"{name} {row}"
        place.mkdir(exist_ok=True)
        found[row] = OpenVINOEngine(save_openvino(program, manifest, place, ranges=ranges), threads)
    return found


def larq(python: str, threads: int, num_runs: int) -> dict[str, Any]:
    """Larq Compute Engine on binary convolutions of ResNet-18's shapes, in its own environment."""
    script = Path(__file__).with_name("larq_latency.py")
    command = [python, str(script), "--threads", str(threads), "--runs", str(num_runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{python} {script}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measures both networks with one thread and all, prints JSON, and writes a table where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=40, help="of each network, in turn")
    parser.add_argument("--larq_python", help="Python of an environment with larq-compute-engine")
    parser.add_argument("--nncf_python", help="Python of an environment with nncf")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    counts = sorted({1, num_cores()})
    if args.larq_python:
        larq(args.larq_python, 1, 1)  # what is missing is told now, not at the end
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            measure(name, count, args.runs, Path(folder), args.nncf_python) for name in GOALS for count in counts
        ]
    record = {
        **provenance(),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "openvino": ov.get_version().split("-")[0], "numpy": np.__version__},
        "results": results,
        "larq": [larq(args.larq_python, count, args.runs) for count in counts] if args.larq_python else [],
        "seconds": round(time.time() - start),
    }
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    met = all(is_met(goal) for result in results for goal in result["goals"].values())
    sys.exit(0 if met else 1)


def is_met(goal: dict[str, Any]) -> bool:
    """Whether a ratio is on the right side of what was asked."""
    least = goal["at"] == "least"
    return goal["measured"] >= goal["asked"] if least else goal["measured"] <= goal["asked"]


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# Latency of shipped networks",
        "",
        f"One picture at a time, medians of {record['results'][0]['num_runs']} runs taken in turn in one process; the "
        "ratio is the median of the pairs' ratios. Random weights. The real ResNet-18 and the MobileNets are "
        "torchvision's, the real hourglass is the binary one's twin, MobileNets run in OpenVINO. Rows in int8 are "
        "quantized as `bnnlight bench` does it; what NNCF makes of the same network stands beside them, where it was "
        "at hand. Bfloat16 is what OpenVINO takes for real networks on such a processor unless it is told otherwise.",
    ]
    for result in record["results"]:
        size, count = result["input_shape"][-1], result["num_threads"]
        threads = "one thread" if count == 1 else f"{count} threads"
        lines += ["", f"## {result['network']}, {size}×{size}, {threads}", ""]
        lines += ["| network | median ms | 10 % to 90 % | times the binary one's | goal |", "|---|---|---|---|---|"]
        for kind, row in result["rows"].items():
            asked = result["goals"].get(kind)
            goal = f"at {asked['at']} {asked['asked']}" if asked else ""
            spread = f"{row['tenth_ms']:.1f} to {row['ninetieth_ms']:.1f}"
            ratio = f"{row['over_binary_openvino']:.2f}"
            lines.append(f"| {kind} | {row['median_ms']:.1f} | {spread} | {ratio} | {goal} |")
        lines += [
            "",
            f"The {result['num_binary_layers']} binary layers run on {', '.join(result['binary_layers_on'])}.",
        ]
    if record["larq"]:
        lines += ["", "## Larq Compute Engine, a ResNet-18 of the same layers, 224×224", ""]
        lines += ["| threads | median ms | bytes |", "|---|---|---|"]
        lines += [f"| {r['num_threads']} | {r['median_ms']:.1f} | {r['file_bytes']:,} |" for r in record["larq"]]
        versions = ", ".join(f"{name} {text}" for name, text in record["larq"][0]["versions"].items())
        lines += ["", f"{versions}, in a process of its own, right after the others."]
    lines += ["", "## Bytes of the whole files", "", "| file | " + " | ".join(GOALS) + " |", "|---|---|---|"]
    by_name = {result["network"]: result["bytes"] for result in record["results"]}
    for kind in record["results"][0]["bytes"]:
        lines.append(f"| {kind} | " + " | ".join(f"{by_name[name][kind]:,}" for name in GOALS) + " |")
    small = next(result["small_bytes"] for result in record["results"] if result["small_bytes"])
    lines += ["", "| OpenVINO file of a real network | float32 | int8 |", "|---|---|---|"]
    lines += [f"| {name} | {sizes['float32']:,} | {sizes['int8']:,} |" for name, sizes in small.items()]
    versions = ", ".join(f"{name} {text}" for name, text in record["versions"].items())
    command = f"python benchmarks/shipping/{record['command']}"
    lines += ["", f"Command: `{command}`, commit {record['commit']}, {record['machine']}, {versions}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
