"""What the cost engine counted, as a :class:`~benchframe.tables.build.Table`; docs/cost.md says what each column is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchframe.tables.build import Table, Value

VIEWS = ("lookup", "fault", "mapping")
COLUMNS = {
    "loads": "loads",
    "stores": "stores",
    "atomics": "atomics",
    "branches": "branches",
    "mispredicted": "mispred.",
    "steps": "steps",
    "lines": "lines",
    "lines.vma": "vma",
    "own": "own",
    "lines.pte": "pte",
    "lines.page": "page",
    "lines.mm": "mm",
    "lines.task": "task",
    "far_l1": "far L1",
    "dirty_shared": "dirty shared",
}
"""Key after the view to head. ``own`` sums the strategy's own slabs."""
_MODEL = frozenset({"vma", "mm", "page", "pte", "task", "file"})
_NOTES = (
    "means per operation; vma to task: distinct 64-byte lines of each structure; own: the strategy's own slabs.",
    "mispred.: estimated branch mispredictions; steps: records visited in sequence.",
    (
        "far L1: steps to a record that a 32 KiB cache may have evicted; dirty shared: lines written that other "
        "operations touch."
    ),
)


def own_lines(cost: Mapping[str, float], view: str) -> float:
    """Lines of the strategy's own slabs."""
    prefix = f"{view}.lines."
    return sum(v for k, v in cost.items() if k.startswith(prefix) and k.removeprefix(prefix) not in _MODEL)


def cost_table(cells: Iterable[tuple[str, str, Mapping[str, float]]]) -> Table:
    """Rows (workload, strategy, view) of ``cells``, (workload, strategy, cost); those without cost are left out."""
    heads = ("workload", "strategy", "per", *COLUMNS.values(), "hit rate", "bytes/VMA", "counted")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    sampled = 0.0
    for workload, strategy, cost in cells:
        views = [view for view in VIEWS if f"{view}.n" in cost]
        if views:
            records.append({"workload": workload, "strategy": strategy, **cost})
        for view in views:
            numbers = [own_lines(cost, view) if key == "own" else cost.get(f"{view}.{key}") for key in COLUMNS]
            first = view == views[0]
            hits = cost.get("lookup.hits", 0.0)
            asked = hits + cost.get("lookup.misses", 0.0)
            rows.append(
                (
                    workload,
                    strategy if first else "",
                    view,
                    *map(_text, numbers),
                    f"{100 * hits / asked:.1f} %" if first and asked else "",
                    f"{cost['bytes.per_vma']:.0f}" if first else "",
                    f"{100 * cost['counted'] / cost['events']:.0f} %" if first else "",
                )
            )
            for key in ("lines", "loads", "branches"):
                mean, error = cost.get(f"{view}.{key}", 0.0), cost.get(f"{view}.{key}_se", 0.0)
                sampled = max(sampled, error / mean if mean else 0.0)
    notes = [*_NOTES]
    if sampled:
        notes.append(f"sampled: standard errors of loads, lines and branches are at most {100 * sampled:.2g} %.")
    return Table("Cost", heads, tuple(rows), (False,) * 3 + (True,) * (len(heads) - 3), tuple(records), tuple(notes))


def _text(value: float | None) -> str:
    """Three significant digits; a zero is quiet."""
    if value is None or value == 0:
        return "" if value is None else "0"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
