"""Lookup cost x update cost x memory, and the Pareto front of all three."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchframe.report.charts.spec import (
    DESCRIPTION,
    MUTED,
    WHOSE,
    Chart,
    Data,
    Spec,
    log_ticks,
    panels,
    place,
    quantity,
)
from benchframe.report.table import ns
from benchframe.results.figures import Row

WIDTH, HEIGHT = 250, 210
MEMORY = "bytes.per_vma"
"""The key of a cell's deterministic cost that determines the size of its mark."""


def pareto_chart(data: Data) -> Chart | None:
    """A panel per workload that has both figures for at least two strategies; None if none has."""
    shown = {label: records for label in data.single if len(records := _records(data.of(label))) > 1}
    if not shown:
        return None
    memory = any("bytes" in record for records in shown.values() for record in records)
    both = "lookup, update and memory (the size of a mark)" if memory else "both"
    note = f"Lower and further left is better. Strategies on the Pareto front in {both} are named. The line is the "
    note += "Pareto front in lookup and update. "
    return Chart(
        "pareto",
        "Lookup cost against update cost" + (", and memory" if memory else ""),
        note
        + "A strategy with fast lookups and slow mapping calls is at the upper left. The front is computed from means, "
        "without their intervals.",
        panels({label: _spec(data, records) for label, records in shown.items()}),
        tuple(data.single),
        tuple(data.strategies),
        legend=True,
        short="Trade-offs",
    )


def memory_of(row: Row) -> float | None:
    """Bytes per VMA, including the VMA's own 192, if the cell has counted cost."""
    return row.cell.state.cost.get(MEMORY)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indexes of ``points`` that have no other point below and to the left, from left to right. O(n log n).

    >>> front([(1, 9), (2, 2), (3, 3), (9, 1)])
    [0, 1, 3]
    """
    found: list[int] = []
    best = float("inf")
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < best:
            best = points[i][1]
            found.append(i)
    return found


def unbeaten(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indexes of ``points`` that no other point dominates (less or equal in every coordinate and less in one). O(n^2).

    >>> unbeaten([(1, 9, 5), (2, 2, 5), (2, 3, 5), (2, 3, 4)])
    [0, 1, 3]
    """
    found = []
    for i, point in enumerate(points):
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points):
            found.append(i)
    return found


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for row in rows:
        if "lookup" not in row.figures or "mapping" not in row.figures:
            continue
        x, y, size = row.figures["lookup"].summary.mean, row.figures["mapping"].summary.mean, memory_of(row)
        text = f"{row.cell.entry.strategy}: {ns(x)} ns/lookup, {ns(y)} ns/mapping op"
        record: dict[str, Any] = {"strategy": row.cell.entry.strategy, "x": x, "y": y}
        if size is not None:
            record["bytes"] = size
            text += f", {size:.0f} bytes per VMA"
        records.append({**record, "says": text})
    most = max((record["bytes"] for record in records if "bytes" in record), default=0.0)
    for record in records:
        if "bytes" in record:  # areas are proportional to the bytes, as long as a mark is large enough to see
            record["area"] = max(_LEAST, _MOST * record["bytes"] / most)
    for i in front([(record["x"], record["y"]) for record in records]):
        records[i]["front"] = True
    for i in unbeaten([(record["x"], record["y"], record.get("bytes", 0.0)) for record in records]):
        records[i]["best"] = True
        records[i]["says"] += "; on the Pareto front"
    return records


_LEAST, _MOST = 30.0, 220.0
"""Smallest and largest areas of marks in square pixels."""


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.12, max(values) * 1.12


def _axis(field: str, title: str, values: Sequence[float]) -> Spec:
    low, high = _ends(values)
    ticks = log_ticks(low, high, 5)
    if len(ticks) < 2:
        ticks = sorted({float(f"{value:.2g}") for value in (low * 1.05, (low * high) ** 0.5, high / 1.05)})
    scale = {"type": "log", "domain": [low, high], "nice": False}
    return quantity(field, title, scale=scale, axis={"values": ticks, "format": ",~g"})


def _spec(data: Data, records: list[dict[str, Any]]) -> Spec:
    labels = _labels(records)
    x = _axis("x", "ns per lookup (log)", [record["x"] for record in records])
    y = _axis("y", "ns per mapping operation (log)", [record["y"] for record in records])
    line = {"type": "line", "color": MUTED, "strokeWidth": 1, "strokeDash": [4, 3], "aria": False}
    point: Spec = {"color": data.look.colour(), "shape": data.look.shape(), "description": DESCRIPTION}
    mark: Spec = {"type": "point", "filled": True, "opacity": 0.9, "size": 80}
    if any("area" in record for record in records):
        point["size"] = quantity("area", "bytes per VMA", scale=None, legend=None)
    text = {"type": "text", "align": "left", "baseline": "middle", "fontSize": 10}
    front = [{"filter": "datum.front === true"}]
    return {
        "data": {"values": records},
        "width": WIDTH,
        "height": HEIGHT,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"transform": front, "mark": {**line, "interpolate": "step-after"}},
            {"mark": mark, "encoding": point},
            {"data": {"values": labels}, "mark": text,
             "encoding": {"text": {"field": "strategy"}, "description": WHOSE}},
        ],
    }  # fmt: skip


def _labels(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names of the points on the front, beside their marks, each where it covers nothing; left out where there is no
    room."""
    ends = [_ends([record[field] for record in records]) for field in ("x", "y")]
    (left, right), (low, high) = [(math.log(a), math.log(b)) for a, b in ends]

    def pixels(record: dict[str, Any]) -> tuple[float, float]:
        across = (math.log(record["x"]) - left) / (right - left)
        return WIDTH * across, HEIGHT * (1 - (math.log(record["y"]) - low) / (high - low))

    best = [record for record in records if record.get("best")]
    corners = sorted(pixels(record) for record in records if record.get("front"))
    steps = [
        box
        for (x, y), (x2, y2) in pairwise(corners)
        for box in ((x, y - 1, x2, y + 1), (x2 - 1, min(y, y2), x2 + 1, max(y, y2)))
    ]
    spots = place(
        [(*pixels(record), record["strategy"]) for record in best],
        [(*pixels(record), 0.6 * math.sqrt(record.get("area", 80.0))) for record in records],
        WIDTH,
        HEIGHT,
        steps,
    )
    return [
        {
            "strategy": record["strategy"],
            "x": math.exp(left + spot[0] / WIDTH * (right - left)),
            "y": math.exp(low + (1 - spot[1] / HEIGHT) * (high - low)),
        }
        for record, spot in zip(best, spots, strict=True)
        if spot is not None
    ]
