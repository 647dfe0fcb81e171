"""A counted run's accesses played through caches: how many miss each level, by structure.

The records of :mod:`benchframe.engine.cost.records` in the order in which they were made, through three levels of
set-associative caches with least-recently-used replacement. Before each operation the caches are put into the state of
``--caches`` (:mod:`benchframe.engine.caches`): levels are emptied, or a program's footprint goes through them, as in a
timed cold replay. Line numbers and states are the same everywhere, so the result is too, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect import native
from benchframe.dialect.records import Field, Slab, Struct
from benchframe.engine.caches import L2, LINE, LLC, MEMORY, PAGE, PROGRAM, ROOM, Cache, Caches
from benchframe.engine.cost.records import (
    ATOMIC,
    ENTER,
    EVENT,
    LEAVE,
    LINE_SHIFT,
    LOW,
    RECORD,
    REGION,
    SHIFT,
    Memory,
    region,
    word,
)
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING
from benchframe.units import Units, UnitSpec

LOOKUP, FAULT, MAPPING = range(3)
REGIONS = 32
"""The words of a level in SUM, one per region."""
VIEW_WORDS = 3 * REGIONS
"""The words of a view in SUM: its levels. The operations of each view follow behind all views."""
EPOCH = 40
"""A tag is the line + 1, and above this bit how often its level was emptied before."""

caches = Struct(
    "caches",
    [
        Field("record_base", "i8", "slab RECORD: the batch", lock="constant"),
        Field("region_base", "i8", "slab REGION", lock="constant"),
        Field("level_base", "i8", "slab LEVEL", lock="constant"),
        Field("tag_base", "i8", "slab TAG: of each level, set after set, the most recent line first", lock="constant"),
        Field("held_base", "i8", "slab HELD: per line, for a level that holds everything", lock="constant"),
        Field("sum_base", "i8", "slab MISS: misses by view, level and region", lock="constant"),
        Field("emptied", "i8", "so many levels are emptied before each operation", lock="constant"),
        Field("footprint", "i8", "lines of other memory that go through before each operation", lock="constant"),
        Field("step", "i8", "lines by which they move on", lock="constant"),
        Field("last", "i8", "the last place at which they may begin", lock="constant"),
        Field("other", "i8", "the first line of other memory", lock="constant"),
        ("at", "i8", "where they begin"),
        ("kind", "i8", "class of the operation"),
        ("depth", "i8", "hooks of the lookup entered and not left"),
    ],
)
level = Struct(
    "level",
    [
        ("sets", "i8", "a power of two; 0: it holds everything"),
        ("ways", "i8", "lines of a set"),
        ("offset", "i8", "its first tag"),
        ("epoch", "i8", "how often it was emptied"),
    ],
)
LEVEL = Slab("LEVEL", level, "level_base", first=0)
TAG = Slab("TAG", word, "tag_base", first=0)
HELD = Slab("HELD", word, "held_base", first=0)
MISS = Slab("MISS", word, "sum_base", first=0)


@native
def play_records(t, count):
    """Play a batch of ``count`` records, which begins with an event."""
    index = 0
    while index < count:
        value = RECORD(t, index).value
        index += 1
        kind = value >> SHIFT
        low = value & LOW
        if kind <= ATOMIC:
            access(t, low >> LINE_SHIFT)
        elif kind == EVENT:
            t.kind = low
            t.depth = 0
            between(t)
            count_operation(t)
        elif kind == ENTER:
            t.depth += 1
        elif kind == LEAVE:
            t.depth -= 1
    return count


@native
def between(t):
    """What happens between two operations: levels are emptied, other memory goes through. O(footprint)."""
    number = 0
    while number < t.emptied:
        LEVEL(t, number).epoch += 1
        number += 1
    number = 0
    while number < t.footprint:
        line = t.other + t.at + number
        if not cached(t, 0, line) and not cached(t, 1, line) and LEVEL(t, 2).sets:
            cached(t, 2, line)
        number += 1
    if t.at + t.step <= t.last:
        t.at += t.step
    else:
        t.at = 0
    return 0


@native
def count_operation(t):
    """One more operation of its views."""
    behind = 3 * VIEW_WORDS
    if t.kind == CLASS_MAPPING:
        MISS(t, behind + MAPPING).value += 1
        return 0
    MISS(t, behind + LOOKUP).value += 1
    if t.kind == CLASS_FAULT:
        MISS(t, behind + FAULT).value += 1
    return 0


@native
def access(t, line):
    """An operation reads or writes a line: count each level that does not have it. O(ways)."""
    if cached(t, 0, line):
        return 0
    missed = 1
    if not cached(t, 1, line):
        missed = 2
        if not cached(t, 2, line):
            missed = 3
    number = 0
    while REGION(t, number + 1).first <= line:
        number += 1
    which = 0
    while which < missed:
        at = which * REGIONS + number
        if t.kind == CLASS_MAPPING:
            MISS(t, MAPPING * VIEW_WORDS + at).value += 1
        else:
            if t.kind == CLASS_LOOKUP or t.depth > 0:
                MISS(t, LOOKUP * VIEW_WORDS + at).value += 1
            if t.kind == CLASS_FAULT:
                MISS(t, FAULT * VIEW_WORDS + at).value += 1
        which += 1
    return missed


@native
def cached(t, number, line):
    """Whether a level has the line. Afterwards it has, as the most recent of its set."""
    one = LEVEL(t, number)
    wanted = (one.epoch << EPOCH) + line + 1
    if one.sets == 0:
        held = HELD(t, line)
        if held.value == wanted or (held.value == 0 and one.epoch == 0):  # what the setup wrote is there
            return 1
        held.value = wanted
        return 0
    at = one.offset + (line & (one.sets - 1)) * one.ways
    before = wanted
    way = 0
    while way < one.ways:
        tag = TAG(t, at + way)
        here = tag.value
        tag.value = before
        if here == wanted:
            return 1
        before = here
        way += 1
    return 0


Array = npt.NDArray[Any]
LEVELS = ("l1", "l2", "llc")
VIEWS = ("lookup", "fault", "mapping")


@dataclass(frozen=True)
class CacheSizes:
    """The sets and ways of each level of a named machine; the last level with 0 sets holds everything."""

    machine: str
    sets: tuple[int, int, int]
    ways: tuple[int, int, int]

    def told(self) -> str:
        """In words.

        >>> CacheSizes("milan", (64, 1024, 0), (8, 8, 16)).told()
        'milan: L1 32 KiB (8-way), L2 512 KiB (8-way), a last level that holds everything'
        """
        parts = [
            f"{name} {sets * ways * LINE >> 10} KiB ({ways}-way)"
            for name, sets, ways in zip(("L1", "L2", "last level"), self.sets, self.ways, strict=True)
            if sets
        ]
        return f"{self.machine}: {', '.join(parts)}{'' if self.sets[2] else ', a last level that holds everything'}"


def sizes_of(there: Sequence[Cache]) -> CacheSizes:
    """The caches of this machine as it tells them; what it does not tell is that of ``milan-2s``. The last level holds
    everything: nobody knows what others leave of it.

    >>> sizes_of([Cache(1, 48 << 10, 1, 12), Cache(2, 1 << 20, 1, 8)]).told()
    'this machine: L1 48 KiB (12-way), L2 1024 KiB (8-way), a last level that holds everything'
    """
    usual = {1: Cache(1, 32 << 10, 1), 2: Cache(2, 512 << 10, 1)}
    found = [{**usual, **{one.level: one for one in there}}[number] for number in (1, 2)]
    sets = [1 << (max(1, one.size // (LINE * one.ways)).bit_length() - 1) for one in found]
    return CacheSizes("this machine", (sets[0], sets[1], 0), (found[0].ways, found[1].ways, 16))


class Hierarchy:
    """Plays batches of records through the caches of ``sizes``, in one state of ``--caches``.

    A level that a timed replay empties by reading twice its size is simply empty here: under LRU the result is the
    same.
    """

    def __init__(self, memory: Memory, sizes: CacheSizes, asked: Caches) -> None:
        self.memory, self.asked = memory, asked
        counts = [sets * ways for sets, ways in zip(sizes.sets, sizes.ways, strict=True)]
        levels = np.zeros(3, level.dtype)
        levels["sets"], levels["ways"] = sizes.sets, sizes.ways
        levels["offset"] = np.cumsum([0, *counts[:2]])
        self._state = np.zeros(1, caches.dtype)
        self.arrays = {
            "region_base": _regions(memory),
            "level_base": levels,
            "tag_base": np.zeros(max(1, sum(counts)), word.dtype),
            "held_base": np.zeros(memory.lines, word.dtype),
            "sum_base": np.zeros(3 * VIEW_WORDS + 3, word.dtype),
        }
        for base, array in self.arrays.items():
            self._state[base] = array.ctypes.data
        self._state["emptied"] = {L2: 1, LLC: 2, MEMORY: 3}.get(asked.level, 0)
        if asked.level == PROGRAM:
            lines = -(-asked.touched // LINE)
            room = max(ROOM, 2 * lines * LINE) // LINE
            self._state["footprint"], self._state["last"] = lines, room - lines
            self._state["step"] = max(PAGE, asked.touched // 2 // PAGE * PAGE) // LINE
        self._state["other"] = memory.lines
        self._unit = Units(caches, ()).get(UnitSpec("caches", play_records, {}))

    def add(self, records: Array) -> None:
        """Play a batch, which begins with an event. About 5 ns a record, and 5 ns for each line of the footprint at
        each event."""
        records = np.ascontiguousarray(records, np.int64)
        self._state["record_base"] = records.ctypes.data
        self._unit(self._state.ctypes.data, len(records))

    def again(self) -> None:
        """Reset the sums, but keep what the caches hold: the count so far was for warming up."""
        self.arrays["sum_base"]["value"] = 0

    def numbers(self) -> dict[str, float]:
        """Means per operation: ``VIEW.missed_LEVEL``, and by structure ``VIEW.missed_LEVEL.NAME``."""
        values = self.arrays["sum_base"]["value"]
        found: dict[str, float] = {}
        for view, name in enumerate(VIEWS):
            n = int(values[3 * VIEW_WORDS + view])
            for number, one in enumerate(LEVELS if n else ()):
                start = view * VIEW_WORDS + number * REGIONS
                row = values[start : start + len(self.memory.regions)]
                found[f"{name}.missed_{one}"] = int(row.sum()) / n
                for part, count in zip(self.memory.regions, row.tolist(), strict=True):
                    if count:
                        found[f"{name}.missed_{one}.{part.name}"] = count / n
        return found


def _regions(memory: Memory) -> Array:
    """The regions' first lines as records, and one after the last."""
    assert len(memory.regions) <= REGIONS
    found = np.zeros(len(memory.regions) + 1, region.dtype)
    found["first"] = [*(part.first for part in memory.regions), 1 << 62]
    return found
