"""A counted run's records played through a machine: misses of its caches, and what its core waits for.

The records of :mod:`benchframe.engine.cost.records` in the order in which they were made, through three levels of
set-associative caches with least-recently-used replacement. Before each operation the caches are put into the state of
``--caches`` (:mod:`benchframe.engine.caches`): levels are emptied, or a program's footprint goes through them, as in a
timed cold replay. Line numbers and states are the same everywhere, so the result is too, to the last bit.

The second part follows the records through a core: which of them each lookup waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect import native
from benchframe.dialect.records import Field, Slab, Struct
from benchframe.engine.caches import L2, LINE, LLC, MEMORY, PAGE, PROGRAM, ROOM, Cache, Caches
from benchframe.engine.cost.records import (
    ATOMIC,
    BARRIER,
    BRANCH,
    COUNTED,
    ENTER,
    EVENT,
    LEAVE,
    LINE_SHIFT,
    LOW,
    RECORD,
    REGION,
    SHIFT,
    STORE,
    Memory,
    region,
    word,
)
from benchframe.engine.cost.sums import ROWS, TABLES, entry, predict_branch
from benchframe.mm.hooks import COUNT_HIT
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING
from benchframe.units import Units, UnitSpec

LOOKUP, FAULT, MAPPING = range(3)
REGIONS = 32
"""The words of a level in SUM, one per region."""
VIEW_WORDS = 3 * REGIONS
"""The words of a view in SUM: its levels. The operations of each view follow behind all views."""
EPOCH = 40
"""A tag is the line + 1, and above this bit how often its level was emptied before."""

_CACHES = (
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
)
caches = Struct("caches", list(_CACHES))
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
        self._state = np.zeros(1, caches.dtype)
        self.arrays = {**_levels(memory, sizes), "sum_base": np.zeros(3 * VIEW_WORDS + 3, word.dtype)}
        _set_up(self._state, self.arrays, memory, asked)
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


def _levels(memory: Memory, sizes: CacheSizes) -> dict[str, Array]:
    """The empty caches, by base."""
    counts = [sets * ways for sets, ways in zip(sizes.sets, sizes.ways, strict=True)]
    levels = np.zeros(3, level.dtype)
    levels["sets"], levels["ways"] = sizes.sets, sizes.ways
    levels["offset"] = np.cumsum([0, *counts[:2]])
    return {
        "region_base": _regions(memory),
        "level_base": levels,
        "tag_base": np.zeros(max(1, sum(counts)), word.dtype),
        "held_base": np.zeros(memory.lines, word.dtype),
    }


def _set_up(state: Array, arrays: Mapping[str, Array], memory: Memory, asked: Caches) -> None:
    """Where the arrays are, and what happens between two operations."""
    for base, array in arrays.items():
        state[base] = array.ctypes.data
    state["emptied"] = {L2: 1, LLC: 2, MEMORY: 3}.get(asked.level, 0)
    if asked.level == PROGRAM:
        lines = -(-asked.touched // LINE)
        room = max(ROOM, 2 * lines * LINE) // LINE
        state["footprint"], state["last"] = lines, room - lines
        state["step"] = max(PAGE, asked.touched // 2 // PAGE * PAGE) // LINE
    state["other"] = memory.lines


def _regions(memory: Memory) -> Array:
    """The regions' first lines as records, and one after the last."""
    assert len(memory.regions) <= REGIONS
    found = np.zeros(len(memory.regions) + 1, region.dtype)
    found["first"] = [*(part.first for part in memory.regions), 1 << 62]
    found["step"] = [*(part.step for part in memory.regions), 1]
    found["walked"][:-1] = [_FOUND.get(part.name, POINTED) for part in memory.regions]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# What a lookup waits for: its critical path through a core that executes out of order.
#
# Records enter the core in program order, one after the other (WORK each), and are carried out when what they need is
# there. A load needs the place of its record of memory: that of mm and task is known, that of an entry of a page table
# comes from the load before in the tables, any other from the last load before the record was first touched. So the
# words of one node are loaded side by side, and nodes one after the other. A load whose line is on its way waits for
# the line. A mispredicted branch waits for all loads before it, since it needs the last, and stops what enters until
# then; so does a full barrier. What has entered leaves in order, and at most WINDOW records are inside.
#
# The time at which something happens is the largest of those that it waits for, plus its own. So each time comes with
# how often each of TERMS is in it, along the chain of what was waited for last: these are the counts of a lookup's
# critical path (Fields, Rubin, Bodik, "Focusing processor policies via critical-path prediction", ISCA 2001), and
# the sum of each times its ns is the time. A store and all that ends early are in no such chain: they take no time.
#
# A warm replay times many operations at once, so one begins while the one before ends. A cold one times each alone,
# from a clock that is read when the operation enters to one that is read when it has entered, and only those that
# benchframe.engine.cold.chosen_events draws; the others run between them and leave their lines in the caches.

