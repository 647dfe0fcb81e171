"""Workload x strategy as a heat map of ratios, one per figure: where a strategy wins, at a glance."""

from __future__ import annotations

import bisect
from typing import Any

from benchframe.report.charts.spec import DESCRIPTION, DIVERGING, INK, PAPER, Chart, Data, Panel, Spec, says, short
from benchframe.report.table import short_text, short_times
from benchframe.results.figures import FIGURES

STEPS = (0.4, 0.6, 0.8, 0.95, 1.05, 1.25, 1.67, 2.5)
"""The ratios at which the colour changes: symmetric around 1 on a logarithmic scale, so that the middle means within 5
%."""


def heat_chart(data: Data) -> Chart | None:
    """A panel per figure; None if there is nothing to compare."""
    panels = []
    for name, head in FIGURES.items():
        records = _records(data, name)
        if records:
            panels.append(Panel(name, f"{head}, ratio to the baseline", _spec(data, records)))
    if not panels:
        return None
    return Chart(
        "heat",
        "Where each strategy wins",
        "Blue is faster than the baseline, orange slower, grey within 5 %; ~ undecided, = the same within the smallest "
        "effect of interest. "
        "The colours change at "
        + ", ".join(f"{step:g}" for step in STEPS)
        + ". An empty place was not measured, or failed.",
        tuple(panels),
        tuple(data.workloads),
        tuple(data.strategies),
        columns=1,
        short="Heat map",
    )


def level(ratio: float) -> int:
    """The index of the colour for ``ratio`` in DIVERGING.

    >>> level(0.3), level(1.0), level(3.0)
    (0, 4, 8)
    """
    return bisect.bisect_right(STEPS, ratio)


def _records(data: Data, name: str) -> list[dict[str, Any]]:
    records = []
    labels: dict[str, str] = {}
    for workload in data.workloads:
        labels[workload] = short(workload, labels.values())
    for row in data.rows:
        figure = row.figures.get(name)
        if figure is None or figure.ratio is None:
            continue
        ratio, place = figure.ratio, level(figure.ratio.value)
        records.append(
            {
                "workload": labels[row.cell.entry.workload],
                "strategy": row.cell.entry.strategy,
                "fill": DIVERGING[place],
                "ink": PAPER if place in (0, 1, 8) else INK,
                "text": short_text(figure) or short_times(ratio.value),
                "says": f"{says(row, name)}; on {row.cell.entry.workload}",
            }
        )
    return records


def _spec(data: Data, records: list[dict[str, Any]]) -> Spec:
    there = list(dict.fromkeys(record["workload"] for record in records))
    strategies = [s for s in data.look.order if any(record["strategy"] == s for record in records)]
    x_axis = {"labelAngle": -40, "orient": "top", "domain": False, "ticks": False, "labelLimit": 210}
    return {
        "data": {"values": records},
        "width": {"step": 44},
        "height": {"step": 22},
        "encoding": {
            "x": {"field": "workload", "type": "nominal", "sort": there, "title": None, "axis": x_axis},
            "y": {"field": "strategy", "type": "nominal", "sort": strategies, "title": None,
                  "axis": {"domain": False, "ticks": False}},
        },
        "layer": [
            {"mark": {"type": "rect", "stroke": PAPER, "strokeWidth": 1.5},
             "encoding": {"fill": {"field": "fill", "type": "nominal", "scale": None}, "description": DESCRIPTION}},
            {"mark": {"type": "text", "fontSize": 11, "aria": False},
             "encoding": {"text": {"field": "text"}, "color": {"field": "ink", "type": "nominal", "scale": None}}},
        ],
    }  # fmt: skip
