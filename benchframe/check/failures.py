"""What is wrong with a whole execution graph: accesses in no order, and answers that no order explains.

There is no time in a graph: *before* means the memory model's order. An access that the order does not put before the
free of its record is a use after free, whatever an interleaving would make of it.

There is no time in a graph. The mapping calls, which a lock orders, make a row of layouts; a call may have met those
from the last mapping that must be over when it begins to the last that must have begun when it ends. What a mapping
call has done in between (a VMA cut, or given its flags) may be met, too, by whoever read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchframe.check.axioms import Relations, caused, closure
from benchframe.check.cases import Answer, in_words, is_right, wrong_lines
from benchframe.check.execution import Broken
from benchframe.check.graph import SHIFT, Graph, Id
from benchframe.events import Kind
from benchframe.scenario import is_store

__all__ = ["Asked", "Place", "Race", "Row", "Span", "check_answers", "check_uses", "data_races", "line_of"]


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
    graph: Graph,
    relations: Relations,
    before: list[int],
    names: Sequence[str],
    began: Sequence[Id],
    called: Callable[[str], str],
) -> None:
    """Broken if a record is used and the order does not put that before its free. ``names``: of the tasks; ``began``:
    the first event of each call; ``called``: what a record of a slab is called."""
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
                raise Broken("double free", f"{names[order[at] >> SHIFT]} frees {called(key[0])} #{key[1]} again")
            if typesafe and label.info:
                continue
            raise _used(graph, relations, before, free, at, names, began, called)


def _used(
    graph: Graph,
    relations: Relations,
    before: list[int],
    free: int,
    at: int,
    names: Sequence[str],
    began: Sequence[Id],
    called: Callable[[str], str],
) -> Broken:
    label = relations.labels[at]
    key = relations.labels[free].value[0]
    task, freer = graph.order[at] >> SHIFT, graph.order[free] >> SHIFT
    mine = (one for one in began if one >> SHIFT == task and one <= graph.order[at])
    first = relations.number.get(max(mine, default=task << SHIFT))
    dangling = first is not None and bool(before[first] >> free & 1)
    file, line, function = label.place or ("?", 0, "?")
    kind = {"R": "load", "W": "store"}[label.kind] if not label.rmw else "add"
    return Broken(
        "use after free",
        f"{names[task]}: {kind} of {called(key[0])} #{key[1]}, which {names[freer]} freed"
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


Row = tuple[int, int, int, int]
"""VMA, start, end, flags."""
Asked = tuple[Any, "Span", int]
"""A call, its events and what it gave."""


@dataclass
class Span:
    """Events ``first`` up to ``end`` (not included) of a task: a call, or a mapping with the layout it made.

    ``turn``: which of the task's calls it is, or is part of; what no other task shares has no events. ``parts``: of a
    mapping the splits and changes of flags in it, each with the layout that it left. ``lines``: what a walk showed.
    """

    task: int
    first: int
    end: int
    turn: int
    rows: list[Row] = field(default_factory=list)
    parts: list[Span] = field(default_factory=list)
    lines: tuple[tuple[int, int], ...] = ()


def check_answers(
    calls: Sequence[Asked], mappings: Sequence[Span], first_rows: list[Row], relations: Relations, before: list[int]
) -> None:
    """Broken for an answer that is right in none of the layouts that the call may have met."""
    asked = [one for one in calls if _asks(one[0]) and one[0].answer is None]
    for call, span, result in calls:
        if wrong := call.wrong(result):
            raise Broken("wrong answer", f"T{span.task}: {call.label} {wrong}")
    whole = [first_rows, *(span.rows for span in mappings)]
    asked = [one for one in asked if any(_wrong(one, [layout]) for layout in whole)]
    if not asked:
        return
    po = [own & ~((2 << at) - 1) for at, own in enumerate(relations.own)]
    linked = [a | b | c | d for a, b, c, d in zip(po, relations.rf, relations.co, relations.fr, strict=True)]
    any_order = closure(linked)
    causal = caused(relations, before)
    number = relations.number
    ends = [number[s.task << SHIFT | (s.end - 1)] if s.end > s.first else -1 for s in mappings]
    ranked = sorted(
        range(len(ends)),
        key=lambda i: sum(bool(0 <= j != ends[i] >= 0 and any_order[j] >> ends[i] & 1) for j in ends),
    )
    spans = [mappings[i] for i in ranked]
    layouts = [first_rows, *(span.rows for span in spans)]
    for call, span, result in asked:
        for low in _lows(span, spans, number, any_order, causal):
            high = max([low, *_highs(span, spans, number, any_order)])
            parts = [part for one in spans[low:high] for part in one.parts]
            seen = _highs(span, parts, number, any_order)
            met = [*layouts[low : high + 1], *(parts[rank - 1].rows for rank in seen)]
            if problem := _wrong((call, span, result), met):
                raise Broken("stale answer", f"T{span.task}: {call.label}{problem}")


def _lows(span: Span, spans: list[Span], number: dict[Id, int], any_order: list[int], causal: list[int]) -> list[int]:
    """How many mapping calls may be over when the call begins."""
    first = number.get(span.task << SHIFT | span.first) if span.end > span.first else None
    least, possible = 0, [0]
    for rank, one in enumerate(spans, 1):
        if one.task == span.task:
            if one.turn < span.turn:
                least = rank
                possible.append(rank)
            else:
                break
        elif one.end > one.first and first is not None:
            last = number[one.task << SHIFT | (one.end - 1)]
            if causal[first] >> last & 1:
                least = rank
            if any_order[first] >> last & 1 and least < rank:
                break
            possible.append(rank)
        else:
            possible.append(rank)
    return [rank for rank in possible if rank >= least] or [least]


def _highs(span: Span, spans: list[Span], number: dict[Id, int], any_order: list[int]) -> list[int]:
    """Mapping calls, or parts of them, that must have begun before the call ends."""
    if span.end <= span.first:
        return []
    last = number[span.task << SHIFT | (span.end - 1)]
    found = []
    for rank, one in enumerate(spans, 1):
        begun = number.get(one.task << SHIFT | one.first) if one.end > one.first else None
        if begun is not None and any_order[begun] >> last & 1:
            found.append(rank)
    return found


def _wrong(asked: Asked, met: Sequence[list[Row]]) -> str:
    """What is wrong with the answer of a call that may have met these layouts; empty if nothing is. A lookup must be
    right in one of them, a walk as :func:`wrong_lines` says."""
    call, span, result = asked
    if call.columns.get("mm", 0) != 0:
        return ""
    if call.columns["kind"] == Kind.WALK:
        problem = wrong_lines(span.lines, met)
        return f": {problem}" if problem else ""
    answer = Answer(span.task, call, 0, 0, result)
    if any(is_right(layout, call.columns["addr"], answer) for layout in met):
        return ""
    return f" gave {in_words(result)}, right at no moment of the call"


def _asks(call: Any) -> bool:
    return call.columns["kind"] in (Kind.FAULT, Kind.LOOKUP, Kind.WALK) and not is_store(call)