TERMS = ("work", "mispredictions", "atomics", "depth", "from L2", "from LLC", "from memory")
"""What a path is made of: records that enter, mispredicted branches, atomic operations and barriers, loads, and those
whose line only that level had."""
WORK, MISPREDICTIONS, ATOMICS, DEPTH, FROM = range(5)
WINDOW = 150
"""Records inside the core. A record stands for two or three instructions; a core of today holds 224 (Skylake, Zen 2) to
512."""
FIXED, TABLE, POINTED = range(3)
"""How the place of a region's record is known: always, from the table above, from a pointer."""
_FOUND = {"mm": FIXED, "task": FIXED, "pte": TABLE, "page": TABLE}
WIDTH = 2 + len(TERMS)
"""The words of a stamp: the operation that made it, a time in fs, and the counts of TERMS in it."""
FRONT, START, NOW, LATEST, LATEST_TABLE, LOADED, RETIRED, RING = range(8)
"""Stamps: when the next record enters; when the operation began; when the record at hand is done; the load before, the
one in page tables, the last of all loads; when all so far have left; and from RING on, when each of the last WINDOW
left. Behind them are those of places by record of memory, and of lines on their way."""
PLACES = RING + WINDOW

core = Struct(
    "core",
    [
        # Not last: Numba would take a struct that begins as ``caches`` does for one, and warn.
        Field("entry_base", "i8", "slab ENTRY of the predictor", lock="constant"),
        *_CACHES,
        ("recent", "i8", "the predictor's history"),
        ("older", "i8", "likewise"),
        Field("stamp_base", "i8", "slab STAMP: WIDTH words each", lock="constant"),
        Field("unit_base", "i8", "slab UNIT: fs of each term", lock="constant"),
        Field("chosen_base", "i8", "slab CHOSEN: per event of the stream, whether it is timed", lock="constant"),
        Field("lines", "i8", "lines of memory", lock="constant"),
        Field("alone", "i8", "1: operations are timed one by one", lock="constant"),
        Field("known", "i8", "1: answers are known, lookups are left out", lock="constant"),
        ("event", "i8", "the next event"),
        ("serial", "i8", "operations begun so far"),
        ("timed", "i8", "1 if this one is timed"),
        ("hit", "i8", "1 if the cache answered"),
        ("ring", "i8", "the oldest record inside"),
    ],
)
STAMP = Slab("STAMP", word, "stamp_base", first=0)
UNIT = Slab("UNIT", word, "unit_base", first=0)
CHOSEN = Slab("CHOSEN", word, "chosen_base", first=0)
PATH = Slab("PATH", word, "sum_base", first=0)


@native
def follow_records(t, count):
    """Follow a batch of ``count`` records, which begins with an event."""
    index = 0
    while index < count:
        value = RECORD(t, index).value
        index += 1
        kind = value >> SHIFT
        low = value & LOW
        if kind == EVENT:
            end_operation(t)
            begin_operation(t, low)
        elif kind == ENTER:
            t.depth += 1
        elif kind == LEAVE:
            t.depth -= 1
        elif kind == COUNTED:
            if low == COUNT_HIT:
                t.hit = 1
        elif not t.known or t.kind == CLASS_MAPPING or (t.kind == CLASS_FAULT and t.depth == 0):
            carry_out(t, kind, low)
    return count


@native
def begin_operation(t, kind):
    """The next event: other memory goes through the caches if it is timed alone."""
    t.kind = kind
    t.depth = 0
    t.hit = 0
    t.serial += 1
    t.timed = int(CHOSEN(t, t.event).value != 0 and kind != CLASS_MAPPING)
    if CHOSEN(t, t.event).value != 0:
        between(t)
    t.event += 1
    if t.alone:
        at = 0
        while at < PLACES * WIDTH:
            STAMP(t, at).value = 0
            at += 1
    set_stamp(t, START, FRONT)
    set_stamp(t, LATEST, FRONT)
    set_stamp(t, LATEST_TABLE, FRONT)
    set_stamp(t, LOADED, FRONT)
    return 0


@native
def end_operation(t):
    """Add what the operation took to the sums of all lookups, and to those of hits."""
    if t.timed:
        view = 0
        while view <= t.hit:
            PATH(t, view * WIDTH).value += 1
            part = 1
            while part < WIDTH:
                took = STAMP(t, FRONT * WIDTH + part).value - STAMP(t, START * WIDTH + part).value
                PATH(t, view * WIDTH + part).value += took
                part += 1
            view += 1
    t.timed = 0
    return 0


@native
def carry_out(t, kind, low):
    """One record enters, and is carried out when what it needs is there."""
    wait_for(t, FRONT, RING + t.ring)
    spend(t, FRONT, WORK)
    if kind <= ATOMIC:
        reach(t, kind, low >> LINE_SHIFT)
    elif kind == BARRIER:
        wait_for(t, FRONT, LOADED)
        spend(t, FRONT, ATOMICS)
    elif kind == BRANCH and predict_branch(t, low >> 1, low & 1):
        wait_for(t, FRONT, LOADED)
        spend(t, FRONT, MISPREDICTIONS)
    wait_for(t, RETIRED, FRONT)
    set_stamp(t, RING + t.ring, RETIRED)
    t.ring += 1
    if t.ring == WINDOW:
        t.ring = 0
    return 0


