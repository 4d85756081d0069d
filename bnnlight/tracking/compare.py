"""Puts runs side by side: as plain numbers, and as a page of HTML."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from typing import Any

from plotly.io import to_html
from plotly.offline import get_plotlyjs

from bnnlight.tracking.figures import all_figures
from bnnlight.tracking.runs import Run, differences


def as_record(runs: Sequence[Run], unreadable: Sequence[str]) -> dict[str, Any]:
    """All that the page shows, as plain numbers.

    Returns:
        ``runs``: for each its ``name``, ``source``, ``id``, ``starts``, ``config`` (where the runs differ),
        ``results``, ``series`` (key → ``steps``, ``values``) and ``problems``; ``config_differences``: the keys;
        ``unreadable``: a line for each source that could not be read. Figures that are not finite are null.
    """
    keys = differences(runs)
    return {
        "config_differences": keys,
        "runs": [
            {
                "name": run.name,
                "source": run.source,
                "id": run.run_id,
                "starts": run.num_starts,
                "config": {key: run.config.get(key) for key in keys},
                "results": {key: _finite(value) for key, value in run.results.items()},
                "series": {
                    key: {"steps": list(values), "values": [_finite(value) for value in values.values()]}
                    for key, values in run.series.items()
                },
                "problems": run.problems,
            }
            for run in runs
        ],
        "unreadable": list(unreadable),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_page(runs: Sequence[Run], unreadable: Sequence[str]) -> str:
    """One HTML file that needs no other: a table to sort, and every figure that there are data for."""
    names = labels(runs)
    problems = [*unreadable, *(problem for run in runs for problem in run.problems)]
    warning = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
    parts = [f'<ul class="problems">{warning}</ul>' if problems else "", _table(runs, names)]
    for title, explanation, figure in all_figures(runs, names):
        drawn = to_html(figure, include_plotlyjs=False, full_html=False, config={"displaylogo": False})
        parts.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(explanation)}</p>{drawn}")
    return _PAGE.format(title=f"{len(runs)} runs", plotly=get_plotlyjs(), body="\n".join(parts))


def labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names, numbered where several have the same."""
    names = [run.name for run in runs]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _table(runs: Sequence[Run], names: Sequence[str]) -> str:
    keys = differences(runs)
    short = _short_keys(keys)
    results = list(dict.fromkeys(key for run in runs for key in run.results if "_" not in key.split("/")[-1]))
    # results of the test first: they are what a comparison is about
    results.sort(key=lambda key: (not key.startswith("test/"), not key.startswith("best"), "loss" in key))
    head = ["run", *(short[key] for key in keys), *results]
    titles = ["", *keys, *results]
    rows = []
    for run, name in zip(runs, names, strict=True):
        starts = f' <small title="times it was started">×{run.num_starts}</small>' if run.num_starts > 1 else ""
        cells = [f'<td data-sort="{html.escape(name)}">{html.escape(name)}{starts}</td>']
        cells += [_cell(run.config.get(key, ""), _setting(key, run.config.get(key, ""))) for key in keys]
        cells += [_cell(run.results.get(key, ""), _result(key, run.results.get(key))) for key in results]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    header = "".join(f'<th title="{html.escape(t)}">{html.escape(h)}</th>' for h, t in zip(head, titles, strict=True))
    return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any, text: str) -> str:
    return f'<td data-sort="{html.escape(json.dumps(value, default=str))}">{html.escape(text)}</td>'


def _setting(key: str, value: Any) -> str:
    """A class by its own name, without the module's."""
    return str(value).rsplit(".", 1)[-1] if key.endswith("class_path") else str(value)


def _result(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key.endswith("time/processor"):
        return f"{value:.0f} s"
    return f"{100 * value:.2f} %" if "/acc" in key or "/pck" in key else f"{value:.4f}"


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """As few of a key's last parts as tell it from the others, without the words every config has."""
    parts = {key: [part for part in key.split(".") if part not in ("init_args", "class_path")] or [key] for key in keys}
    short = {}
    for key in keys:
        for count in range(1, len(parts[key]) + 1):
            short[key] = ".".join(parts[key][-count:])
            if sum(".".join(other[-count:]) == short[key] for other in parts.values()) == 1:
                break
    return short


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<script>{plotly}</script>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }}
h2 {{ margin: 2.2rem 0 .2rem; }} h2 + p {{ margin: 0 0 .4rem; color: #555; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }}
th, td {{ padding: .35rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ cursor: pointer; user-select: none; border-bottom: 2px solid #888; }}
th[data-order="1"]::after {{ content: " ▲"; }} th[data-order="-1"]::after {{ content: " ▼"; }}
tbody tr:hover {{ background: #f3f6fa; }} small {{ color: #777; }}
.problems {{ background: #fff4e0; border: 1px solid #e0b060; padding: .6rem 1rem .6rem 2rem; }}
</style></head><body>
<h1>{title}</h1>
<p>A click on a column sorts by it. Curves can be zoomed, and taken away by a click on their name.</p>
{body}
<script>
const key = cell => {{ try {{ return JSON.parse(cell.dataset.sort) }} catch {{ return cell.dataset.sort }} }};
document.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {{
  const order = head.dataset.order === "1" ? -1 : 1;
  document.querySelectorAll("th").forEach(other => delete other.dataset.order);
  head.dataset.order = order;
  const body = document.querySelector("tbody");
  [...body.rows].sort((a, b) => {{
    const [x, y] = [key(a.cells[column]), key(b.cells[column])];
    if (x === "" || y === "") return (x === "") - (y === "");
    const numbers = typeof x === "number" && typeof y === "number";
    return order * (numbers ? x - y : String(x).localeCompare(String(y), undefined, {{numeric: true}}));
  }}).forEach(row => body.append(row));
}}));
</script></body></html>
"""
