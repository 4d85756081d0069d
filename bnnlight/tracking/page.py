"""The page of `bnnlight compare`: one HTML file that needs no other."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

import plotly.io
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from bnnlight.tracking.compare import Column, columns, labels
from bnnlight.tracking.figures import Section, all_sections
from bnnlight.tracking.page_template import PAGE
from bnnlight.tracking.panels import Panel, colors_of
from bnnlight.tracking.runs import Run

_MOST_OPEN = 6
"""Of panels that are each of one run, so many are open; more are a list from which one opens those one wants."""
_LONG = 40
"""Characters of a setting beyond which the rest is shown under the mouse."""


def as_page(runs: Sequence[Run], problems: Sequence[str]) -> str:
    """A table to sort, and every figure that there are data for.

    Args:
        runs: to compare, each with figures.
        problems: what could not be read or has no figures, one line each.
    """
    names = labels(runs)
    told = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
    parts = [f'<ul class="problems">{told}</ul>' if problems else "", _table(runs, names)]
    parts += [_section(section, names) for section in all_sections(runs, names)]
    return PAGE.substitute(
        title=f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}",
        plotly=get_plotlyjs(),
        template=_as_json(plotly.io.templates["plotly_white"].to_plotly_json()),
        body="\n".join(parts),
    )


def _table(runs: Sequence[Run], names: Sequence[str]) -> str:
    shown = columns(runs)
    head = '<th scope="col">run</th>' + "".join(
        f'<th scope="col"{_folded(column)} title="{html.escape(column.key)}">{html.escape(column.name)}</th>'
        for column in shown
    )
    rows = []
    for number, (run, name, color) in enumerate(zip(runs, names, colors_of(len(runs)), strict=True)):
        starts = f' <small title="times it was started">×{run.num_starts}</small>' if run.num_starts > 1 else ""
        cells = [
            f'<th scope="row" data-sort="{html.escape(json.dumps(name))}" title="{html.escape(run.source)}">'
            f"{_switch(number, name, color)}{starts}</th>"
        ]
        for column in shown:
            value, text = column.values[number], column.texts[number]
            short, title = (text, "") if len(text) <= _LONG else (f"{text[:_LONG]}…", f' title="{html.escape(text)}"')
            sort = html.escape(_as_json("" if value is None else value))
            cells.append(f'<td{_folded(column)}{title} data-sort="{sort}">{html.escape(short)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    num_folded = sum(column.is_folded for column in shown)
    columns_word = "column" if num_folded == 1 else "columns"
    more = (
        f'<button id="more" aria-expanded="false">Show {num_folded} more {columns_word}</button>' if num_folded else ""
    )
    buttons = '<button id="all">All curves</button><button id="none">No curves</button>' if len(runs) > 1 else ""
    return (
        f'<p class="buttons">{buttons}{more}</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _folded(column: Column) -> str:
    return ' class="folded"' if column.is_folded else ""


def _switch(number: int, name: str, color: str) -> str:
    """A run's name with its colour, which shows its curves and takes them away."""
    box = f'<input type="checkbox" checked data-run="{number}" style="accent-color: {color}">'
    return f'<label class="run">{box}<span>{html.escape(name)}</span></label>'


def _section(section: Section, names: Sequence[str]) -> str:
    drawn = sorted({trace.meta for panel in section.panels if panel.run is None for trace in panel.figure.data})
    colors = colors_of(len(names))
    legend = "".join(_switch(number, names[number], colors[number]) for number in drawn)
    of_runs = sum(panel.run is not None for panel in section.panels)
    panels = "".join(_panel(panel, is_open=of_runs <= _MOST_OPEN) for panel in section.panels)
    return (
        f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>"
        f'<div class="legend">{legend}</div><div class="panels">{panels}</div></section>'
    )


def _panel(panel: Panel, is_open: bool) -> str:
    content = panel.figure.to_plotly_json()
    content["layout"].pop("template", None)  # the page has one for all
    plot = (
        f'<div class="plot" style="height: {content["layout"]["height"]}px">'
        f'<script type="application/json">{_as_json(content)}</script></div>'
    )
    title = html.escape(panel.title)
    if panel.run is None:
        return f'<div class="panel"><h3>{title}</h3>{plot}</div>'
    state = " open" if is_open else ""
    return f'<details class="panel" data-of="{panel.run}"{state}><summary>{title}</summary>{plot}</details>'


def _as_json(content: object) -> str:
    """JSON that may stand in a script of HTML: no tag in it begins or ends anything."""
    return json.dumps(content, cls=PlotlyJSONEncoder, separators=(",", ":")).replace("<", "\\u003c")
