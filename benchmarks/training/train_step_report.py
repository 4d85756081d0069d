"""Time and memory of training steps as a page."""

from __future__ import annotations

from typing import Any

INTRODUCTION = (
    "Random pictures, single precision, cross entropy, AdamW in one fused call unless a row names another optimizer; "
    "steps taken in turn in one process, "
    "medians. Ratios are to the real network in the memory format in which it is quicker, of time round by round, with "
    "quartiles in brackets. Saved: distinct storages that the forward pass leaves behind for the backward pass, less "
    "parameters, buffers and batch. Peak: resident memory of a process that takes a step of this row alone, the "
    "optimizer's state being there, less what it had after its imports. Floor: multiply-adds of the step over the "
    "rates that the machine reached in this run. Optimizer: its state. Slowest: the longest of 50 steps over the real "
    "network's median. MB are 10⁶ bytes. A limit that is not kept is bold."
)
HEAD = (
    "| network | ms | times real | limit | floor, ms | saved, MB | times real | limit | peak, MB | optimizer, MB "
    "| slowest | limit |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def report(record: dict[str, Any]) -> str:
    """The record of `train_step.py` as Markdown."""
    lines = ["# A training step's time and memory", "", INTRODUCTION]
    for result in record["results"]:
        lines += ["", f"## {result['setting']['name']}", "", *HEAD]
        lines += [_line(name, row) for name, row in result["rows"].items()]
        lines += ["", _notes(result)]
    flags = ", ".join(record["cpu_flags"])
    threads = f"{record['num_threads']} thread{'s' if record['num_threads'] > 1 else ''}"
    lines += [
        "",
        f"Command: `python benchmarks/training/{record['command']}`, "
        f"commit {record['commit']}, {record['machine']} ({flags}), {threads}, torch "
        f"{record['torch']}, {record['seconds']} s.",
        "",
    ]
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any]) -> str:
    low, high = row["ratio_quartiles"]
    limits = row["limits"]
    cells = [
        name,
        f"{row['median_ms']:.0f}",
        f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        _limit(row["ratio"], limits.get("time")),
        f"{row['floor_ms']:.0f}",
        f"{row['saved']['all'] / 1e6:.1f}",
        f"{row['saved_ratio']:.2f}",
        _limit(row["saved_ratio"], limits.get("saved")),
        f"{row['peak_bytes'] / 1e6:.0f}",
        f"{row['optimizer_bytes'] / 1e6:.0f}" if "optimizer_bytes" in row else "",
        f"{row['slowest']:.2f}" if "slowest" in row else "",
        _limit(row.get("slowest", 0.0), limits.get("slowest")),
    ]
    return f"| {' | '.join(cells)} |"


def _limit(figure: float, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"{limit:.2f}" if figure <= limit else f"**{limit:.2f}**"


def _notes(result: dict[str, Any]) -> str:
    rates = result["rates"]
    imported = max(row["imported_bytes"] for row in result["rows"].values())
    text = (
        f"Baseline: {result['baseline']}; {result['setting']['num_rounds']} rounds. Rates in 10⁹ multiply-adds a "
        f"second: real convolution {rates['forward'] / 1e9:.0f} forward, {rates['backward'] / 1e9:.0f} backward; int8 "
        f"product {rates['integer'] / 1e9:.0f}; real product {rates['product'] / 1e9:.0f}. Resident after the "
        f"imports: at most {imported / 1e6:.0f} MB."
    )
    if allocator := result["real_step_s_by_allocator"]:
        told = [
            f"{row} {1e3 * kept:.0f} ms, else {1e3 * allocator['as it comes'][row]:.0f} ms"
            for row, kept in allocator["kept"].items()
        ]
        text += f" Where the C library keeps freed memory, as everywhere above: {'; '.join(told)}."
    if peer := result.get("peer"):
        text += f" bnn {peer['bnn']} with torch {peer['torch']}, in a process of its own, in turn with the others."
    return text
