"""Cache lines per lookup by structure, from the deterministic cost of each cell: why a strategy is fast or slow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchframe.charts.data import Data
from benchframe.charts.spec import COLOURS, DESCRIPTION, Chart, Spec, panels, quantity
from benchframe.tables.cost import own_lines

PARTS = {"vma": "VMA", "own": "own", "pte": "page table", "page": "struct page", "mm": "mm", "task": "task"}
"""Structures as docs/cost.md has them, ``own`` for all slabs of the strategy, and what the legend calls them."""


def cost_chart(data: Data) -> Chart | None:
    """A panel per workload whose cells have a cost; None if none has (``--no-cost``, or an older run)."""
    made = panels({label: _spec(records) for label in data.single if (records := _records(data, label))})
    if not made:
        return None
    return Chart(
        "cost",
        "What a lookup touches",
        "Distinct 64-byte lines per lookup by structure: counted, not timed, and the same on every machine. own: the "
        "strategy's own memory, such as tree nodes or a table. A mark says loads, atomics and branches too.",
        made,
        tuple(data.single),
        tuple(data.strategies),
        short="Cost",
    )


def lines_of(cost: Mapping[str, float], view: str = "lookup") -> dict[str, float]:
    """Lines per operation of each of PARTS that has some; what belongs to none of them (files) is left out.

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


def _spec(records: list[dict[str, Any]]) -> Spec:
    order = list(dict.fromkeys(record["strategy"] for record in records))
    parts = [name for name in PARTS.values() if any(record["part"] == name for record in records)]
    colours = dict(zip(PARTS.values(), COLOURS[1:], strict=False))
    return {
        "data": {"values": records},
        "width": 210,
        "height": {"step": 17},
        "transform": [{"calculate": f"indexof({parts!r}, datum.part)", "as": "place"}],
        "mark": {"type": "bar", "height": 11},
        "encoding": {
            "y": {"field": "strategy", "type": "nominal", "sort": order, "title": None},
            "x": quantity("lines", "lines per lookup", stack="zero", axis={"tickCount": 5}),
            "order": {"field": "place", "type": "quantitative"},
            "color": {
                "field": "part",
                "type": "nominal",
                "scale": {"domain": parts, "range": [colours[part] for part in parts]},
                "legend": {"title": None, "orient": "bottom", "direction": "horizontal", "columns": 3},
            },
            "description": DESCRIPTION,
        },
    }
