"""One `Runtime` called by several threads and with batches of many sizes: wrong answers, throughput, memory.

python benchmarks/shipping/runtime_threads.py --output results/runtime_threads
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from bnnlight.deploy import Runtime
from bnnlight.deploy.runtime import find_model

TOY = "toy"
"""A random network whose calls take a fraction of a millisecond."""
ROUNDS = 3
BATCH = 32
FEW_SIZES, MANY_SIZES = 5, 500
GOAL_SPEED, GOAL_MEMORY = 1.7, 1.3


def pictures(runtime: Runtime, count: int) -> np.ndarray:
    """``(count, C, H, W)`` of noise."""
    return np.random.default_rng(0).standard_normal((count, *runtime.input_shape), dtype=np.float32)


def called(runtime: Runtime, num_threads: int, num_calls: int) -> dict[str, Any]:
    """Calls with one picture each by threads that begin together: how many went wrong, and how many a second."""
    images = pictures(runtime, 2 * num_threads)
    wanted = [runtime(image[None]) for image in images]
    together = Barrier(num_threads + 1)

    def work(index: int) -> tuple[int, int]:
        wrong = errors = 0
        together.wait()
        for call in range(num_calls):
            which = (index + call) % len(images)
            try:
                wrong += not np.array_equal(runtime(images[which : which + 1]), wanted[which])
            except Exception:
                errors += 1
        return wrong, errors

    with ThreadPoolExecutor(num_threads) as threads:
        done = [threads.submit(work, index) for index in range(num_threads)]
        together.wait()
        start, cpu = time.perf_counter(), time.process_time()
        found = [one.result() for one in done]
        seconds = time.perf_counter() - start
    wrong, errors = (sum(one) for one in zip(*found, strict=True))
    cores = (time.process_time() - cpu) / seconds
    return {"wrong": wrong, "errors": errors, "calls_per_s": num_threads * num_calls / seconds, "cores": cores}


def measured(model: str, form: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One model in one format."""
    runtime = Runtime(folder)
    # one thread and several in turn, each taken at its best: what else runs on the machine takes its share of both
    rounds = [(called(runtime, 1, args.calls), called(runtime, args.threads, args.calls)) for _ in range(ROUNDS)]
    one, several = (max(each, key=lambda found: found["calls_per_s"]) for each in zip(*rounds, strict=True))
    batch, times = pictures(runtime, BATCH), []
    alone = np.concatenate([runtime(image[None]) for image in batch])
    for _ in range(10):
        start = time.perf_counter()
        together = runtime(batch)
        times.append(time.perf_counter() - start)
    return {
        "model": model,
        "format": form,
        "calls": args.threads * args.calls * ROUNDS,
        "wrong": sum(found["wrong"] for pair in rounds for found in pair),
        "errors": sum(found["errors"] for pair in rounds for found in pair),
        "one_per_s": one["calls_per_s"],
        "several_per_s": several["calls_per_s"],
        "ratio": several["calls_per_s"] / one["calls_per_s"],
        "cores_of_one": one["cores"],
        "cores_of_several": several["cores"],
        "ratio_per_core": several["calls_per_s"] / several["cores"] / (one["calls_per_s"] / one["cores"]),
        "batch_per_s": BATCH / min(times),
        "equal_in_batch": bool(np.array_equal(together, alone)),
    }


