"""ns per lookup beside the hit rate: a high hit rate is not a benefit in itself, so the chart shows both."""

from __future__ import annotations

from typing import Any

from benchframe.report.charts.spec import (
    DESCRIPTION,
    GRID,
    MUTED,
    WHOSE,
    Chart,
    Data,
    Spec,
    interval,
    log_ticks,
    panels,
    percent,
    quantity,
    says,
)


def lookup_chart(data: Data) -> Chart | None:
    """A panel per workload; None if there are no lookups."""
    made = panels({label: _spec(data, records) for label in data.single if (records := _records(data, label))})
    if not made:
        return None
    return Chart(
        "lookup",
        "Time per lookup, and hit rate beside it",
        "Mean of process means and its 95 % interval; fastest first. A cache that hits often is faster only if a hit "
        "saves more than every miss costs. No number: the strategy has no cache. The axis is logarithmic where one "
        "strategy takes many times as long as another; an interval is cut where the axis ends.",
        made,
        tuple(data.single),
        tuple(data.strategies),
        short="Lookups",
    )


def _records(data: Data, label: str) -> list[dict[str, Any]]:
    records = []
    for row in data.of(label):
        figure = row.figures.get("lookup")
        if figure is None:
            continue
        low, high = interval(figure)
        counts = row.cell.state.counts
        rate = counts.get("hit_rate")
        text = says(row, "lookup")
        record = {"strategy": row.cell.entry.strategy, "mean": figure.summary.mean, "low": low, "high": high}
        if rate is not None and row.cell.entry.strategy in data.cached:
            text += f"; hit rate {percent(rate)}"
            record |= {"rate": 100 * rate, "percent": f"{100 * rate:.0f}"}
        records.append({**record, "says": text})
    return sorted(records, key=lambda record: record["mean"])


WIDE = 8
"""If the slowest takes this many times as long as the fastest, the axis is logarithmic: one list must not compress all
trees into a corner."""


def _spec(data: Data, records: list[dict[str, Any]]) -> Spec:
    order = [record["strategy"] for record in records]
    y = {"field": "strategy", "type": "nominal", "sort": order, "title": None}
    quiet = {**y, "axis": {"labels": False, "ticks": False, "domainColor": GRID}}
    low, high, title = 0.0, records[-1]["mean"] * 1.2, "ns per lookup"
    scale: Spec = {"zero": True, "domain": [0, high], "nice": False}
    axis: Spec = {"tickCount": 4}
    if records[-1]["mean"] > WIDE * records[0]["mean"]:
        low, high, title = records[0]["mean"] / 1.5, records[-1]["mean"] * 1.5, "ns per lookup (log)"
        scale = {"type": "log", "domain": [low, high], "nice": False}
        axis = {"values": log_ticks(low, high, 5), "format": ",~g"}
    # With few processes an interval may be far longer than the range of the means: it is cut where the axis ends.
    records = [{**r, "low": min(max(r["low"], low), r["mean"]), "high": min(r["high"], high)} for r in records]
    x = quantity("mean", title, scale=scale, axis=axis)
    times: Spec = {
        "width": 150,
        "height": {"step": 17},
        "encoding": {"y": y, "color": data.look.colour()},
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "description": WHOSE}},
            {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
             "encoding": {"x": x, "shape": data.look.shape(), "description": DESCRIPTION}},
        ],
    }  # fmt: skip
    rates: Spec = {
        "width": 70,
        "height": {"step": 17},
        "transform": [{"filter": "isValid(datum.rate)"}],
        "encoding": {
            "y": {**quiet, "scale": {"domain": order}},
            "x": quantity("rate", "hit rate, %", scale={"domain": [0, 100]}, axis={"values": [0, 50, 100]}),
        },
        "layer": [
            {"mark": {"type": "bar", "height": 8, "opacity": 0.85},
             "encoding": {"color": data.look.colour(), "description": DESCRIPTION}},
            {"mark": {"type": "text", "align": "left", "dx": 3, "fontSize": 9, "color": MUTED},
             "encoding": {"text": {"field": "percent"}, "description": WHOSE}},
        ],
    }  # fmt: skip
    return {"data": {"values": records}, "hconcat": [times, rates], "spacing": 18}
