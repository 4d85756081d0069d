"""The acceptance's record as a page."""

from __future__ import annotations

from typing import Any


def page(record: dict[str, Any]) -> str:
    """Markdown: a table of what was asked and found, then each part's figures."""
    small = " Tiny networks and few steps: the figures say that it runs, and nothing else." if record["small"] else ""
    lines = [
        "# The first minutes on a GPU",
        "",
        f"{record['device']}, {record['machine']}, torch {record['torch']}, CUDA {record['cuda']}, commit "
        f"{record['commit']}; `python benchmarks/gpu/acceptance.py`.{small}",
        "",
        "| part | what | seconds | outcome |",
        "|---|---|---|---|",
    ]
    for name, part in record["parts"].items():
        missed = sum(not row["ok"] for row in part.get("checks", ()))
        outcome = part.get("failed") or (f"{missed} of its checks missed" if missed else "done")
        lines.append(f"| {name} | {part.get('title', '')} | {part.get('seconds', 0)} | {_cell(outcome)} |")
    checks = [row for part in record["parts"].values() for row in part.get("checks", ())]
    if checks:
        lines += ["", "| check | asked | found | |", "|---|---|---|---|"]
        for row in checks:
            cells = [row["name"], row["asked"], _cell(row["found"]), "" if row["ok"] else "**missed**"]
            lines.append(f"| {' | '.join(cells)} |")
    for name, part in record["parts"].items():
        lines += ["", f"## {name}", "", *_figures(part.get("figures", {}))]
    return "\n".join(lines) + "\n"


def _figures(figures: dict[str, Any]) -> list[str]:
    rows = {key: value for key, value in figures.items() if isinstance(value, dict)}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"- {key}: {_cell(value)}" for key, value in figures.items() if key not in rows]
    if rows:
        lines += [""] * bool(lines)
        lines += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {key} | {' | '.join(_cell(row.get(c, '')) for c in columns)} |" for key, row in rows.items()]
    return lines or ["No figures."]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        value = ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
