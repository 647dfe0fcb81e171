"""Cache lines per lookup by structure, from the deterministic cost of each cell: why a strategy is fast or slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchframe.report.charts.spec import COLOURS, DESCRIPTION, INK, WHOSE, Chart, Data, Spec, panels, quantity
from benchframe.report.details import own_lines

PARTS = {"vma": "VMA", "own": "own", "pte": "page table", "page": "struct page", "mm": "mm", "task": "task"}
"""The structures of docs/cost.md, ``own`` for all slabs of the strategy, and their names in the legend."""


def cost_chart(data: Data) -> Chart | None:
    """A panel per workload whose cells have a cost; None if none has (``--no-cost``, or an older run)."""
    made = panels({label: _spec(records) for label in data.single if (records := _records(data, label))})
    if not made:
        return None
    return Chart(
        "cost",
        "What a lookup touches",
        "Distinct 64-byte lines per lookup by structure: counted, not timed, and the same on every machine. own: the "
        "strategy's own memory, such as tree nodes or a table. The tooltip also gives loads, atomics and branches. A "
        "bar that is cut has its length beside it.",
        made,
        tuple(data.single),
        tuple(data.strategies),
        short="Cost",
    )


def lines_of(cost: Mapping[str, float], view: str = "lookup") -> dict[str, float]:
    """Lines per operation for each of PARTS with any; structures outside PARTS (files) are left out.

    >>> lines_of({"lookup.lines.vma": 2.5, "lookup.lines.mm": 1.0, "lookup.lines.node": 3.0, "lookup.lines.pte": 0.0})
    {'vma': 2.5, 'own': 3.0, 'mm': 1.0}
    """
    found = {part: own_lines(cost, view) if part == "own" else cost.get(f"{view}.lines.{part}", 0.0) for part in PARTS}
    return {part: lines for part, lines in found.items() if lines > 0}


def _records(data: Data, label: str) -> list[dict[str, Any]]:
    records = []
    for row in data.of(label):
        cost = row.cell.state.cost
        if not cost.get("lookup.n"):
            continue
        parts = lines_of(cost)
        total = sum(parts.values())
        counts = ", ".join(f"{cost.get(f'lookup.{key}', 0.0):.3g} {key}" for key in ("loads", "atomics", "branches"))
        name = row.cell.entry.strategy
        for part, lines in parts.items():
            text = f"{name}: {total:.3g} lines per lookup, {lines:.3g} of them {PARTS[part]}; {counts}"
            records.append({"strategy": name, "part": PARTS[part], "lines": lines, "total": total, "says": text})
    return sorted(records, key=lambda record: record["total"])


WIDE = 6
"""A bar more than this many times as long as the median is cut: one list must not compress all trees into a corner."""


def _end(totals: Sequence[float]) -> float:
    """The end of the axis: a little beyond the longest bar that is not cut.

    >>> _end([3.0, 4.0, 5.0]), _end([3.0, 5.0, 600.0])
    (5.25, 6.0)
    """
    whole = [total for total in totals if total <= WIDE * median(totals)]
    return max(whole) * (1.05 if len(whole) == len(totals) else 1.2)


def _cut(records: list[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    """``records`` with the parts of each bar, in their order, cut off at ``end``."""
    used: dict[str, float] = {}
    found = []
    for record in records:
        left = end - used.get(record["strategy"], 0.0)
        if left > 0:
            used[record["strategy"]] = used.get(record["strategy"], 0.0) + record["lines"]
            found.append({**record, "lines": min(record["lines"], left)})
    return found


def _spec(records: list[dict[str, Any]]) -> Spec:
    order = list(dict.fromkeys(record["strategy"] for record in records))
    totals = {record["strategy"]: record["total"] for record in records}
    end = _end(list(totals.values()))
    cut = [{"strategy": name, "end": end, "text": f"→ {total:,.0f}"} for name, total in totals.items() if total > end]
    parts = [name for name in PARTS.values() if any(record["part"] == name for record in records)]
    colours = dict(zip(PARTS.values(), COLOURS[1:], strict=False))
    return {
        "data": {"values": _cut(records, end)},
        "width": 210,
        "height": {"step": 17},
        "encoding": {"y": {"field": "strategy", "type": "nominal", "sort": order, "title": None}},
        "layer": [
            {
                "transform": [{"calculate": f"indexof({parts!r}, datum.part)", "as": "place"}],
                "mark": {"type": "bar", "height": 11},
                "encoding": {
                    "x": quantity(
                        "lines",
                        "lines per lookup",
                        stack="zero",
                        scale={"domain": [0, end], "nice": False},
                        axis={"tickCount": 4},
                    ),
                    "order": {"field": "place", "type": "quantitative"},
                    "color": {
                        "field": "part",
                        "type": "nominal",
                        "scale": {"domain": parts, "range": [colours[part] for part in parts]},
                        "legend": {"title": None, "orient": "bottom", "direction": "horizontal", "columns": 3},
                    },
                    "description": DESCRIPTION,
                },
            },
            {
                "data": {"values": cut},
                "mark": {"type": "text", "align": "left", "dx": 3, "fontSize": 10, "color": INK},
                "encoding": {"x": quantity("end", "lines per lookup"), "text": {"field": "text"}, "description": WHOSE},
            },
        ],
    }
