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
    Chart,
    Panel,
    Spec,
    log_ticks,
    quantity,
    short,
    slug,
)
from benchframe.report.table import ns
from benchframe.results.studies import Bars, Curve, Mark, SavedStudy

WIDTH, HEIGHT = 440, 260


def study_chart(study: SavedStudy, taken: Sequence[str] = ()) -> Chart | None:
    """The panels of a study; ``taken`` are names of charts that exist already. None if there is nothing to draw."""
    panels: list[Panel] = []
    for curve in study.curves:
        panels.append(Panel(slug(curve.title, [p.key for p in panels]), curve.title, curve_spec(curve)))
    for bars in study.bars:
        if bars.items:
            panels.append(Panel(slug(bars.title, [p.key for p in panels]), bars.title, bars_spec(bars)))
    if not panels:
        return None
    name = slug(" ".join([study.kind, *study.strategies]), taken)
    return Chart(name, study.title, study.note, tuple(panels), (), study.strategies, columns=2, short=study.title)


def curve_spec(curve: Curve) -> Spec:
    """The ratio with its interval, the line at 1, and each crossing with its own interval as a strip."""
    records = [_point(curve, mark) for mark in curve.points]
    # An interval of few rounds may be many times as long as all that is known: it is cut at the axis' ends.
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


def _signed(value: float) -> str:
    return ("-" if math.copysign(1, value) < 0 else "") + ns(abs(value))
