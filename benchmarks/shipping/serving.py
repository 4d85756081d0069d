"""Throughput of the service of docs/service.py: JPEG pictures by HTTP on loopback, answers as JSON.

The service is a process of its own; a client asks by one connection and by several at a time, in turn, each of which
the service gives a thread. Beside it the same pictures by `Runtime.predict` called by as many threads, without HTTP.
On a machine with few cores the client takes its share of them.

python benchmarks/shipping/serving.py --output results/serving
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SERVICE = Path(__file__).parents[2] / "docs/service.py"
RESNET = "ResNet-18"
"""A random one of 224×224."""
ROUNDS = 5


def picture(side: int) -> bytes:
    """A JPEG of ``side`` × ``side`` pixels with smooth colours and some noise."""
    rng = np.random.default_rng(0)
    tiny = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    small = tiny.resize((side, side), Image.Resampling.BICUBIC)
    noisy = np.asarray(small, np.int16) + rng.integers(-12, 13, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def asked(port: int, jpeg: bytes, num_connections: int, seconds: float) -> tuple[float, list[float], set[bytes]]:
    """Requests a second over some connections at a time; how long each took; the answers that there were."""
    end = time.perf_counter() + seconds

    def client(_: int) -> tuple[list[float], set[bytes]]:
        connection, times, answers = http.client.HTTPConnection("127.0.0.1", port), [], set()
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/", jpeg)
            reply = connection.getresponse()
            answers.add(str(reply.status).encode() + reply.read())
            times.append(time.perf_counter() - start)
        connection.close()
        return times, answers

    with ThreadPoolExecutor(num_connections) as threads:
        found = list(threads.map(client, range(num_connections)))
    times = [one for each, _ in found for one in each]
    return len(times) / seconds, times, set().union(*(answers for _, answers in found))


def without_http(model: str, jpeg: bytes, num_threads: int, seconds: float) -> float:
    """Pictures a second by `Runtime.predict` called by some threads, the decoding of JPEG included."""
    from bnnlight.deploy import Runtime

    runtime = Runtime(model)
    runtime.predict([Image.open(io.BytesIO(jpeg))])
    end = time.perf_counter() + seconds

    def work(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            runtime.predict([Image.open(io.BytesIO(jpeg))])
            count += 1
        return count

    with ThreadPoolExecutor(num_threads) as threads:
        return sum(threads.map(work, range(num_threads))) / seconds


def measured(name: str, model: str, side: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one model, one for each number of connections."""
    jpeg = picture(side)
    command = [sys.executable, str(SERVICE), model, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            line = service.stdout.readline()
            if "listening" not in line:
                raise SystemExit(f"{SERVICE} did not start: {line}")
            port = int(line.rsplit(":", 1)[1].strip().strip("/"))
            expected = asked(port, jpeg, 1, 0.5)[2]
            rounds = [{n: asked(port, jpeg, n, args.seconds) for n in args.connections} for _ in range(ROUNDS)]
        finally:
            service.terminate()
    alone = {n: max(without_http(model, jpeg, n, args.seconds) for _ in range(2)) for n in args.connections}
    rows = []
    for count in args.connections:
        times = np.concatenate([found[count][1] for found in rounds])
        answers = set().union(*(found[count][2] for found in rounds))
        rates = [found[count][0] for found in rounds]
        rows.append(
            {
                "model": name,
                "jpeg_side_px": side,
                "jpeg_bytes": len(jpeg),
                "connections": count,
                "requests": len(times),
                "wrong": len(answers - expected) + (len(expected) != 1 or not next(iter(expected)).startswith(b"200")),
                "per_s": float(np.median(rates)),
                "least_per_s": min(rates),
                "most_per_s": max(rates),
                "median_ms": 1e3 * float(np.median(times)),
                "ninetieth_ms": 1e3 * float(np.quantile(times, 0.9)),
                "predict_per_s": alone[count],
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def resnet18(folder: Path) -> None:
    """Writes a random ResNet-18 as an OpenVINO file."""
    import torch

    from bnnlight.backbones import ResNet18
    from bnnlight.deploy.formats.openvino import save_openvino
    from bnnlight.deploy.freezing.freeze import freeze
    from bnnlight.deploy.manifest import Manifest, PictureInput

    torch.manual_seed(0)
    taken = PictureInput(3, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256)
    manifest = Manifest("classification", RESNET, taken, tuple(f"class{i}" for i in range(1000)))
    save_openvino(freeze(ResNet18().eval(), (3, 224, 224)), manifest, folder)


def openvino(name: str, folder: Path) -> None:
    """Writes a shipped model as an OpenVINO file."""
    from bnnlight.deploy.formats.openvino import save_openvino
    from bnnlight.deploy.formats.packed import load_packed
    from bnnlight.deploy.runtime import find_model

    save_openvino(*load_packed(find_model(Path(name))), folder)


def main() -> None:
    """Measures each model, prints JSON, and writes a table where asked; exit code 1 where an answer differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", default=["cifar10", "lsp", RESNET], help=f"shipped models, or {RESNET}")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 2], help="at a time")
    parser.add_argument("--seconds", type=float, default=2, help=f"of each of the {ROUNDS} rounds")
    parser.add_argument("--output", type=Path, help="path without ending: writes .md and .json")
    args = parser.parse_args()
    from bnnlight.experiment.machine import machine
    from bnnlight.experiment.save_config import provenance

    load, start, rows = os.getloadavg()[0], time.time(), []
    with tempfile.TemporaryDirectory() as room:
        for name in args.models:
            folder = Path(room) / name
            folder.mkdir()
            if name == RESNET:
                resnet18(folder)
            else:
                openvino(name, folder)
            rows += measured(name, str(folder), 320 if name == RESNET else 128, args)
    record = {**provenance(), "machine": machine(), "load": load, "seconds": round(time.time() - start), "rows": rows}
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(report(record))
    sys.exit(any(row["wrong"] for row in rows))


def report(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "# The service of docs/service.py",
        "",
        "JPEG pictures by HTTP on loopback, one to a request, over connections that are kept; OpenVINO files. The "
        "service is one process with a thread for each connection. Requests a second: median of "
        f"{ROUNDS} rounds taken in turn, with the least and the most; the client runs on the same cores and takes its "
        "share. The last column is `Runtime.predict` called by as many threads in one process, without HTTP, decoding "
        "included.",
        "",
        "| model | JPEG | connections | requests | other answers | requests/s | least to most | median ms | 90 % ms "
        "| predict, pictures/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in record["rows"]:
        cells = (r["model"], f"{r['jpeg_side_px']}×{r['jpeg_side_px']}, {r['jpeg_bytes']:,} bytes", r["connections"])
        cells += (f"{r['requests']:,}", r["wrong"], f"**{r['per_s']:.0f}**")
        cells += (f"{r['least_per_s']:.0f} to {r['most_per_s']:.0f}",)
        cells += (f"{r['median_ms']:.1f}", f"{r['ninetieth_ms']:.1f}", f"{r['predict_per_s']:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    command = f"python benchmarks/shipping/{record['command']}"
    lines += ["", f"Command: `{command}`, commit {record['commit']}, {record['machine']}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
