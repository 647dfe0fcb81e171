"""How long single lookups take: the share done within a time (ECDF), and the share that takes longer (the tail).

From the pass that reads the cycle counter around each operation; see :mod:`benchframe.engine.session`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchframe.engine.session import BINS_PER_OCTAVE, bin_edge
from benchframe.report.charts.spec import (
    DESCRIPTION,
    WHOSE,
    Chart,
    Data,
    Panel,
    Spec,
    log_ticks,
    percent,
    quantity,
    slug,
)
from benchframe.report.details import DISTURBED, disturbed_passes
from benchframe.report.table import ns
from benchframe.results.folder import LatencyRow

_MARKED = (0.5, 0.9, 0.99, 0.999)
"""The shares marked by a point."""


def distribution_chart(data: Data) -> Chart | None:
    """Two panels per workload, of lookups or, if a trace has only those of faults, of faults; None if no cell has a
    histogram."""
    panels: list[Panel] = []
    labels = [*data.single, *data.crews]
    for label in labels:
        figure, rows = _chosen(data, label)
        if rows:
            title = f"{label}: {figure}s"
            keys = [p.key for p in panels]
            panels.append(Panel(slug(f"{label} ecdf", keys), title, _ecdf(data, rows)))
            panels.append(Panel(slug(f"{label} tail", keys), f"{title}, the tail", _tail(data, rows)))
    if not panels:
        return None
    disturbed = ", ".join(f"{name} on {label}" for name, label in disturbed_passes(data.cells) if label in labels)
    return Chart(
        "distribution",
        "Distribution of single operations",
        "Left: the share of operations that is done within a time; further left is faster, and the axis ends where all "
        "but one in a thousand are done. Right: the share that takes longer; lower is better. One pass in the first "
        "round's process, the counter read around each operation: medians lie above the figures from loops. Times are "
        "in bins 9 % wide." + (f" {DISTURBED.capitalize()}: {disturbed}." if disturbed else ""),
        tuple(panels),
        tuple(labels),
        tuple(data.strategies),
        columns=2,
        legend=True,
        short="Distribution",
    )


def _chosen(data: Data, label: str) -> tuple[str, list[tuple[str, LatencyRow]]]:
    """The figure with most operations, and its histogram by strategy."""
    by_figure: dict[str, list[tuple[str, LatencyRow]]] = {}
    for cell in data.cells:
        if cell.entry.workload != label or cell.state.state != "ok":
            continue
        for latency in cell.state.latencies:
            if latency.outcome == "all" and latency.figure != "mapping":
                points = cell.state.threads.get("histograms", {}).get(latency.figure, ())
                bins = latency.bins or rebinned(points)
                if bins:
                    binned = replace(latency, bins=bins, n=sum(count for _, count in bins))
                    by_figure.setdefault(latency.figure, []).append((cell.entry.strategy, binned))
    if not by_figure:
        return "", []
    figure = max(by_figure, key=lambda name: sum(latency.n for _, latency in by_figure[name]))
    return figure, by_figure[figure]


def rebinned(points: Sequence[tuple[float, int]]) -> tuple[tuple[int, int], ...]:
    """The histogram of a run with threads, (lower edge in ns, operations), in the bins of a run without threads.

    Its buckets are a sixteenth wide: the middle of each determines the bin.

    >>> rebinned([(0.0, 1), (2.0, 3), (2.1, 2)])
    ((0, 1), (9, 5))
    """
    bins: dict[int, int] = {}
    for low, count in points:
        number = math.ceil(BINS_PER_OCTAVE * math.log2(max(1.0, low * 33 / 32)) - 1e-9)
        bins[number] = bins.get(number, 0) + count
    return tuple(sorted(item for item in bins.items() if item[1]))


def cumulated(bins: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """(upper edge in ns, share of operations up to it) for each bin.

    >>> cumulated([(0, 1), (8, 3)])
    [(1.0, 0.25), (2.0, 1.0)]
    """
    total, seen, found = sum(count for _, count in bins), 0, []
    for number, count in bins:
        seen += count
        found.append((bin_edge(number), seen / total))
    return found


def _marks(name: str, latency: LatencyRow, points: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """The points of the marked shares, with their labels."""
    marks = []
    for share in _MARKED:
        if latency.n * (1 - share) < 1:
            continue
        edge, reached = next(point for point in points if point[1] >= share)
        text = f"{name}: {percent(share)} of {latency.n:,} within {ns(edge)} ns; longest {ns(latency.max)} ns"
        marks.append({"strategy": name, "ns": edge, "share": reached, "rest": max(1 - share, 1e-9), "says": text})
    return marks


def _ecdf(data: Data, rows: list[tuple[str, LatencyRow]]) -> Spec:
    lines: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    end = max(next(edge for edge, share in cumulated(latency.bins) if share >= 0.999) for _, latency in rows) * 1.1
    for name, latency in rows:
        points = cumulated(latency.bins)
        marks += _marks(name, latency, points)
        points = [point for point in points if point[0] < end]
        points.append((end, points[-1][1]))
        first = latency.bins[0][0]
        start = {"strategy": name, "ns": bin_edge(max(first - 1, 0)), "share": 0.0}
        lines += [start, *({"strategy": name, "ns": edge, "share": share} for edge, share in points)]
    y = quantity("share", "share within", axis={"format": ".0%", "tickCount": 5}, scale={"domain": [0, 1]})
    return _spec(data, lines, marks, y)


def _tail(data: Data, rows: list[tuple[str, LatencyRow]]) -> Spec:
    lines: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for name, latency in rows:
        points = cumulated(latency.bins)
        least = 1 / latency.n
        lines += [{"strategy": name, "ns": edge, "share": max(1 - share, least / 2)} for edge, share in points]
        marks += [{**mark, "share": mark["rest"]} for mark in _marks(name, latency, points)]
    low = min(line["share"] for line in lines)
    scale = {"type": "log", "domain": [low, 1], "nice": False}
    values = [value for value in (1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6) if value >= low]
    axis = {
        "values": values,
        "labelExpr": "datum.value == 1 ? 'all' : '1 in ' + format(round(1 / datum.value), ',')",
    }
    return _spec(data, lines, marks, quantity("share", "take longer", axis=axis, scale=scale))


def _spec(data: Data, lines: list[dict[str, Any]], marks: list[dict[str, Any]], y: Spec) -> Spec:
    low, high = min(line["ns"] for line in lines), max(line["ns"] for line in lines)
    x = quantity("ns", "ns (log)", scale={"type": "log", "domain": [low, high * 1.02], "nice": False})
    x["axis"] = {"values": log_ticks(low, high, 6), "format": "~s" if high > 10_000 else "~g"}
    line = {"type": "line", "strokeWidth": 1.5, "interpolate": "step-after"}
    return {
        "data": {"values": lines},
        "width": 360,
        "height": 210,
        "encoding": {"x": x, "y": y, "color": data.look.colour()},
        "layer": [
            {"mark": line, "encoding": {"strokeDash": data.look.dash(), "description": WHOSE}},
            {
                "data": {"values": marks},
                "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1},
                "encoding": {"shape": data.look.shape(), "description": DESCRIPTION},
            },
        ],
    }
