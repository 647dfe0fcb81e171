"""Scaling: operations per second and speed-up against the number of threads, with the line of ideal scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchframe.report.charts.spec import DESCRIPTION, MUTED, WHOSE, Chart, Data, Panel, Spec, quantity, slug
from benchframe.report.details import per_second
from benchframe.report.table import ratio_text
from benchframe.results.figures import OPERATIONS, Point, points


def threads_chart(data: Data) -> Chart | None:
    """Two panels per workload with at least two numbers of threads; None if there is none."""
    found = [point for point in points(data.cells) if point.throughput is not None]
    panels: list[Panel] = []
    labels: list[str] = []
    for workload in dict.fromkeys(point.workload for point in found):
        own = [point for point in found if point.workload == workload]
        if len({point.threads for point in own}) > 1:
            keys = [panel.key for panel in panels]
            operations = OPERATIONS[own[0].figure]
            panels.append(
                Panel(slug(f"{workload} rate", keys), f"{workload}: {operations} per second", _rates(data, own))
            )
            panels.append(Panel(slug(f"{workload} speedup", keys), f"{workload}: speed-up", _speed_ups(data, own)))
            labels += dict.fromkeys(point.cell.entry.workload for point in own)
    if not panels:
        return None
    cores = max(point.cores for point in found)
    return Chart(
        "threads",
        "Scaling by threads",
        "Left: operations per second, all threads together. Right: speed-up over the smallest number of threads of "
        "the same strategy, with its 95 % interval; the dashed line is the ideal speed-up. "
        f"This machine has {cores} CPUs: marks with more threads are hollow, and show waiting, not scaling.",
        tuple(panels),
        tuple(labels),
        tuple(data.strategies),
        columns=2,
        legend=True,
        short="Threads",
    )


def _says(point: Point) -> str:
    text = f"{point.cell.entry.strategy}: {per_second(point.throughput)} {OPERATIONS[point.figure]} per second with "
    text += f"{point.threads} thread{'s' * (point.threads > 1)}"
    if point.speed_up is not None:
        text += f"; speed-up {ratio_text(point.speed_up)} over {point.base_threads}"
    if point.against is not None:
        text += f"; {ratio_text(point.against)} times the baseline's"
    if point.lock_share is not None:
        text += f"; {100 * point.lock_share:.1f} % of the time waiting for mmap_lock"
    return text


def _rates(data: Data, found: Sequence[Point]) -> Spec:
    records = [{**_record(point), "value": (point.throughput or 0) / 1e6} for point in found]
    return _spec(data, records, quantity("value", "million per second", scale={"zero": True}))


def _speed_ups(data: Data, found: Sequence[Point]) -> Spec:
    records = []
    for point in found:
        ratio = point.speed_up
        record = {**_record(point), "value": ratio.value if ratio else 1.0}
        if ratio and ratio.n > 1:
            record |= {"low": ratio.low, "high": ratio.high}
        records.append(record)
    # With few rounds an interval may be far longer than the range of the points: it is cut where the axis ends.
    end = 1.3 * max(*(record["value"] for record in records), *(point.ideal for point in found))
    records = [{**r, "low": max(r["low"], 0), "high": min(r["high"], end)} if "low" in r else r for r in records]
    scale = {"zero": True, "domain": [0, end], "nice": False}
    spec = _spec(data, records, quantity("value", "speed-up", scale=scale))
    ideal = [{"threads": t, "value": i} for t, i in sorted({(point.threads, point.ideal) for point in found})]
    line = {"type": "line", "color": MUTED, "strokeDash": [5, 4], "strokeWidth": 1.2, "aria": False}
    y = quantity("value", "speed-up", scale=scale)
    dashed = {"data": {"values": ideal}, "mark": line, "encoding": {"y": y, "color": {"value": MUTED}}}
    rule = {"y": quantity("low", "speed-up", scale=scale), "y2": {"field": "high"}, "description": WHOSE}
    bars = {"transform": [{"filter": "isValid(datum.low)"}], "mark": {"type": "rule"}, "encoding": rule}
    return {**spec, "layer": [dashed, bars, *spec["layer"]]}


def _record(point: Point) -> dict[str, Any]:
    name = point.cell.entry.strategy
    return {"strategy": name, "threads": point.threads, "crowded": point.crowded, "says": _says(point)}


def _spec(data: Data, records: list[dict[str, Any]], y: Spec) -> Spec:
    counts = sorted({record["threads"] for record in records})
    x = quantity("threads", "threads", scale={"padding": 14, "nice": False, "zero": False})
    x["axis"] = {"values": counts, "format": "d", "grid": False}
    point = {"type": "point", "size": 50, "opacity": 1, "strokeWidth": 1.6}
    solid: list[Spec] = []
    for crowded in (False, True):
        encoding = {"y": y, "shape": data.look.shape(), "description": DESCRIPTION}
        mark = {**point, "filled": not crowded}
        solid.append(
            {"transform": [{"filter": f"datum.crowded == {str(crowded).lower()}"}], "mark": mark, "encoding": encoding}
        )
    line = {"y": y, "strokeDash": data.look.dash(), "description": WHOSE}
    return {
        "data": {"values": records},
        "width": 380,
        "height": 220,
        "encoding": {"x": x, "color": data.look.colour()},
        "layer": [{"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": line}, *solid],
    }
