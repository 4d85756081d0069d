"""Trained checkpoints beside what `bnnlight export` makes of them, on whole test sets, in every format.

python benchmarks/shipping/export_agreement.py RUN/checkpoints/best.ckpt … --output results/export
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bnnlight.cli import main as bnnlight
from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance

VARIANTS = {
    "packed": ["--format", "packed"],
    "openvino": ["--format", "openvino"],
    "onnx": ["--format", "onnx"],
    "packed, fp16": ["--format", "packed", "--real_dtype", "fp16"],
    "openvino, fp16": ["--format", "openvino", "--real_dtype", "fp16"],
    "onnx, fp16": ["--format", "onnx", "--real_dtype", "fp16"],
    "openvino, int8": ["--format", "openvino", "--int8"],
}


def exported(checkpoint: Path, options: list[str]) -> dict[str, Any]:
    """What `bnnlight export --num_check all --json` says of a checkpoint, and its exit code."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as text:
        command = ["export", "--ckpt_path", str(checkpoint), *options, "--num_check", "all", "--json"]
        code = bnnlight([*command, "--output", f"{folder}/model"])
    out = text.getvalue()
    record = json.loads(out[out.index("{\n") :]) if code == 0 else {}
    record.pop("output", None)  # gone by now
    return {"exit": code, **record}


def main() -> None:
    """Exports every checkpoint in every variant, prints JSON, and writes a table where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    start = time.time()
    results = [
        {"checkpoint": str(checkpoint), "variant": name, **exported(checkpoint, options)}
        for checkpoint in args.checkpoints
        for name, options in VARIANTS.items()
    ]
    record = {**provenance(), "machine": machine(), "seconds": round(time.time() - start), "results": results}
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    sys.exit(max(result["exit"] for result in results))


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# Shipped models beside their checkpoints",
        "",
        "Each export runs beside its checkpoint on the whole test set (pose: each picture and its mirror image). Where "
        "both compute with float32, at least 99.9 % of the answers must be the same (the best class, or every joint's "
        "pixel), a metric may differ by 0.05 points, and an output by 1e-3 of its largest value where no activation "
        "bit differs. Bits differ where a number lies so near to its threshold that rounding decides. With fp16 and "
        "int8 the weights of real layers are rounded, and everything may differ.",
        "",
        "| run | export | pictures | same answer | activation bits that differ | pictures with such bits "
        "| largest relative difference on the others | metric | checkpoint's | bytes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in record["results"]:
        run = Path(result["checkpoint"]).parent.parent
        if result["exit"]:
            lines.append(f"| {run} | {result['variant']} | failed |" + " |" * 7)
            continue
        check, a = result["check"], result["check"]["agreement"]
        same = 100 * a["num_same"] / a["num_images"]
        bits = f"{a['num_flipped']:,} of {a['num_signs']:,} ({100 * a['num_flipped'] / a['num_signs']:.2g} %)"
        difference = "" if a["output_difference"] is None else f"{a['output_difference']:.1e}"
        metric, wanted = (
            ", ".join(f"{key.removeprefix('test/')} {100 * value:.2f}" for key, value in check[name].items())
            for name in ("model", "checkpoint")
        )
        cells = (run, result["variant"], f"{a['num_images']:,}", f"{same:.2f} %", bits, f"{a['num_images_flipped']:,}")
        cells += (difference, metric, wanted, f"{sum(result['file_bytes'].values()):,}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    command = f"python benchmarks/shipping/{record['command']}"
    lines += ["", f"Command: `{command}`, commit {record['commit']}, {record['machine']}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