def resident_bytes() -> int:
    """Memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(folder: Path) -> dict[str, int]:
    """Resident bytes after a few and after many sizes of batches; in a process of its own."""
    runtime = Runtime(folder)
    images = pictures(runtime, MANY_SIZES)
    found = {}
    for size in range(1, MANY_SIZES + 1):
        runtime(images[:size])
        if size in (FEW_SIZES, MANY_SIZES):
            found["few_bytes" if size == FEW_SIZES else "many_bytes"] = resident_bytes()
    return found


def toy() -> tuple[Any, Any]:
    """The program and manifest of a network that computes in a fraction of a millisecond."""
    import torch
    from torch import nn

    from bnnlight.deploy.freezing.freeze import freeze
    from bnnlight.deploy.manifest import Manifest, PictureInput
    from bnnlight.nn import BinaryConv2d

    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), BinaryConv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 33 * 33, 5)
    manifest = Manifest("classification", "toy", PictureInput(3, 33, (0.5,) * 3, (0.25,) * 3, 33), tuple("abcde"))
    return freeze(nn.Sequential(*layers).eval(), (3, 33, 33)), manifest


def main() -> None:
    """Measures every format, prints JSON, and writes a table where asked; exit code 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", default=[TOY, "cifar10", "lsp"], help="packed models, or toy")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--calls", type=int, default=2000, help="of each thread")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory(args.memory)))
        return
    # late: where memory is measured, nothing else is to be there
    from bnnlight.deploy.formats.onnx import save_onnx
    from bnnlight.deploy.formats.openvino import save_openvino
    from bnnlight.deploy.formats.packed import load_packed, save_packed
    from bnnlight.experiment.machine import machine
    from bnnlight.experiment.save_config import provenance

    start, results, sizes = time.time(), [], []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as room:
        for model in args.models:
            program, manifest = toy() if model == TOY else load_packed(find_model(Path(model)))
            for form, save in {"openvino": save_openvino, "onnx": save_onnx, "packed": save_packed}.items():
                folder = Path(room) / f"{Path(model).name}-{form}"
                folder.mkdir()
                save(program, manifest, folder)
                results.append(measured(model, form, folder, args))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
                command = [sys.executable, __file__, "--memory", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                sizes.append({"model": model, "format": form, **json.loads(done.stdout)})
                print(json.dumps(sizes[-1]), file=sys.stderr, flush=True)
    record = {**provenance(), "machine": machine(), "load": load, "seconds": round(time.time() - start)}
    record |= {"threads": args.threads, "results": results, "memory": sizes}
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    sys.exit(any(r["wrong"] or r["errors"] or not r["equal_in_batch"] for r in results))


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# One `Runtime`, many threads",
        "",
        f"Calls with one picture each, by one thread and by {record['threads']}, with the default number of threads. "
        f"Throughput is the best of {ROUNDS} rounds taken in turn; the goal is {GOAL_SPEED} times one thread's. Cores "
        "are CPU seconds a second: what this process got of the machine; the ratio per core is that of calls in a CPU "
        "second, 1.00 where threads do not hinder each other at all. A wrong answer is one that differs in a bit "
        f"from what the picture got alone. Batches hold {BATCH} pictures.",
        "",
        "| model | format | calls | wrong | errors | one thread, calls/s | several | ratio | cores, one "
        "| cores, several | ratio per core | in batches, pictures/s | equal in a batch |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in record["results"]:
        cells = (r["model"], r["format"], f"{r['calls']:,}", r["wrong"], r["errors"], f"{r['one_per_s']:,.0f}")
        cells += (f"{r['several_per_s']:,.0f}", f"**{r['ratio']:.2f}**", f"{r['cores_of_one']:.2f}")
        cells += (f"{r['cores_of_several']:.2f}", f"{r['ratio_per_core']:.2f}", f"{r['batch_per_s']:,.0f}")
        cells += ("yes" if r["equal_in_batch"] else "no",)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        f"Resident memory after {FEW_SIZES} sizes of batches (1 to {FEW_SIZES}) and after {MANY_SIZES} (1 to "
        f"{MANY_SIZES}); the goal is at most {GOAL_MEMORY} times.",
        "",
        "| model | format | after few, MB | after many, MB | ratio |",
        "|---|---|---|---|---|",
    ]
    for m in record["memory"]:
        few, many = m["few_bytes"] / 1e6, m["many_bytes"] / 1e6
        lines.append(f"| {m['model']} | {m['format']} | {few:.0f} | {many:.0f} | **{many / few:.2f}** |")
    command = f"python benchmarks/shipping/{record['command']}"
    commit, load = record["commit"], record["load"]
    if load > 1:
        lines += ["", "**Other work took its share of the cores: the ratio per core tells, the ratio does not.**"]
    lines += ["", f"Command: `{command}`, commit {commit}, {record['machine']}, load {load:.1f} when it began.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
