"""OpenVINO files under OpenVINO's own defaults beside our engine: answers, and what it costs to be right.

The shipped models `cifar10` and `lsp` on pictures, and a ResNet-18 at 224×224 on noise, with numbers as after training.
Each is compiled as any program would do it, without options, once as it is and once without the marks by which its
nodes ask for float32. It shows nothing on a processor whose default is float32 already, and says so.

    python benchmarks/shipping/openvino_defaults.py --output results/openvino_defaults
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from PIL import Image
from torch import nn

from bnnlight.backbones import ResNet18
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.openvino_precision import narrow_nodes
from bnnlight.deploy.formats.packed import load_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program
from bnnlight.deploy.proof.verify import answers
from bnnlight.deploy.shipped import shipped_models
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance
from bnnlight.imaging.class_input import class_input
from bnnlight.imaging.pose_crop import whole_picture

PICTURES = {"cifar10": Path("data/cifar10_jpeg/test"), "lsp": Path("data/lsp/images")}
ONE_THREAD = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}


def shipped(name: str, count: int) -> tuple[Program, Manifest, np.ndarray]:
    """A model that comes with the package, and pictures as it takes them, spread over those of its folder."""
    program, manifest = load_packed(shipped_models()[name] / "model.safetensors")
    form = manifest.input
    files = sorted(file for file in PICTURES[name].rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise OSError(f"no pictures in {PICTURES[name]}: run it where the data sets are")
    made = []
    for file in files[:: max(1, len(files) // count)][:count]:
        picture = Image.open(file).convert("RGB")
        if manifest.skeleton:
            made.append(whole_picture(np.array(picture), form.size_px, form.mean, form.std)[0])
        else:
            made.append(class_input(picture, form.channels, form.size_px, form.resize_px, form.mean, form.std))
    return program, manifest, np.stack(made).astype(np.float32)


def resnet18(count: int) -> tuple[Program, Manifest, np.ndarray]:
    """A ResNet-18 whose batch norms, slopes and α are as after some training, and noise."""
    torch.manual_seed(0)
    network = ResNet18().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    images = np.random.default_rng(0).normal(size=(count, 3, 224, 224)).astype(np.float32)
    manifest = Manifest("classification", "ResNet18", PictureInput(3, 224, (0.0,) * 3, (1.0,) * 3, 224))
    return freeze(network, (3, 224, 224)), manifest, images


def without_marks(file: Path) -> Path:
    """The same model, whose nodes do not ask for float32, beside the file."""
    bare = file.with_name("bare.xml")
    bare.write_text(re.sub(r'<attribute name="DisablePrecisionConversion"[^>]*>', "", file.read_text()))
    bare.with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes())
    return bare


def runner(compiled: ov.CompiledModel) -> Callable[[np.ndarray], np.ndarray]:
    """A compiled model on a batch, one picture after the other."""
    request = compiled.create_infer_request()
    return lambda images: np.concatenate([request.infer([image[None]])[0].copy() for image in images])


def compare(file: Path, images: np.ndarray, num_runs: int) -> dict[str, Any]:
    """Answers by default and the price, which is taken as the processor's time of one thread, in turn."""
    core, bare = ov.Core(), without_marks(file)
    wanted = OpenVINOEngine(file)(images)
    default, rounded = core.compile_model(file, "CPU"), core.compile_model(bare, "CPU")
    found, spoiled = runner(default)(images), runner(rounded)(images)
    float32 = ONE_THREAD | {"INFERENCE_PRECISION_HINT": "f32"}
    timed = {
        "default": runner(core.compile_model(file, "CPU", ONE_THREAD)),
        "float32, without marks": runner(core.compile_model(bare, "CPU", float32)),
        "default, without marks": runner(core.compile_model(bare, "CPU", ONE_THREAD)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    some = images[:1].repeat(max(1, 2_000_000 // images[0].size // 30), 0)
    for turn in range(num_runs):
        order = [*timed][turn % 3 :] + [*timed][: turn % 3]
        for name in order:
            start = time.process_time()
            timed[name](some)
            seconds[name].append((time.process_time() - start) / len(some))
    # what else runs on the machine makes some runs longer, none shorter
    lowest = {name: float(np.quantile(times, 0.1)) for name, times in seconds.items()}
    return {
        "default": str(default.get_property("INFERENCE_PRECISION_HINT").get_type_name()),
        "pictures": len(images),
        "same_answers": int((answers(found) == answers(wanted)).all(1).sum()),
        "largest_difference": float(np.abs(found - wanted).max()),
        "rounded_nodes": len(narrow_nodes(default)),
        "largest_difference_without_marks": float(np.abs(spoiled - wanted).max()),
        "same_answers_without_marks": int((answers(spoiled) == answers(wanted)).all(1).sum()),
        "rounded_nodes_without_marks": len(narrow_nodes(rounded)),
        "ms": {name: 1e3 * time for name, time in lowest.items()},
        "over_float32": {name: time / lowest["float32, without marks"] for name, time in lowest.items()},
    }


def main() -> None:
    """Compares all, prints JSON, and writes a table where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--num_pictures", type=int, default=1000, help="of the shipped models' data sets")
    parser.add_argument("--num_noise", type=int, default=100, help="pictures for the ResNet-18")
    parser.add_argument("--num_runs", type=int, default=200, help="timed, of each")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    rows = []
    networks = {name: (lambda name=name: shipped(name, args.num_pictures)) for name in PICTURES}
    for name, make in (networks | {"ResNet-18": lambda: resnet18(args.num_noise)}).items():
        program, manifest, images = make()
        ranges = find_ranges(program, [images[:32]])
        for form, options in (
            ("float32", {}),
            ("float16 weights", {"real_dtype": "fp16"}),
            ("int8", {"ranges": ranges}),
        ):
            with tempfile.TemporaryDirectory() as folder:
                file = save_openvino(program, manifest, Path(folder), **options)
                rows.append({"network": name, "form": form, **compare(file, images, args.num_runs)})
    version = ov.get_version().split("-")[0]
    record = {**provenance(), "machine": machine(), "openvino": version, "results": rows}
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows = record["results"]
    default = rows[0]["default"]
    lines = [
        "# OpenVINO files under OpenVINO's defaults",
        "",
        f"`openvino.Core().compile_model(file, 'CPU')` without options, OpenVINO {record['openvino']}, whose default "
        f"on this processor is {default}, beside our engine, which asks for float32: pictures with the same answer "
        "(best class, or every joint's pixel), and the largest difference of an output. Beside it the same file "
        "without the marks on its nodes (see [shipping](../docs/shipping.md#openvino-without-bnnlight)). Time is the "
        "processor's, of one thread, all in turn: the tenth percentile over that of the file without marks in float32.",
        "",
        "| network | file | same answers | largest difference | time | without marks: same answers "
        "| largest difference | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        count, over = row["pictures"], row["over_float32"]
        cells = (row["network"], row["form"], f"{row['same_answers']:,} of {count:,}")
        cells += (f"{row['largest_difference']:.1g}", f"{over['default']:.3f}")
        cells += (f"{row['same_answers_without_marks']:,} of {count:,}",)
        cells += (f"{row['largest_difference_without_marks']:.1g}", f"{over['default, without marks']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    if default != "bf16":
        lines += ["", "This processor's default is float32 already: the table shows nothing."]
    command = f"python benchmarks/shipping/{record['command']}"
    return "\n".join([*lines, "", f"Command: `{command}`, commit {record['commit']}, {record['machine']}.", ""])


if __name__ == "__main__":
    main()
