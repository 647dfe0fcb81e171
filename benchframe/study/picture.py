"""Pictures of studies, as charts of the report's kind: SVG and PNG without a browser."""

from __future__ import annotations

from typing import Any

from benchframe.charts.spec import COLOURS, INK, MUTED, Chart, Panel, Spec, log_ticks, quantity, slug
from benchframe.study.breakeven import Breakeven

WIDTH, HEIGHT = 460, 260


def breakeven_chart(studies: list[Breakeven]) -> Chart:
    """A panel per sweep: the ratio B / A against the parameter with its interval, and the crossover with its own."""
    a, b = studies[0].a, studies[0].b
    panels: list[Panel] = []
    for study in studies:
        panels.append(Panel(slug(study.sweep.over, [p.key for p in panels]), study.sweep.over, _panel(study)))
    return Chart(
        slug(f"breakeven-{a}-{b}"),
        f"Where {b} beats {a}",
        "Below 1 the second strategy is faster. Bars are 95 % intervals of the ratio, the strip that of the crossover.",
        tuple(panels),
        tuple(place.spec for study in studies for place in study.places),
        (a, b),
        columns=2,
    )


def _panel(study: Breakeven) -> Spec:
    places: list[dict[str, Any]] = [
        {"x": p.x, "ratio": p.ratio.value, "low": p.ratio.low, "high": p.ratio.high} for p in study.places
    ]
    low = min(1.0, *(p["low"] for p in places)) / 1.03
    high = max(1.0, *(p["high"] for p in places)) * 1.03
    scale = {"type": "log", "nice": False, "domain": [low, high]}
    title = study.sweep.title.format(b=study.b)
    kind = {"type": study.sweep.scale, "nice": False, "zero": False, "padding": 10}
    x = quantity("x", title, scale=kind)
    x["axis"] = {"grid": False}
    if study.sweep.scale == "log":
        x["axis"] |= {"values": log_ticks(places[0]["x"], places[-1]["x"]), "format": ",~g"}
    y = quantity("ratio", f"{study.b} / {study.a}, {study.sweep.figure}", scale=scale)
    y["axis"] = {"format": ".2f", "tickCount": 6}
    crossed = [{"x": c.x, "left": c.low, "right": c.high} for c in study.crossovers]
    layers: list[Spec] = [
        {
            "data": {"values": crossed},
            "mark": {"type": "rect", "color": COLOURS[3], "opacity": 0.18},
            "encoding": {"x": quantity("left", title, scale=kind), "x2": {"field": "right"}},
        },
        {
            "data": {"values": crossed},
            "mark": {"type": "rule", "color": COLOURS[3], "strokeWidth": 1.6},
            "encoding": {"x": x},
        },
        {
            "data": {"values": [{"ratio": 1.0}]},
            "mark": {"type": "rule", "strokeDash": [4, 3], "color": MUTED},
            "encoding": {"y": y},
        },
        {
            "data": {"values": places},
            "mark": {"type": "line", "color": COLOURS[1], "strokeWidth": 1.6},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": places},
            "mark": {"type": "rule", "color": COLOURS[1], "strokeWidth": 1.4},
            "encoding": {"x": x, "y": quantity("low", None, scale=scale), "y2": {"field": "high"}},
        },
        {
            "data": {"values": places},
            "mark": {"type": "point", "filled": True, "size": 40, "color": COLOURS[1], "opacity": 1},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": [{"says": f"{study.b} faster", "ratio": low}]},
            "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -4, "color": INK, "x": 0},
            "encoding": {"y": y, "text": {"field": "says"}},
        },
    ]
    return {"width": WIDTH, "height": HEIGHT, "layer": layers}
