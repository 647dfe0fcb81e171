"""Pictures of studies: a ratio against a parameter with its crossover, and numbers by label with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchframe.report.charts.ratios import ratio_ticks
from benchframe.report.charts.spec import (
    COLOURS,
    DESCRIPTION,
    INK,
    MUTED,
    WHOSE,
    Chart,
    Look,
    Panel,
    Spec,
    log_ticks,
    quantity,
    short,
    slug,
)
from benchframe.report.table import ns
from benchframe.results.studies import Bars, Curve, Mark, Plot, SavedStudy, Series, Stack

WIDTH, HEIGHT = 440, 260


def study_chart(study: SavedStudy, taken: Sequence[str] = ()) -> Chart | None:
    """The panels of a study; ``taken`` are names of charts that already exist. None if there is nothing to draw."""
    panels: list[Panel] = []
    for curve in study.curves:
        panels.append(Panel(slug(curve.title, [p.key for p in panels]), curve.title, curve_spec(curve)))
    for bars in study.bars:
        if bars.items:
            panels.append(Panel(slug(bars.title, [p.key for p in panels]), bars.title, bars_spec(bars)))
    look = Look(study.strategies)
    for plot in study.plots:
        panels.append(Panel(slug(plot.title, [p.key for p in panels]), plot.title, plot_spec(plot, look)))
    for stack in study.stacks:
        panels.append(Panel(slug(stack.title, [p.key for p in panels]), stack.title, stack_spec(stack)))
    if not panels:
        return None
    name = slug(" ".join([study.kind, *study.strategies]), taken)
    return Chart(
        name,
        study.title,
        study.note,
        tuple(panels),
        (),
        study.strategies,
        columns=2,
        legend=bool(study.plots),
        short=study.title,
    )


def curve_spec(curve: Curve) -> Spec:
    """The ratio with its interval, the line at 1, and each crossing with its own interval as a strip."""
    records = [_point(curve, mark) for mark in curve.points]
    # With few rounds an interval may be far longer than the range of the ratios: it is cut where the axis ends.
    ratios = [r["ratio"] for r in records]
    low = max(min(1.0, *(r["low"] for r in records)) / 1.03, min(1.0, *ratios) / 2)
    high = min(max(1.0, *(r["high"] for r in records)) * 1.03, max(1.0, *ratios) * 2)
    records = [{**r, "low": max(r["low"], low), "high": min(r["high"], high)} for r in records]
    scale = {"type": "log", "nice": False, "domain": [low, high]}
    kind = {"type": "log" if curve.log else "linear", "nice": False, "zero": False, "padding": 10}
    x = quantity("x", short(curve.x_title), scale=kind)
    x["axis"] = {"grid": False}
    if curve.log:
        ends = [r["x"] for r in records]
        x["axis"] |= {"values": log_ticks(min(ends), max(ends)), "format": ",~g"}
    y = quantity("ratio", short(curve.y_title), scale=scale)
    y["axis"] = {"format": "~g", "values": ratio_ticks(low, high, 24 / HEIGHT)}
    crossed = [{"x": c.value, "left": c.low, "right": c.high} for c in curve.crossings]
    rule = {"type": "rule", "strokeDash": [4, 3], "color": MUTED, "aria": False}
    text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -4, "color": INK, "x": 0}
    point = {"type": "point", "filled": True, "size": 45, "color": COLOURS[1], "opacity": 1}
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": records},
        "layer": [
            {"data": {"values": crossed},
             "mark": {"type": "rect", "color": COLOURS[3], "opacity": 0.18, "aria": False},
             "encoding": {"x": quantity("left", short(curve.x_title), scale=kind), "x2": {"field": "right"}}},
            {"data": {"values": crossed},
             "mark": {"type": "rule", "color": COLOURS[3], "strokeWidth": 1.6, "aria": False}, "encoding": {"x": x}},
            {"data": {"values": [{"ratio": 1.0}]}, "mark": rule, "encoding": {"y": y}},
            {"mark": {"type": "line", "color": COLOURS[1], "strokeWidth": 1.6, "aria": False},
             "encoding": {"x": x, "y": y}},
            {"mark": {"type": "rule", "color": COLOURS[1], "strokeWidth": 1.4, "aria": False},
             "encoding": {"x": x, "y": quantity("low", short(curve.y_title), scale=scale), "y2": {"field": "high"}}},
            {"mark": point, "encoding": {"x": x, "y": y, "description": DESCRIPTION}},
            {"data": {"values": [{"text": short(curve.below), "ratio": low}]}, "mark": text,
             "encoding": {"y": y, "text": {"field": "text"}}},
        ],
    }  # fmt: skip


def _point(curve: Curve, mark: Mark) -> dict[str, Any]:
    at = f"{curve.x_title} {mark.x:.3g}"
    says = f"{at}: {curve.y_title} {mark.value:.3f} [{mark.low:.3f}, {mark.high:.3f}]"
    return {"x": mark.x, "ratio": mark.value, "low": mark.low, "high": mark.high, "says": says}


def bars_spec(bars: Bars) -> Spec:
    """A bar from zero per label, in their order, with its interval where it has one."""
    labels: list[str] = []
    for mark in bars.items:
        labels.append(short(mark.label, labels))
    records = [_bar(bars, mark, label) for mark, label in zip(bars.items, labels, strict=True)]
    y = {"field": "label", "type": "nominal", "sort": [r["label"] for r in records], "title": None}
    x = quantity("value", short(bars.axis), axis={"tickCount": 6})
    more = COLOURS[2] if min(mark.value for mark in bars.items) < 0 else COLOURS[1]
    colour = {"condition": {"test": "datum.value < 0", "value": COLOURS[1]}, "value": more}
    known = [record for record in records if record["low"] < record["high"]]
    return {
        "width": 340,
        "height": {"step": 20},
        "data": {"values": records},
        "layer": [
            {"mark": {"type": "bar", "height": 11},
             "encoding": {"y": y, "x": x, "color": colour, "description": DESCRIPTION}},
            {"data": {"values": known}, "mark": {"type": "rule", "strokeWidth": 1.4, "color": INK, "aria": False},
             "encoding": {"y": y, "x": quantity("low", short(bars.axis)), "x2": {"field": "high"}}},
        ],
    }  # fmt: skip


def _bar(bars: Bars, mark: Mark, label: str) -> dict[str, Any]:
    text = _signed(mark.value)
    if mark.low < mark.high:
        text += f" [{_signed(mark.low)}, {_signed(mark.high)}]"
    return {"label": label, "value": mark.value, "low": mark.low, "high": mark.high,
            "says": f"{mark.label}: {text} {bars.axis}"}  # fmt: skip


def _of_series(plot: Plot, one: Series, mark: Mark) -> dict[str, Any]:
    says = f"{one.label}: {mark.value:.3g} [{mark.low:.3g}, {mark.high:.3g}] {plot.y_title}, {mark.x:g} {plot.x_title}"
    place = {"strategy": short(one.label), "x": mark.x}
    return {**place, "value": mark.value, "low": mark.low, "high": mark.high, "says": says}


MANY = 4
"""From so many lines on their shaded bands would hide each other."""


def plot_spec(plot: Plot, look: Look) -> Spec:
    """A line per strategy with its band as a shaded area, and the ideal line, dashed. The bands of MANY lines are bars,
    beside each other: each line is moved a little to the left or right."""
    records = [_of_series(plot, one, mark) for one in plot.series for mark in one.points]
    ends = sorted({record["x"] for record in records} | {mark.x for mark in plot.ideal})
    if many := len(plot.series) >= MANY:
        labels = [short(one.label) for one in plot.series]
        for record in records:
            record["x"] *= 2 ** (0.5 * (labels.index(record["strategy"]) / (len(labels) - 1) - 0.5))
    low = min(record["low"] for record in records) / 1.1
    high = max(record["high"] for record in records) * 1.5
    # The ideal line leaves the picture where it is far above all results.
    ideal = [{"x": mark.x, "value": mark.value} for mark in plot.ideal]
    x = quantity("x", short(plot.x_title), scale={"type": "log", "base": 2, "nice": False, "padding": 12})
    x["axis"] = {"values": ends, "format": "d", "grid": False}
    scale = {"type": "log", "nice": False, "domain": [low, high], "clamp": False}

    def y(field: str) -> Spec:
        return {
            **quantity(field, short(plot.y_title), scale=scale),
            "axis": {"values": log_ticks(low, high), "format": "~g"},
        }

    dashed = {"type": "line", "color": MUTED, "strokeDash": [5, 4], "strokeWidth": 1.2, "clip": True, "aria": False}
    wide = [record for record in records if record["low"] < record["high"]]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": records},
        "encoding": {"x": x, "color": look.colour()},
        "layer": [
            {"data": {"values": ideal},
             "mark": dashed,
             "encoding": {"y": y("value"), "color": {"value": MUTED}}},
            {"data": {"values": wide},
             "mark": {"type": "rule", "opacity": 0.6, "strokeWidth": 1.5, "aria": False} if many
             else {"type": "area", "opacity": 0.15, "aria": False},
             "encoding": {"y": y("low"), "y2": {"field": "high"}, "description": WHOSE}},
            {"mark": {"type": "line", "strokeWidth": 1.5},
             "encoding": {"y": y("value"), "strokeDash": look.dash(), "description": WHOSE}},
            {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
             "encoding": {"y": y("value"), "shape": look.shape(), "description": DESCRIPTION}},
        ],
    }  # fmt: skip


def stack_spec(stack: Stack) -> Spec:
    """Bars of coloured parts, in the order of the study."""
    parts = list(dict.fromkeys(part for _, pairs in stack.bars for part, _ in pairs))
    records = [
        {"label": label, "part": part, "value": value, "order": parts.index(part),
         "says": f"{label}: {part} {ns(value)} {stack.axis}"}
        for label, pairs in stack.bars for part, value in pairs
    ]  # fmt: skip
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(parts))]
    colour = {
        "field": "part", "type": "nominal", "scale": {"domain": parts, "range": colours},
        "legend": {"title": None, "orient": "right"},
    }  # fmt: skip
    x: Spec = {"field": "label", "type": "nominal", "sort": [label for label, _ in stack.bars], "title": None}
    x["axis"] = {"labelAngle": 0}
    y = {**quantity("value", short(stack.axis)), "stack": "zero"}
    order = {"field": "order", "type": "quantitative"}
    return {
        "width": {"step": 44},
        "height": 220,
        "data": {"values": records},
        "mark": {"type": "bar"},
        "encoding": {"x": x, "y": y, "color": colour, "order": order, "description": DESCRIPTION},
    }  # fmt: skip


def _signed(value: float) -> str:
    return ("-" if math.copysign(1, value) < 0 else "") + ns(abs(value))
