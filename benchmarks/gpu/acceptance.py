"""The first minutes on a GPU: what must work there, and how fast it is, in at most eight minutes.

    python benchmarks/gpu/acceptance.py                                    # or `make gpu-check`
    python benchmarks/gpu/acceptance.py --device cpu --small               # tries it all without a GPU, in five minutes
    python benchmarks/gpu/acceptance.py --only tests train --minutes 4

Parts run one after the other, each in processes of its own that end in time. A part that fails says why, and the others
go on. After each part the figures so far are in `OUTPUT.json` and, as a page, in `OUTPUT.md`; what the parts print is
in `OUTPUT.log`. Nothing is fetched. `benchmarks/gpu/carry.sh` collects what a machine without an index may lack.

Exits 0 if all parts ran and all checks hold, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from acceptance_page import page
from acceptance_parts import PARTS, Part, Place
from acceptance_watched import run_watched

from bnnlight.experiment.machine import machine
from bnnlight.experiment.save_config import provenance

ROOT = Path(__file__).resolve().parents[2]


def run_part(part: Part, place: Place, limit_s: float, log: Path) -> dict[str, Any]:
    """One part's record: its figures and checks, or why there are none."""
    output = place.folder / f"{part.name}.json"
    begin = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "WANDB_MODE": "disabled"}
    with log.open("ab") as stream:
        stream.write(f"\n===== {part.name}: {part.title}\n".encode())
        stream.flush()
        ended = run_watched(part.command(place, output, limit_s), limit_s, stream, env=env, cwd=ROOT)
    try:
        record = json.loads(output.read_text()) if output.is_file() else {}
        record = part.read(place, record)
    except (OSError, ValueError, KeyError) as error:
        record, ended = {}, ended or f"what it wrote cannot be read: {error}"  # no record tells less than its reason
    if ended:
        record["failed"] = ended
    return {"title": part.title, **record, "seconds": round(time.monotonic() - begin, 1)}


def holds(parts: dict[str, Any]) -> bool:
    """Whether all ran to their end, and all that was asked of them was found."""
    return all("failed" not in part and all(row["ok"] for row in part.get("checks", ())) for part in parts.values())


def main() -> int:
    """Runs the parts, and writes what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few steps, to try it without a GPU")
    parser.add_argument("--minutes", type=float, default=8, help="for all parts; the last one takes what is left")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10, as configs/resnet18_cifar10.yaml reads it")
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), help="path without ending")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("acceptance: torch sees no GPU; to try everything without one: --device cpu --small", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * options.minutes
    output = options.output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    parts: dict[str, Any] = {}
    record = {
        **provenance(),
        "machine": machine(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "small": options.small,
        "parts": parts,
    }
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options.device, options.small, options.data and options.data.resolve())
        for index, part in enumerate(chosen):
            left = end - time.monotonic()
            # what comes later keeps its share; the last part has all that is left
            share = part.limit_s / sum(later.limit_s for later in chosen[index:])
            limit_s = left * share
            print(f"{part.name}: {part.title}, at most {limit_s:.0f} s", flush=True)
            parts[part.name] = run_part(part, place, limit_s, log) if left > 0 else {"failed": "no time was left"}
            told = parts[part.name].get("failed") or "done"
            print(f"{part.name}: {told}, {parts[part.name].get('seconds', 0)} s", flush=True)
            output.with_suffix(".json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
            output.with_suffix(".md").write_text(page(record))
    print(f"{output}.md, {output}.json, {output}.log")
    return 0 if holds(parts) else 1


if __name__ == "__main__":
    sys.exit(main())
