"""Ratios to the baseline with their intervals: three figures per strategy, on a logarithmic axis."""

from __future__ import annotations

from typing import Any

from benchframe.charts.data import Data, says
from benchframe.charts.spec import (
    DESCRIPTION,
    FIGURE_COLOURS,
    MUTED,
    WHOSE,
    Chart,
    Panel,
    Spec,
    log_ticks,
    quantity,
    slug,
)
from benchframe.results.figures import FIGURES


def ratios_chart(data: Data) -> Chart | None:
    """A panel per workload; None if only baselines ran. 2x faster and 2x slower are equally far from the line at 1."""
    panels: list[Panel] = []
    for label in data.single:
        records = _records(data, label)
        if records:
            panels.append(Panel(slug(label, [p.key for p in panels]), label, _spec(data, records)))
    if not panels:
        return None
    return Chart(
        "ratios",
        "Ratio to the baseline",
        "Left of the line is faster. Geometric mean of ratios paired by round, with its 95 % interval: an interval "
        "that reaches the line decides nothing.",
        tuple(panels),
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


def _spec(data: Data, records: list[dict[str, Any]]) -> Spec:
    figures = [head for head in FIGURES.values() if any(record["figure"] == head for record in records)]
    low = min(0.9, *(record["low"] for record in records)) * 0.95
    high = max(1.1, *(record["high"] for record in records)) * 1.05
    ticks = [tick for tick in log_ticks(low, high, 7) if tick]
    if len(ticks) < 3:
        ticks = [tick for tick in (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0) if low <= tick <= high]
    scale = {"type": "log", "domain": [low, high], "nice": False}
    colour = {name: FIGURE_COLOURS[key] for key, name in FIGURES.items()}
    axis = {"values": ticks, "format": "~g"}
    title = "ratio (log); left is faster"
    return {
        "data": {"values": records},
        "width": 210,
        "height": {"step": 8},
        "encoding": {
            "y": {"field": "strategy", "type": "nominal", "sort": data.look.order, "title": None},
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
