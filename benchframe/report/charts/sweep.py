"""ns per lookup against the number of VMAs, on logarithmic axes: how an index grows."""

from __future__ import annotations

import math
from typing import Any

from benchframe.report.charts.spec import (
    DESCRIPTION,
    WHOSE,
    Chart,
    Data,
    Family,
    Panel,
    Spec,
    interval,
    log_ticks,
    quantity,
    says,
    slug,
)

WIDTH, HEIGHT = 640, 380


def sweep_chart(data: Data) -> Chart | None:
    """A panel per family of workloads that differ only in ``vmas=``; None if no family has three sizes."""
    panels: list[Panel] = []
    for family in data.families:
        records = _records(data, family)
        if records:
            panels.append(Panel(slug(family.name, [p.key for p in panels]), family.name, _spec(data, family, records)))
    if not panels:
        return None
    return Chart(
        "sweep",
        "Time per lookup against the number of VMAs",
        "Both axes are logarithmic. A list is a straight line of slope 1 (linear), a tree a concave curve "
        "(each doubling adds the same time). A steep rise shows where the structure outgrows a cache of the processor. "
        "Bars are 95 % intervals.",
        tuple(panels),
        tuple(label for family in data.families for label in family.labels),
        tuple(data.strategies),
        columns=1,
        short="VMA count",
    )


def _records(data: Data, family: Family) -> list[dict[str, Any]]:
    """A record per strategy and size; of several numbers of events the largest."""
    records: list[dict[str, Any]] = []
    for vmas, labels in family.sizes.items():
        seen: set[str] = set()
        for row in (row for label in labels for row in data.of(label)):
            if "lookup" in row.figures and row.cell.entry.strategy not in seen:
                seen.add(row.cell.entry.strategy)
                low, high = interval(row.figures["lookup"])
                record = {"strategy": row.cell.entry.strategy, "vmas": vmas, "low": low, "high": high}
                record |= {"mean": row.figures["lookup"].summary.mean, "says": f"{says(row, 'lookup')}; {vmas:,} VMAs"}
                records.append(record)
    return records


def _spec(data: Data, family: Family, records: list[dict[str, Any]]) -> Spec:
    low = min(record["low"] for record in records) / 1.25
    high = max(record["high"] for record in records) * 1.25
    scale = {"type": "log", "nice": False, "domain": [low, high]}
    x = quantity("vmas", "VMAs", scale={"type": "log", "nice": False, "padding": 12})
    x["axis"] = {"values": list(family.sizes), "format": ",", "grid": False}
    y = quantity("mean", "ns per lookup", scale=scale)
    y["axis"] = {"values": log_ticks(low, high, 9), "format": "~s" if high >= 1e5 else ",~g"}
    return {
        "data": {"values": records},
        "width": WIDTH,
        "height": HEIGHT,
        "encoding": {"x": x, "color": data.look.colour()},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1.8},
             "encoding": {"y": y, "strokeDash": data.look.dash(), "description": WHOSE}},
            {"mark": {"type": "rule", "strokeWidth": 1.4},
             "encoding": {"y": quantity("low", "ns per lookup", scale=scale), "y2": {"field": "high"},
                          "description": WHOSE}},
            {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
             "encoding": {"y": y, "shape": data.look.shape(), "description": DESCRIPTION}},
            {"data": {"values": _labels(records, low, high)},
             "mark": {"type": "text", "align": "left", "dx": 9, "fontSize": 11},
             "encoding": {"y": quantity("place", "ns per lookup", scale=scale), "text": {"field": "strategy"},
                          "description": WHOSE}},
        ],
    }  # fmt: skip


def _labels(records: list[dict[str, Any]], low: float, high: float) -> list[dict[str, Any]]:
    """Names at the right ends of the lines, moved apart (upwards) where they would overlap."""
    last = {record["strategy"]: record for record in records}
    labels = []
    for vmas in {record["vmas"] for record in last.values()}:
        ends = sorted((r for r in last.values() if r["vmas"] == vmas), key=lambda r: r["mean"])
        places = _apart([math.log(r["mean"] / low) / math.log(high / low) for r in ends], 13 / HEIGHT)
        for record, place in zip(ends, places, strict=True):
            at = low * math.exp(place * math.log(high / low))
            labels.append({"strategy": record["strategy"], "vmas": vmas, "place": at})
    return sorted(labels, key=lambda label: label["strategy"])


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Ascending positions in [0, 1] at least ``gap`` apart, each at or above its wanted position if there is room.

    >>> [round(place, 2) for place in _apart([0.1, 0.12, 0.95, 0.99], 0.1)]
    [0.1, 0.2, 0.9, 1.0]
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else place)
    limit = 1.0
    for i in reversed(range(len(places))):  # move down what was pushed over the top, and push down those below it
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places
