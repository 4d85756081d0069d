"""`bnnlight bench`: times a shipped model beside its real-valued twin, in float32 and on 8-bit integers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bnnlight.console.parser import Parser
from bnnlight.console.tables import print_whole
from bnnlight.deploy import Runtime
from bnnlight.deploy.formats.workers import num_cores
from bnnlight.deploy.proof.twin import OPENVINO, TWINS, int8_twin
from bnnlight.experiment.machine import machine

Network = Callable[[np.ndarray], np.ndarray]

PAUSE_S = 0.02
"""Before each run."""
ROWS = {"model": "model", "twin": "twin, float32", "twin_int8": "twin, int8"}
"""Name in the record → name in the table."""


def bench(args: list[str]) -> None:
    """Time a shipped model beside its real-valued twin, in float32 and on 8-bit integers, all in the same minute.

    The twin has ordinary convolutions in place of the binary ones, and nothing in place of signs. In float32 the
    model's own engine runs it (torch for packed models, where it is installed), on 8-bit integers OpenVINO.
    """
    parser = Parser(
        prog="bnnlight bench",
        description=bench.__doc__,
        epilog="example: bnnlight bench --model RUN/export/openvino --num_threads 1",
    )
    parser.add_argument("--model", required=True, help="folder or file of bnnlight export, or hf://OWNER/NAME")
    text = "CPU threads, one number or several (default: 1 and all)"
    parser.add_argument("--num_threads", type=int, nargs="+", metavar="N", help=text)
    parser.add_argument("--batch_size", type=int, default=1, help="pictures in a batch (default: 1)")
    parser.add_argument("--num_pairs", type=int, default=50, help="runs of each of the three, in turn (default: 50)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(args)
    threads = options.num_threads or sorted({1, num_cores()})
    least = {"num_threads": min(threads), "batch_size": options.batch_size, "num_pairs": options.num_pairs}
    for name, value in least.items():
        if value < 1:
            raise ValueError(f"--{name} is {value}: give at least 1")
    results = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for count in threads:
            model = Runtime(options.model, count)
            if model.format not in TWINS:
                raise ValueError(
                    f"{model.file}: a {model.format} model is for other tools, so timing it here says nothing: "
                    f"give one of the formats {', '.join(TWINS)}"
                )
            twin, twin_int8 = TWINS[model.format](model.file, count), int8_twin(model.file, model.format, count)
            images = np.random.default_rng(0).normal(size=(options.batch_size, *model.input_shape)).astype(np.float32)
            task = progress.add_task(f"{count} thread{'s' if count > 1 else ''}", total=options.num_pairs)
            advance = partial(progress.advance, task)
            times = in_turn(dict(zip(ROWS, (model, twin, twin_int8), strict=True)), images, options.num_pairs, advance)
            results.append({"num_threads": count, **compared(times, options.batch_size)})
    files = [model.file, *([model.file.with_suffix(".bin")] if model.format == "openvino" else [])]
    record = {
        "model": str(model.file),
        "format": model.format,
        "network": model.manifest.network,
        "input_shape": model.input_shape,
        "batch_size": options.batch_size,
        "num_pairs": options.num_pairs,
        "machine": machine(),
        "file_bytes": sum(file.stat().st_size for file in files),
        "twin_engine": twin.engine,
        "twin_bytes": twin.num_bytes,
        "twin_int8_bytes": twin_int8.num_bytes,
        "threads": results,
    }
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        _print(record)


def in_turn(
    networks: Mapping[str, Network], images: np.ndarray, num_runs: int, after: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each run of some networks that take turns, so that a slow moment of the machine hits all alike.

    Args:
        networks: name → what is timed.
        images: ``(N, C, H, W)`` that each is given.
        num_runs: of each; a few more come first and are not counted.
        after: called after each round.
    """
    for network in networks.values():
        for _ in range(3):
            network(images)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(num_runs):
        for name, network in networks.items():
            # threads of the one before wait actively for a while, and would take the cores from this one
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            network(images)
            times[name].append(time.perf_counter() - start)
        after()
    return times


def compared(times: Mapping[str, list[float]], batch_size: int) -> dict[str, Any]:
    """Medians and tenths in ms, pictures per second, and the median of the pairs' ratios to the model's time.

    Args:
        times: seconds of ``model`` and of what took turns with it.
        batch_size: pictures in a run.
    """
    figures: dict[str, Any] = {}
    for name, seconds in times.items():
        low, middle, high = np.quantile(seconds, (0.1, 0.5, 0.9))
        figures[name] = {
            "median_ms": 1e3 * middle,
            "tenth_ms": 1e3 * low,
            "ninetieth_ms": 1e3 * high,
            "pictures_per_s": batch_size / middle,
        }
    for name in [name for name in times if name != "model"]:
        figures[f"{name}_over_model"] = float(np.median(np.array(times[name]) / np.array(times["model"])))
    return figures


def _print(record: dict[str, Any]) -> None:
    size = "×".join(map(str, record["input_shape"]))
    title = f"{record['network']}, {record['format']}: {record['batch_size']} picture(s) of {size}, {record['machine']}"
    table = Table(title=title, title_justify="left")
    for name in ("threads", "", "median ms", "10 % to 90 %", "pictures/s", "× model", "MB"):
        table.add_column(name, justify="left" if not name else "right")
    sizes = dict(zip(ROWS, (record["file_bytes"], record["twin_bytes"], record["twin_int8_bytes"]), strict=True))
    for row in record["threads"]:
        for name, label in ROWS.items():
            t = row[name]
            ratio = "" if name == "model" else f"{row[f'{name}_over_model']:.2f}"
            spread = f"{t['tenth_ms']:.2f} to {t['ninetieth_ms']:.2f}"
            numbers = (f"{t['median_ms']:.2f}", spread, f"{t['pictures_per_s']:.1f}", ratio, f"{sizes[name] / 1e6:.2f}")
            table.add_row(str(row["num_threads"]) if name == "model" else "", label, *numbers)
    print_whole(table)
    engine = record["twin_engine"]
    other = "" if engine == OPENVINO else " by OpenVINO, which may be quicker for that reason alone"
    print(f"The twin is a real network of the same layers, run by {engine}, and on 8-bit integers{other}.")
