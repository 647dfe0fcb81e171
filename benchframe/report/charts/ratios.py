"""Ratios to the baseline with their intervals: three figures per strategy, on a logarithmic axis."""

from __future__ import annotations

import math
from typing import Any

from benchframe.report.charts.spec import (
    DESCRIPTION,
    FIGURE_COLOURS,
    MUTED,
    WHOSE,
    Chart,
    Data,
    Spec,
    panels,
    quantity,
    says,
)
from benchframe.results.figures import FIGURES


def ratios_chart(data: Data) -> Chart | None:
    """A panel per workload; None if only baselines ran. 2x faster and 2x slower are equally far from the line at 1."""
    made = panels({label: _spec(data, records) for label in data.single if (records := _records(data, label))})
    if not made:
        return None
    return Chart(
        "ratios",
        "Ratio to the baseline",
        "Left of the line is faster. Geometric mean of ratios paired by round, with its 95 % interval: an interval "
        "that reaches the line is undecided; one that reaches the end of the axis is cut there.",
        made,
        tuple(data.single),
        tuple(data.strategies),
        short="Ratios",
    )


def _records(data: Data, label: str) -> list[dict[str, Any]]:
    records = []
    for row in data.of(label):
        for name in FIGURES:
            figure = row.figures.get(name)
            if figure is None or figure.ratio is None:
                continue
            ratio = figure.ratio
            known = ratio.n > 1
            records.append(
                {
                    "strategy": row.cell.entry.strategy,
                    "figure": FIGURES[name],
                    "ratio": ratio.value,
                    "low": max(ratio.low, ratio.value / 30) if known else ratio.value,
                    "high": min(ratio.high, ratio.value * 30) if known else ratio.value,
                    "says": says(row, name),
                }
            )
    return records


_TICKS = (1, 0.5, 2, 0.2, 5, 0.1, 10, 100, 1000, 0.01, 1.5, 0.7, 3, 0.3, 1.2, 0.8, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98)
"""Candidate ticks for an axis of ratios, the preferred ones first."""


def ratio_ticks(low: float, high: float, gap: float) -> list[float]:
    """Ticks from ``low`` to ``high`` on a logarithmic axis, no two nearer than ``gap`` of its length.

    >>> ratio_ticks(0.4, 3, 0.12), ratio_ticks(0.93, 1.06, 0.12)
    ([0.5, 0.7, 1, 1.5, 2, 3], [0.95, 0.98, 1, 1.02, 1.05])
    """
    chosen: list[float] = []
    span = math.log(high / low)
    for tick in _TICKS:
        if low <= tick <= high and all(abs(math.log(tick / other)) / span >= gap for other in chosen):
            chosen.append(tick)
    return sorted(chosen)


def _spec(data: Data, records: list[dict[str, Any]]) -> Spec:
    figures = [head for head in FIGURES.values() if any(record["figure"] == head for record in records)]
    # With few rounds an interval may be far longer than the range of the ratios: it is cut where the axis ends.
    ratios = [record["ratio"] for record in records]
    low = max(min(0.9, *(record["low"] for record in records)) * 0.95, min(1.0, *ratios) / 2)
    high = min(max(1.1, *(record["high"] for record in records)) * 1.05, max(1.0, *ratios) * 2)
    records = [{**r, "low": max(r["low"], low), "high": min(r["high"], high)} for r in records]
    ticks = ratio_ticks(low, high, 28 / 210)
    scale = {"type": "log", "domain": [low, high], "nice": False}
    colour = {name: FIGURE_COLOURS[key] for key, name in FIGURES.items()}
    axis = {"values": ticks, "format": "~g"}
    title = "ratio (log); left is faster"
    return {
        "data": {"values": records},
        "width": 210,
        "height": {"step": 7 if len(figures) > 1 else 12},
        "encoding": {
            "y": {"field": "strategy", "type": "nominal", "sort": data.look.order, "title": None,
                  "scale": {"paddingInner": 0.4, "paddingOuter": 0.2}},
            "yOffset": {"field": "figure", "type": "nominal", "sort": figures},
            "color": {
                "field": "figure",
                "type": "nominal",
                "scale": {"domain": figures, "range": [colour[name] for name in figures]},
                "legend": {"title": None, "orient": "bottom", "direction": "horizontal", "symbolSize": 50},
            },
        },
        "layer": [
            {"data": {"values": [{"one": 1}]}, "mark": {"type": "rule", "strokeDash": [4, 3], "aria": False},
             "encoding": {"x": quantity("one", title, scale=scale), "color": {"value": MUTED}, "y": {}, "yOffset": {}}},
            {"mark": {"type": "rule", "strokeWidth": 1.5},
             "encoding": {"x": quantity("low", title, scale=scale, axis=axis), "x2": {"field": "high"},
                          "description": WHOSE}},
            {"mark": {"type": "point", "filled": True, "size": 32, "opacity": 1},
             "encoding": {"x": quantity("ratio", title, scale=scale, axis=axis), "description": DESCRIPTION}},
        ],
    }  # fmt: skip
