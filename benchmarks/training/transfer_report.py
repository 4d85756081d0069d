"""Page and picture of `transfer.py`."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnnlight.experiment.machine import machine

GOAL = 3.0
"""Steps from scratch over steps of the transfer, at equal accuracy."""
COMMAND = "python benchmarks/training/transfer.py --start CHECKPOINT …"
NAMES = {"scratch": "from scratch", "transfer": "from Leeds Sports Pose"}
COLORS = {"scratch": "#c2571a", "transfer": "#14375e"}
Run = dict[str, Any]
Curve = dict[int, dict[int, float]]
"""Steps → seed → PCKh@0.5."""


def curves(runs: list[Run]) -> dict[str, Curve]:
    """The curve of each start, steps in rising order."""
    found: dict[str, Curve] = {name: defaultdict(dict) for name in NAMES}
    for run in runs:
        if run["part"] == "curve":
            found[run["start"]][run["steps"]][run["seed"]] = run["pckh"]
    return {name: dict(sorted(curve.items())) for name, curve in found.items()}


def steps_to(accuracy: float, points: list[tuple[int, float]]) -> tuple[float, str]:
    """Steps at which a curve first has an accuracy, straight between its points over log(steps).

    Args:
        accuracy: looked for.
        points: steps and accuracy, steps in rising order.

    Returns:
        The steps, and "" where the curve passes the accuracy; the end of the curve and "<" or ">" where it does not.
    """
    if points[0][1] >= accuracy:
        return points[0][0], "" if points[0][1] == accuracy else "<"
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 >= accuracy:
            share = (accuracy - y0) / (y1 - y0)
            return float(np.exp(np.log(x0) + share * (np.log(x1) - np.log(x0)))), ""
    return points[-1][0], ">"


def compare(found: dict[str, Curve]) -> list[dict[str, Any]]:
    """For each length of the transfer: what it reaches, and how many steps from scratch reach the same.

    ``ratio`` is of the means over the seeds that both have; ``by_seed`` of each seed's own curves.
    """
    rows = []
    for steps, by_seed in found["transfer"].items():
        seeds = [seed for seed in by_seed if any(seed in other for other in found["scratch"].values())]
        if not seeds:
            continue
        accuracy = statistics.mean(by_seed[seed] for seed in seeds)
        mean = [
            (length, statistics.mean(of_seed[seed] for seed in seeds))
            for length, of_seed in found["scratch"].items()
            if all(seed in of_seed for seed in seeds)
        ]
        own = {}
        for seed in seeds:
            points = [(length, of_seed[seed]) for length, of_seed in found["scratch"].items() if seed in of_seed]
            needed, sign = steps_to(by_seed[seed], points)
            own[seed] = {"ratio": needed / steps, "sign": sign}
        row = {"steps": steps, "pckh": accuracy, "seeds": seeds, "by_seed": own}
        if mean:
            needed, sign = steps_to(accuracy, mean)
            row |= {"scratch_steps": needed, "sign": sign, "ratio": needed / steps}
        rows.append(row)
    return rows


def verdict(row: dict[str, Any]) -> str:
    """Whether a row keeps the goal."""
    if "ratio" not in row:
        return ""
    if row["sign"] == ">":
        return "yes" if row["ratio"] >= GOAL else "not known"
    return "yes" if row["ratio"] >= GOAL and not row["sign"] else "**no**"


def outcome(rows: list[dict[str, Any]]) -> str:
    """A sentence: whether the goal is kept, and by how much it is missed."""
    known = [row for row in rows if "ratio" in row and not row["sign"]]
    if not known:
        return "No length can be compared: the runs from scratch do not reach its accuracy, or start above it."
    low, high = (pick(row["ratio"] for row in known) for pick in (min, max))
    saved = f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f} to {high:.1f}"
    kept = [row for row in known if row["ratio"] >= GOAL]
    if len(kept) == len(known):
        return f"The goal is kept: a start from scratch takes {saved} times the steps."
    where = "missed" if not kept else f"kept at {len(kept)} of {len(known)} lengths"
    return f"The goal is {where}: a start from scratch takes {saved} times the steps; the goal was {GOAL:g}."


def report(runs: list[Run], output: Path, settings: dict[str, Any]) -> None:
    """Writes OUTPUT.json, OUTPUT.md and OUTPUT.png."""
    found = curves(runs)
    rows = compare(found)
    record = {
        "command": COMMAND,
        "commits": sorted({run["commit"] for run in runs}),
        "machine": machine(),
        **settings,
        "goal": GOAL,
        "curves": found,
        "comparison": rows,
        "runs": runs,
    }
    output.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    output.with_suffix(".md").write_text(page(record, output.name))
    draw(found, output.with_suffix(".png"))


def page(record: dict[str, Any], name: str) -> str:
    """The record as Markdown."""
    lines = ["# Transfer to another skeleton", "", INTRODUCTION, "", f"![PCKh against steps]({name}.png)", ""]
    lines += ["| start | steps | PCKh@0.5, % | by seed |", "|---|---|---|---|"]
    for start, curve in record["curves"].items():
        for steps, by_seed in curve.items():
            each = ", ".join(f"{seed}: {100 * value:.1f}" for seed, value in sorted(by_seed.items()))
            lines.append(f"| {NAMES[start]} | {steps:,} | {_spread(list(by_seed.values()))} | {each} |")
    lines += ["", "At equal accuracy, goal: at least three times the steps from scratch.", ""]
    lines += ["| steps of the transfer | PCKh@0.5, % | steps from scratch | times | by seed | goal kept |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in record["comparison"]:
        each = ", ".join(f"{seed}: {own['sign']}{own['ratio']:.1f}" for seed, own in row["by_seed"].items())
        cells = [f"{row['steps']:,}", f"{100 * row['pckh']:.1f}"]
        known = "ratio" in row
        cells += [f"{row['sign']}{row['scratch_steps']:,.0f}" if known else ""]
        cells += [f"{row['sign']}{row['ratio']:.1f}" if known else "", each, verdict(row)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        outcome(record["comparison"]),
        "",
        "Search, PCKh@0.5 on held-out people of another data set, in %:",
        "",
    ]
    lines += ["| start | epochs | rate | PCKh@0.5 |", "|---|---|---|---|"]
    for run in record["runs"]:
        if run["part"] == "search":
            lines.append(f"| {NAMES[run['start']]} | {run['epochs']} | {run['lr']:g} | {100 * run['pckh']:.1f} |")
    minutes = sum(run["seconds"] for run in record["runs"]) / 60
    commits = ", ".join(commit[:10] + ("+" if commit.endswith("+") else "") for commit in record["commits"])
    begun = f" with {record['start']}" if "start" in record else ""
    lines += [
        "",
        f"Command: `{record['command']}`{begun}, commit {commits}, {record['machine']}, {record['threads']} thread, "
        f"torch {record['torch']}; {len(record['runs'])} runs, {minutes:.0f} minutes beside other work. "
        f"[{name}.runs.jsonl]({name}.runs.jsonl) has a line for each run.",
        "",
    ]
    return "\n".join(lines)


INTRODUCTION = (
    "How many steps does a start from a trained network with other joints save? A small binary hourglass (64 features, "
    "depth 2, 64×64 px, dense latents, learned α) learns the 16 joints of drawn people from 2,000 pictures, batches of "
    '16, with SOAP. "From Leeds Sports Pose" is `bnnlight.nn.start_from` with `leave_out: ["heads.*"]`, from networks '
    "that were trained for 2,965 steps on photos with 14 joints, one for each seed; those steps are not counted here. "
    "The network `lsp` that comes with the package has signs and thresholds alone, and no weights to go on with; so "
    "others were trained in the form of its config. "
    "Each point is a run of its own, with a schedule of that length and the best rate of the search below. "
    "The mean over seeds and its 95 % interval (Student's t) stand in the tables. "
    "PCKh@0.5 of all joints on 1,000 people that no run has seen."
)


def _spread(values: list[float]) -> str:
    mean = 100 * statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f} (one seed)"
    from scipy.stats import t

    half = 100 * t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.1f} ± {half:.1f}"


def draw(found: dict[str, Curve], path: Path) -> None:
    """Seeds as points, their mean as a line; one line a start."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    lengths = set()
    for start, curve in found.items():
        for steps, by_seed in curve.items():
            axes.plot([steps] * len(by_seed), [100 * v for v in by_seed.values()], "o", color=COLORS[start], alpha=0.4)
        means = [100 * statistics.mean(by_seed.values()) for by_seed in curve.values()]
        axes.plot(list(curve), means, "-", color=COLORS[start], linewidth=2, label=NAMES[start])
        lengths |= set(curve)
    axes.set_xscale("log")
    axes.set_xticks(sorted(lengths), [f"{steps:,}" for steps in sorted(lengths)])
    axes.minorticks_off()
    axes.set_xlabel("optimizer steps, each point a run with a schedule of its own")
    axes.set_ylabel("PCKh@0.5 on unseen people, %")
    axes.set_title("16 joints on 2,000 drawn people: a small binary hourglass")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
