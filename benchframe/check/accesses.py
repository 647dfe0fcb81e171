"""Pairs of accesses that a whole execution graph leaves in no order, or in the wrong one: uses after free, data races.

There is no time in a graph: *before* means the memory model's order. An access that the order does not put before the
free of its record is a use after free, whatever an interleaving would make of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from benchframe.check.axioms import Relations, caused
from benchframe.check.execution import Broken
from benchframe.check.graph import SHIFT, Graph, Id

Place = tuple[str, int, str]
"""Where in the text: file, line, function."""


@dataclass(frozen=True)
class Race:
    """Two accesses of one location, one of them plain and one a store, that nothing orders: as KCSAN reports them."""

    first: Place
    second: Place

    def __str__(self) -> str:
        return f"{line_of(self.first)} and {line_of(self.second)}"


def line_of(where: Place) -> str:
    """A place in words."""
    return f"{where[0].rpartition('/')[2]}:{where[1]} {where[2]}"


def check_uses(
    graph: Graph, relations: Relations, before: list[int], names: Sequence[str], began: Sequence[Id]
) -> None:
    """Broken if a record is used and the order does not put that before its free. ``names``: of the tasks; ``began``:
    the first event of each call."""
    labels, order = relations.labels, graph.order
    frees = [at for at, label in enumerate(labels) if label.tag == "free"]
    if not frees:
        return
    allocs = [at for at, label in enumerate(labels) if label.tag == "alloc"]
    po = [own & ~((2 << at) - 1) for at, own in enumerate(relations.own)]
    known = caused(relations, before) if allocs else po
    for free in frees:
        key, typesafe, _ = labels[free].value
        for at, label in enumerate(labels):
            other = label.tag == "free" and label.value[0] == key and at != free
            if not other and (label.loc is None or label.loc[0] != key):  # type: ignore[index]
                continue
            if before[free] >> at & 1 or po[at] >> free & 1:
                continue
            if any(labels[new].value == key and known[new] >> free & 1 and known[at] >> new & 1 for new in allocs):
                continue
            if other:
                if before[at] >> free & 1 or po[free] >> at & 1:
                    continue
                raise Broken("double free", f"{names[order[at] >> SHIFT]} frees {key[0][:-5]} #{key[1]} again")
            if typesafe and label.info:
                continue
            raise _used(graph, relations, before, free, at, names, began)


def _used(
    graph: Graph,
    relations: Relations,
    before: list[int],
    free: int,
    at: int,
    names: Sequence[str],
    began: Sequence[Id],
) -> Broken:
    label = relations.labels[at]
    key = relations.labels[free].value[0]
    task, freer = graph.order[at] >> SHIFT, graph.order[free] >> SHIFT
    mine = (one for one in began if one >> SHIFT == task and one <= graph.order[at])
    first = relations.number.get(max(mine, default=task << SHIFT))
    dangling = first is not None and bool(before[first] >> free & 1)
    what = {"vma_base": "VMA", "page_base": "page", "mm_base": "mm_struct"}.get(key[0], f"{key[0][:-5]} record")
    file, line, function = label.place or ("?", 0, "?")
    kind = {"R": "load", "W": "store"}[label.kind] if not label.rmw else "add"
    return Broken(
        "use after free",
        f"{names[task]}: {kind} of {what} #{key[1]}, which {names[freer]} freed"
        f"{' before this call began' if dangling else ''}, in {function}",
        (f"{file}:{line}", "dangling" if dangling else "racing"),
        key,
        function,
        (function,),
    )


def data_races(relations: Relations, before: list[int]) -> set[Race]:
    """Every pair of places that race in the graph. O(accesses squared of one location)."""
    found: set[Race] = set()
    labels = relations.labels
    by: dict[Hashable, list[int]] = {}
    for at, label in enumerate(labels):
        if label.loc is not None and label.kind in "RW" and label.place is not None:
            by.setdefault(label.loc, []).append(at)
    for ats in by.values():
        if not any(labels[at].plain for at in ats) or all(labels[at].kind == "R" for at in ats):
            continue
        for number, first in enumerate(ats):
            for second in ats[number + 1 :]:
                one, two = labels[first], labels[second]
                if (
                    (one.plain or two.plain)
                    and "W" in (one.kind, two.kind)
                    and not relations.own[first] >> second & 1
                    and not (before[second] >> first & 1 or before[first] >> second & 1)
                ):
                    places = sorted((one.place or ("", 0, ""), two.place or ("", 0, "")))
                    found.add(Race(places[0], places[1]))
    return found


__all__ = ["Place", "Race", "check_uses", "data_races", "line_of"]