@native
def reach(t, kind, line):
    """An access: it waits for the place of its record, and for its line."""
    number = 0
    while REGION(t, number + 1).first <= line:
        number += 1
    r = REGION(t, number)
    set_stamp(t, NOW, FRONT)
    if r.walked != FIXED:
        place = PLACES + r.first + (line - r.first) // r.step
        if STAMP(t, place * WIDTH).value != t.serial:
            if r.walked == TABLE:
                set_stamp(t, place, LATEST_TABLE)
            else:
                set_stamp(t, place, LATEST)
            STAMP(t, place * WIDTH).value = t.serial
        wait_for(t, NOW, place)
    spend(t, NOW, DEPTH)
    way = PLACES + t.lines + line
    missed = missed_levels(t, line)
    if missed > 0:
        spend(t, NOW, FROM + missed - 1)
        set_stamp(t, way, NOW)
        STAMP(t, way * WIDTH).value = t.serial
    elif STAMP(t, way * WIDTH).value == t.serial:
        wait_for(t, NOW, way)
    if kind == ATOMIC:
        spend(t, NOW, ATOMICS)
    if kind != STORE:
        set_stamp(t, LATEST, NOW)
        if r.walked == TABLE:
            set_stamp(t, LATEST_TABLE, NOW)
        wait_for(t, LOADED, NOW)
        wait_for(t, RETIRED, NOW)
    return 0


@native
def missed_levels(t, line):
    """How many levels do not have the line; afterwards all have."""
    if cached(t, 0, line):
        return 0
    if cached(t, 1, line):
        return 1
    if cached(t, 2, line):
        return 2
    return 3


@native
def set_stamp(t, to, stamp):
    """Copy a stamp, but for who made it."""
    part = 1
    while part < WIDTH:
        STAMP(t, to * WIDTH + part).value = STAMP(t, stamp * WIDTH + part).value
        part += 1
    return 0


@native
def wait_for(t, who, stamp):
    """The later of the two."""
    if STAMP(t, stamp * WIDTH + 1).value > STAMP(t, who * WIDTH + 1).value:
        set_stamp(t, who, stamp)
    return 0


@native
def spend(t, stamp, term):
    """One unit of a term."""
    STAMP(t, stamp * WIDTH + 1).value += UNIT(t, term).value
    STAMP(t, stamp * WIDTH + 2 + term).value += 1
    return 0


class CriticalPath:
    """Follows batches of records through a core whose operations take ``units`` ns (by TERMS), with caches of ``sizes``
    in state ``asked``. ``chosen``: whether each event of the stream is timed. As a figure of a run, a path is that of
    the full replay less that of one with known answers, each with caches and a predictor of its own."""

    def __init__(
        self, memory: Memory, sizes: CacheSizes, asked: Caches, units: Mapping[str, float], chosen: Array
    ) -> None:
        self._unit = Units(core, ()).get(UnitSpec("core", follow_records, {}))
        self._chosen = chosen.astype(np.int64)
        self._fs = np.array([round(units[name] * 1e6) for name in TERMS], np.int64)
        self._cores = [self._core(memory, sizes, asked, known) for known in (0, 1)]

    def _core(self, memory: Memory, sizes: CacheSizes, asked: Caches, known: int) -> tuple[Array, dict[str, Array]]:
        state = np.zeros(1, core.dtype)
        arrays = {
            **_levels(memory, sizes),
            "sum_base": np.zeros(2 * WIDTH, np.int64),
            "entry_base": np.zeros(TABLES * ROWS, entry.dtype),
            "stamp_base": np.zeros((PLACES + 2 * memory.lines) * WIDTH, np.int64),
            "unit_base": self._fs,
            "chosen_base": self._chosen,
        }
        _set_up(state, arrays, memory, asked)
        state["lines"], state["alone"], state["known"] = memory.lines, int(not asked.warm), known
        return state, arrays

    def add(self, records: Array, first: int) -> None:
        """Follow a batch that begins with event ``first``. About 50 ns a record."""
        records = np.ascontiguousarray(records, np.int64)
        for state, _ in self._cores:
            state["record_base"], state["event"] = records.ctypes.data, first
            self._unit(state.ctypes.data, len(records))

    def again(self) -> None:
        """Reset the sums: the stream begins anew."""
        for state, arrays in self._cores:
            arrays["sum_base"][:] = 0
            state["timed"] = 0

    def numbers(self) -> dict[str, float]:
        """Means over the timed operations that have ended: ``VIEW.path.TERM`` of all lookups, and of hits."""
        sums = [arrays["sum_base"].reshape(2, WIDTH) for _, arrays in self._cores]
        found: dict[str, float] = {}
        for row, view in enumerate(("lookup", "hit")):
            n = int(sums[0][row, 0])
            for number, name in enumerate(TERMS if n else ()):
                found[f"{view}.path.{name}"] = int(sums[0][row, 2 + number] - sums[1][row, 2 + number]) / n
        return found
