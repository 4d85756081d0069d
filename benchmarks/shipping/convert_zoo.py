"""Every classification, segmentation and detection network of torchvision, and some fifty of timm, made binary.

python benchmarks/shipping/convert_zoo.py --output results/convert            # goes on where it was stopped
pip install --no-deps timm==1.0.31 huggingface_hub safetensors pyyaml   # for some fifty networks more, with
python benchmarks/shipping/convert_zoo.py --output results/convert --timm
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import traceback
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from convert_zoo_networks import Network, networks
from convert_zoo_row import FORMATS, reasons, row
from rich.progress import track

from bnnlight.deploy.formats.workers import num_cores
from bnnlight.experiment.save_config import provenance


def limited(network: Network, minutes: float, gib: float) -> dict[str, Any]:
    """One network's row, made in a process of its own, which may take so much time and memory."""
    fork = multiprocessing.get_context("fork")  # what is imported is there already
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_child, args=(network, gib, there))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(60 * minutes) else {"error": f"not done after {minutes:g} minutes"}
    except EOFError:
        found = {"error": "its process was ended from outside"}
    process.kill()
    process.join()
    return found


def _child(network: Network, gib: float, answer: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    try:
        answer.send(row(network))
    except MemoryError:
        answer.send({"error": f"does not fit into {gib:g} GiB"})
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = (str(error).strip().splitlines() or [""])[0]
        answer.send({"error": f"{type(error).__name__}: {line} ({Path(where.filename).name}:{where.lineno})"})


def main() -> None:
    """Fills the rows that are missing, and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True, help="path without ending: writes .md and .json")
    parser.add_argument("--timm", action="store_true", help="some fifty networks of timm too, which must be installed")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="these networks, made anew")
    parser.add_argument("--minutes", type=float, default=6, help="time for each network (default: 6)")
    parser.add_argument("--memory", type=float, default=12, help="memory for each network in GiB (default: 12)")
    args = parser.parse_args()
    file = args.output.with_suffix(".json")
    rows: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}
    wanted = {f"{n.kind}/{n.name}": n for n in networks(args.timm)}
    open_ = {key: n for key, n in wanted.items() if (n.name in args.only if args.only else key not in rows)}
    for key, network in track(open_.items(), "networks"):
        found = limited(network, args.minutes, args.memory)
        rows[key] = found | {"commit": provenance()["commit"]}
        record = {"versions": _versions(rows), "machine": f"{_processor()}, {num_cores()} cores", "rows": rows}
        # beside its place first, so that a stop leaves no half file
        half = file.with_suffix(".part")
        half.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(half, file)
        args.output.with_suffix(".md").write_text(report(record))


def _versions(rows: dict[str, Any]) -> dict[str, str]:
    names = ["torch", "torchvision", "openvino", "onnxruntime"]
    names += ["timm"] * any(key.startswith("timm/") for key in rows)
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def _processor() -> str:
    return {"x86_64": "x86", "aarch64": "ARM"}.get(platform.machine(), platform.machine())


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows = record["rows"]
    made = {key: r for key, r in rows.items() if "binary" in r}
    lines = ["# Networks of torchvision and timm, made binary by `convert`", ""]
    lines += [
        "Each network, with random weights, is converted with default options, run before and after on two pictures",
        "of the smallest size that it takes and trains on, trained for one step, frozen, and saved and run in each",
        "format. In rows that give their number, norms have first gathered statistics of 64 more pictures, and at",
        "least a million signs are compared in each format. In the others, made at earlier commits, it is two pictures",
        "each, and some of what they refuse ships by now. Where `convert` refuses layers by paths, its line is quoted,",
        "and what follows is of the network converted with these in `keep`.",
        "*Shapes*: of the outputs, and of every layer's, before and after.",
        "*Step*: loss and gradients, and how many parameters of the binary layers that have a gradient moved (latents,",
        "α, biases; norms whose weights begin at zero, after which nothing has one, are set to one before). Where",
        "fewer moved, gradients are very large (1e23 and more in the two networks that were looked into, behind",
        "batch norms over few pixels), and their squares overflow in the optimizer. *packed*, *openvino*, *onnx*:",
        "every sign, and the output to 1e-3 of its largest value, beside the trained network's.",
        "",
    ]
    lines += _summary(rows, made)
    for kind in dict.fromkeys(key.partition("/")[0] for key in rows):
        lines += ["", f"## {kind.capitalize()}", ""]
        lines += ["| network | px | binary | stays real | shapes | step | packed | openvino | onnx | note |"]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        lines += [_line(key.partition("/")[2], r) for key, r in rows.items() if key.partition("/")[0] == kind]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    commits = ", ".join(sorted({r["commit"] for r in rows.values()}))
    command = "python benchmarks/shipping/convert_zoo.py --output results/convert --timm"
    lines += ["", f"Repeat it: `{command}` ({versions};"]
    lines += [f"commit {commits}; {record['machine']}, one thread). `convert.json` has each line in full.", ""]
    return "\n".join(lines)


def _summary(rows: dict[str, Any], made: dict[str, Any]) -> list[str]:
    refused = [r for r in rows.values() if "refused" in r]
    asked = sum("kept_on_request" in r for r in refused)
    steps = [r["step"] for r in made.values()]
    whole = sum(s["finite"] and s["moved"] == s["with_gradient"] for s in steps)
    as_they_are = len(rows) - len(refused) - sum("error" in r for r in rows.values())
    lines = [
        f"- {len(rows)} networks: {as_they_are} convert as they are; {asked} once the layers that `convert` names are",
        f"  in `keep`; {len(refused) - asked} have no convolution that could be converted.",
        f"- shapes: equal in {sum(r['shapes'] == 'equal' for r in made.values())} of {len(made)}; other modules and",
        f"  parameters are the same objects in {sum(r['kept'] == 'all' for r in made.values())} of {len(made)}.",
        f"- one step: finite, and all parameters of binary layers with a gradient moved, in {whole} of {len(made)}.",
    ]
    for name in FORMATS:
        answers = Counter(_kind_of(_ships(r)[name]) for r in made.values())
        lines.append(f"- {name}: " + ", ".join(f"{number} {answer}" for answer, number in answers.most_common()))
    errors = [f"{key}: {r['error']}" for key, r in rows.items() if "error" in r]
    return lines + [f"- failed: {'; '.join(errors)}"] * bool(errors)


def _ships(r: dict[str, Any]) -> dict[str, str]:
    return dict.fromkeys(FORMATS, r["ships"]) if isinstance(r["ships"], str) else r["ships"]


def _kind_of(answer: str) -> str:
    if answer == "equal" or answer.startswith(("not tried", "DIFFERENT")):
        return answer.split(":")[0].split(" by")[0]
    return "with signs that differ" if "signs differ" in answer else "refused in one line"


_NOTES = {"error": "failed", "refused": "refused"}


def _line(name: str, r: dict[str, Any]) -> str:
    note = "; ".join(f"{what}: {_short(r[key])}" for key, what in _NOTES.items() if key in r)
    if "binary" not in r:
        return f"| {name} | {r.get('px', '')} |" + " |" * 7 + f" {note} |"
    if r["kept"] != "all":
        note = f"LOST {r['kept']}; {note}"
    ships = list(_ships(r).values())
    if "signs" in r:
        note = "; ".join(part for part in (f"{r['signs'] / 1e6:.1f} M signs", note) if part)
    if len(set(ships)) == 1 and _kind_of(ships[0]) != "equal":
        note = "; ".join(part for part in (note, _short(ships[0])) if part)
        ships = ["no" if _kind_of(ships[0]).startswith("refused") else _kind_of(ships[0])] * 3
    step = "{moved} of {with_gradient} moved".format(**r["step"]) + ("" if r["step"]["finite"] else ", NOT FINITE")
    if r["step"].get("px", r["px"]) != r["px"]:
        step += f" at {r['step']['px']} px"
    if silent := r["step"]["parameters"] - r["step"]["with_gradient"]:
        step += f", {silent} without gradient"
    cells = [name, r["px"], r["binary"], reasons(r["real"]), r["shapes"], step, *map(_short, ships), note]
    return f"| {' | '.join(map(str, cells))} |"


def _short(text: str, length: int = 200) -> str:
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= length else f"{text[:length]} …"


if __name__ == "__main__":
    main()
