"""From the records of a counted run to sums per operation, with the branches that a predictor would mispredict.

Mispredicted branches are those of a small TAGE predictor, written in the dialect with integers only, so equal on all
machines. A base table of two-bit counters by branch, and four tagged tables indexed by branch and the last 8,
24, 62 and 124 outcomes. The longest history that knows the branch decides; a misprediction allocates an entry for a
longer one (Seznec and Michaud, "A case for (partially) TAgged GEometric history length branch prediction", JILP 8,
2006). Today's processors have predictors of this family, with longer histories and more tables: this is an estimate of
them, not a copy of one.

One pass over a batch counts the records of an operation by kind as they come, keeps the distinct lines of
the operation in TOUCH, sorts them when the operation ends, and walks them once per view. About 15 ns per record.

There are four views of the same records. ``lookup``: what happened inside the lookup hooks of a fault, and all of a
LOOKUP event. ``hit``: the same for lookups that the strategy's cache answered. ``fault``: all of a fault, including its
lookup. ``mapping``: all of a mapping operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect import Field, Slab, Struct, fls, native
from benchframe.engine.cost import records as summing
from benchframe.engine.cost.records import (
    ATOMIC,
    BRANCH,
    BRANCHES,
    COUNTED,
    DIRTY,
    ENTER,
    EVENT,
    FAR1,
    FAR1_N,
    FAR2,
    FAR2_N,
    FAR_L1,
    FAR_L2,
    FAULT,
    HIT,
    HOOK,
    HOOKS,
    IN_LOOKUP,
    KINDS,
    LEAVE,
    LINE_SHIFT,
    LINES,
    LOAD,
    LOADS,
    LOOKUP,
    LOW,
    MAPPING,
    MISPREDICTED,
    NOW,
    OPERAND,
    OPERATION,
    PARTS,
    RECORD,
    REGION,
    REGIONS,
    REUSE,
    SEEN,
    SHARING,
    SHIFT,
    STEPS,
    SUM,
    SUMS,
    TOUCH,
    WRITTEN,
    WRITTEN_IN_LOOKUP,
    WRONG,
    Memory,
    N,
)
from benchframe.mm.hooks import COUNT_FALLBACK, COUNT_HIT, COUNT_LOOKUP, COUNT_RETRY
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING
from benchframe.units import Units, UnitSpec

predictor = Struct(
    "predictor",
    [
        Field("branch_base", "i8", "slab BRANCH", lock="constant"),
        Field("entry_base", "i8", "slab ENTRY", lock="constant"),
        ("recent", "i8", "the last 62 outcomes, the latest in bit 0"),
        ("older", "i8", "the 62 before"),
    ],
)
branch = Struct("branch", [("code", "i8", "2 * branch + outcome"), ("missed", "i8", "1 if it was predicted wrongly")])
entry = Struct(
    "entry",
    [
        ("tag", "i8", "which branch and history, hashed; 0 = free"),
        ("counter", "i4", "-4 to 3; taken from 0 on"),
        ("useful", "i4", "0 to 3: was right where a shorter history was not"),
    ],
)
PREDICTED = Slab("BRANCH", branch, "branch_base", first=0)
ENTRY = Slab("ENTRY", entry, "entry_base", first=0)
TABLES = 5
ROWS = 1 << 12
MASK = (1 << 62) - 1


@native
def folded(p, table):
    """The history that ``table`` uses, in 31 bits: 0 for the base table, then 8, 24, 62, 124 outcomes."""
    if table == 0:
        return 0
    if table == 1:
        return p.recent & 0xFF
    if table == 2:
        return p.recent & 0xFFFFFF
    seen = (p.recent ^ (p.recent >> 31)) & 0x7FFFFFFF
    if table == 3:
        return seen
    return (seen * 5 + ((p.older ^ (p.older >> 31)) & 0x7FFFFFFF) * 3) & 0x7FFFFFFF


@native
def hashed(p, site, table):
    """A hash of branch and history: 60 bits."""
    mixed = (folded(p, table) * 0x1F123BB5 + site * 0x2545F491 + table) & MASK
    mixed = mixed ^ (mixed >> 29)
    mixed = ((mixed & 0x3FFFFFFF) * 0x27D4EB2D + (mixed >> 30)) & MASK
    return mixed ^ (mixed >> 27)


@native
def place(p, site, table):
    """The row of ENTRY."""
    return table * ROWS + (hashed(p, site, table) & (ROWS - 1))


@native
def tag(p, site, table):
    """The tag of this branch and history; the base table has no tags."""
    if table == 0:
        return 0
    return 1 + (hashed(p, site, table) >> 20)


@native
def allocate(p, site, above, taken):
    """After a misprediction: allocate an entry in the first longer table that has a useless one in this place, else age
    them."""
    table = above + 1
    while table < TABLES:
        e = ENTRY(p, place(p, site, table))
        if e.useful == 0:
            e.tag = tag(p, site, table)
            e.counter = taken - 1
            return table
        e.useful -= 1
        table += 1
    return 0


@native
def predict_branch(p, site, taken):
    """Predict and learn one branch, ``taken`` 0 or 1: 1 if it was mispredicted. The base table always knows the branch;
    the longest history that knows it decides. Selections are computed as sums, since branches on them would be
    unpredictable."""
    row = place(p, site, 0)
    shorter = row
    table = 1
    while table < TABLES:
        mine = hashed(p, site, table)
        at = table * ROWS + (mine & (ROWS - 1))
        known = int(ENTRY(p, at).tag == 1 + (mine >> 20))
        shorter += known * (row - shorter)
        row += known * (at - row)
        table += 1
    table = row // ROWS
    e = ENTRY(p, row)
    guess = int(e.counter >= 0)
    if table > 0 and guess != int(ENTRY(p, shorter).counter >= 0):
        e.useful = min(3, max(0, e.useful + 2 * int(guess == taken) - 1))
    e.counter = min(3, max(-4, e.counter + 2 * taken - 1))
    if guess != taken:
        allocate(p, site, table, taken)
    p.older = ((p.older << 1) | (p.recent >> 61)) & MASK
    p.recent = ((p.recent << 1) | taken) & MASK
    return int(guess != taken)


@native
def predict(p, first, last):
    """Predict and learn branches [first, last): returns how many were mispredicted; BRANCH.missed says which."""
    wrong = 0
    index = first
    while index < last:
        b = PREDICTED(p, index)
        b.missed = predict_branch(p, b.code >> 1, b.code & 1)
        wrong += b.missed
        index += 1
    return wrong


class Predictor:
    """A predictor with its state; each call of :meth:`missed` also trains it. About 20 ns per branch."""

    def __init__(self) -> None:
        self._unit = Units(predictor, ()).get(UnitSpec("predictor", predict, {}))
        self._state = np.zeros(1, predictor.dtype)
        self._entries = np.zeros(TABLES * ROWS, entry.dtype)
        self._state["entry_base"] = self._entries.ctypes.data

    def missed(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the branches, each as 2 * branch + outcome, are mispredicted."""
        records = np.zeros(len(codes), branch.dtype)
        records["code"] = codes
        self._state["branch_base"] = records.ctypes.data
        self._unit(self._state.ctypes.data, 0, len(codes))
        return np.asarray(records["missed"] != 0)


@native
def tally_records(t, count):
    """Count a batch of ``count`` records; each batch begins with an event."""
    t.operations = 0
    index = 0
    while index < count:
        value = RECORD(t, index).value
        index += 1
        kind = value >> SHIFT
        low = value & LOW
        if kind == EVENT:
            if t.operations > 0:
                finish(t)
            begin(t, low)
        elif kind == ENTER:
            t.depth += 1
        elif kind == LEAVE:
            t.depth -= 1
        else:
            inside = int(t.kind == CLASS_LOOKUP or (t.kind == CLASS_FAULT and t.depth > 0))
            NOW(t, 2 * kind + inside).value += 1
            if kind <= ATOMIC:
                touch_line(t, low >> LINE_SHIFT, inside, int(kind != LOAD))
            elif kind == BRANCH:
                NOW(t, 2 * MISPREDICTED + inside).value += predict_branch(t, low >> 1, low & 1)
            elif kind == COUNTED:
                HOOK(t, low & (HOOKS - 1)).value += 1
                if low == COUNT_HIT:
                    t.hit = 1
    if t.operations > 0:
        finish(t)
    return t.operations


@native
def begin(t, kind):
    """An operation begins."""
    t.kind = kind
    t.depth = 0
    t.hit = 0
    t.touched = 0
    t.latest = -1
    t.serial += 1
    t.operations += 1
    number = 0
    while number < 2 * KINDS:
        NOW(t, number).value = 0
        number += 1
    return 0


@native
def touch_line(t, line, inside, written):
    """The operation touches a line. O(1)."""
    how = inside * IN_LOOKUP + written * WRITTEN + inside * written * WRITTEN_IN_LOOKUP
    if t.latest >= 0 and TOUCH(t, t.latest).line == line:
        TOUCH(t, t.latest).how |= how
        return 0
    s = SEEN(t, line)
    if s.serial == t.serial:
        t.latest = s.slot
        TOUCH(t, s.slot).how |= how
        return 0
    s.serial = t.serial
    s.slot = t.touched
    t.latest = t.touched
    new = TOUCH(t, t.touched)
    new.line = line
    new.how = how
    t.touched += 1
    return 1


@native
def finish(t):
    """The operation ends: add it to the sums of its views."""
    o = OPERATION(t, t.operations - 1)
    o.kind = t.kind
    o.hit = int(t.hit == 1 and t.kind != CLASS_MAPPING)
    o.loads = NOW(t, 2 * LOAD).value + NOW(t, 2 * LOAD + 1).value
    o.lookup_loads = NOW(t, 2 * LOAD + 1).value
    o.lines = t.touched
    o.lookup_lines = 0
    sort_lines(t)
    late = note_times(t)
    if t.kind == CLASS_MAPPING:
        add_events(t, MAPPING, 1)
        walk_lines(t, MAPPING, 0, WRITTEN, late)
        return 0
    add_events(t, LOOKUP, 0)
    o.lookup_lines = walk_lines(t, LOOKUP, IN_LOOKUP, WRITTEN_IN_LOOKUP, late)
    share_lines(t, 0, IN_LOOKUP, WRITTEN_IN_LOOKUP, o.task)
    if o.hit:
        add_events(t, HIT, 0)
        walk_lines(t, HIT, IN_LOOKUP, WRITTEN_IN_LOOKUP, late)
    if t.kind == CLASS_FAULT:
        add_events(t, FAULT, 1)
        walk_lines(t, FAULT, 0, WRITTEN, late)
        share_lines(t, 1, 0, WRITTEN, o.task)
    return 0


@native
def add_events(t, view, outside):
    """Add operations, loads, stores, atomics, barriers, branches; those outside the lookup too if ``outside``."""
    base = view * SUMS
    SUM(t, base + N).value += 1
    kind = LOAD
    while kind < BRANCH:  # loads, stores, atomics, barriers, in the order of the sums
        SUM(t, base + LOADS + kind).value += NOW(t, 2 * kind + 1).value + outside * NOW(t, 2 * kind).value
        kind += 1
    kind = BRANCH
    while kind <= OPERAND:
        SUM(t, base + BRANCHES).value += NOW(t, 2 * kind + 1).value + outside * NOW(t, 2 * kind).value
        kind += 1
    wrong = NOW(t, 2 * MISPREDICTED + 1).value + outside * NOW(t, 2 * MISPREDICTED).value
    SUM(t, base + WRONG).value += wrong
    return 0


@native
def sort_lines(t):
    """Sort TOUCH by line: Shell's sort, with gaps 3 k + 1. Most operations touch about ten lines."""
    count = t.touched
    gap = 1
    while gap * 3 + 1 < count:
        gap = gap * 3 + 1
    while gap > 0:
        at = gap
        while at < count:
            line = TOUCH(t, at).line
            how = TOUCH(t, at).how
            place = at
            while place >= gap and TOUCH(t, place - gap).line > line:
                TOUCH(t, place).line = TOUCH(t, place - gap).line
                TOUCH(t, place).how = TOUCH(t, place - gap).how
                place -= gap
            TOUCH(t, place).line = line
            TOUCH(t, place).how = how
            at += 1
        gap = gap // 3
    return 0


@native
def note_times(t):
    """When each line was last touched: into REUSE, and FAR_* for lines that a cache has probably lost. Returns the
    levels (FAR_*) for which this can be known, the window being long enough."""
    age = t.clock - t.began
    late = int(age >= t.time_l1) * FAR_L1 + int(age >= t.time_l2) * FAR_L2
    index = 0
    while index < t.touched:
        one = TOUCH(t, index)
        s = SEEN(t, one.line)
        ago = t.clock - s.when
        unknown = s.when < t.began
        if not unknown:
            REUSE(t, reuse_class(ago)).value += 1
        if unknown or ago > t.time_l1:
            one.how |= late & FAR_L1
        if unknown or ago > t.time_l2:
            one.how |= late & FAR_L2
        s.when = t.clock
        t.clock += 1
        index += 1
    return late


@native
def reuse_class(ago):
    """PARTS classes per power of two: 8 * bits of ``ago`` + the three bits below its highest one."""
    bits = max(fls(ago), 1)
    return bits * PARTS + (((ago << 4) >> bits) & (PARTS - 1))


@native
def walk_lines(t, view, chosen, written, late):
    """Distinct lines of a view (``chosen`` is a bit of ``how``, 0 for all), its steps, and lines written. Returns the
    number of lines."""
    base = view * SUMS
    lines = 0
    steps = 0
    dirty = 0
    far1 = 0
    far2 = 0
    last = -1  # the step of the line before, among walked ones; likewise for far ones
    last1 = -1
    last2 = -1
    number = 0
    index = 0
    while index < t.touched:
        one = TOUCH(t, index)
        index += 1
        how = one.how
        if chosen and not how & chosen:
            continue
        while REGION(t, number + 1).first <= one.line:
            number += 1
        r = REGION(t, number)
        step = r.first + (one.line - r.first) // r.step
        lines += 1
        SUM(t, base + REGIONS + number).value += 1
        if r.walked and step != last:
            last = step
            steps += 1
        if how & written:
            dirty += 1
        if how & FAR_L1 and step != last1:
            last1 = step
            far1 += 1
        if how & FAR_L2 and step != last2:
            last2 = step
            far2 += 1
    SUM(t, base + LINES).value += lines
    SUM(t, base + STEPS).value += steps
    SUM(t, base + DIRTY).value += dirty
    SUM(t, base + FAR1).value += far1
    SUM(t, base + FAR2).value += far2
    SUM(t, base + FAR1_N).value += int((late & FAR_L1) != 0)
    SUM(t, base + FAR2_N).value += int((late & FAR_L2) != 0)
    return lines


@native
def share_lines(t, which, chosen, written, task):
    """Which other operations touch the lines: ``which`` 0 among lookups, 1 among faults. A write counts once another
    operation has touched the line too, before or after it."""
    number = 0
    index = 0
    shared = 0
    between = 0
    while index < t.touched:
        one = TOUCH(t, index)
        index += 1
        if chosen and not one.how & chosen:
            continue
        while REGION(t, number + 1).first <= one.line:
            number += 1
        wrote = int((one.how & written) != 0 and REGION(t, number).own == 0)
        s = SHARING(t, which * t.lines + one.line)
        s.touches += 1
        s.writes += wrote
        if s.touches == 2:
            shared += s.writes
        elif s.touches > 2:
            shared += wrote
        if s.toucher == 0:
            s.toucher = task + 1
        elif s.toucher > 0 and s.toucher != task + 1:
            s.toucher = -1
            between += s.writes
        elif s.toucher < 0:
            between += wrote
    if which == 0:
        t.shared_lookup += shared
        t.between_lookup += between
    else:
        t.shared_fault += shared
        t.between_fault += between
    return 0


Array = npt.NDArray[Any]
VIEWS = ("lookup", "fault", "mapping", "hit")
COUNTS = {COUNT_LOOKUP: "lookups", COUNT_HIT: "hits", COUNT_RETRY: "retries", COUNT_FALLBACK: "fallbacks"}
NEAR = {"l1": 512, "l2": 16384}
"""The number of lines of a first- and a second-level cache, 32 KiB and 1 MiB: see ``far_l1``."""
NAMES = ("n", "loads", "stores", "atomics", "barriers", "branches", "mispredicted", "lines", "steps", "dirty",
         "far_l1", "far_l1_n", "far_l2", "far_l2_n")  # fmt: skip
"""The sums of a view, in the order of summing.N ... summing.FAR2_N."""


@dataclass
class View:
    """Sums over the operations of one view: per window, and in total."""

    windows: list[dict[str, int]] = field(default_factory=list)
    lines: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    """A histogram: the number of operations by number of lines touched."""
    loads: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    def total(self, name: str) -> int:
        """A sum over all windows."""
        return sum(window.get(name, 0) for window in self.windows)


class Tally:
    """Takes batches of records; each must begin with an event. Some 15 ns a record.

    ``arrays`` are the slabs of :mod:`~benchframe.engine.cost.records` by base; their untouched parts take no memory.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.views = {name: View() for name in VIEWS}
        self.counted: list[dict[str, int]] = []
        self.reuse = Reuse()
        self._unit = Units(summing.summing, ()).get(UnitSpec("tally", tally_records, {}))
        self._state = np.zeros(1, summing.summing.dtype)
        self.arrays = {
            "seen_base": np.zeros(memory.lines, summing.seen.dtype),
            "touch_base": np.zeros(memory.lines, summing.touch.dtype),
            "region_base": _regions(memory),
            "now_base": np.zeros(2 * summing.KINDS, summing.word.dtype),
            "sum_base": np.zeros(len(VIEWS) * summing.SUMS, summing.word.dtype),
            "hook_base": np.zeros(summing.HOOKS, summing.word.dtype),
            "entry_base": np.zeros(TABLES * ROWS, entry.dtype),
        }
        for base, array in self.arrays.items():
            self._state[base] = array.ctypes.data
        self._state["lines"] = memory.lines
        self._state["clock"] = self._state["began"] = 1
        self._state["time_l1"], self._state["time_l2"] = NEAR["l1"], NEAR["l2"]
        self._forget()

    def _forget(self) -> None:
        """Forget which lines are shared, and all reuse times."""
        self.reuse = Reuse()
        self.arrays["sharing_base"] = np.zeros(2 * self.memory.lines, summing.sharing.dtype)
        self._state["sharing_base"] = self.arrays["sharing_base"].ctypes.data
        self._state["reuse_base"] = self.reuse.counts.ctypes.data
        for name in ("lookup", "fault"):
            self._state[f"shared_{name}"] = self._state[f"between_{name}"] = 0

    def window(self, gap: bool) -> None:
        """Begin a new window; with a ``gap`` the events between it and the previous one were not counted."""
        for view in self.views.values():
            view.windows.append({})
        self.counted.append({})
        if gap:
            self._state["began"] = self._state["clock"]

    def again(self) -> None:
        """Reset the sums but keep the predictor and the lines touched last: the count so far was for warming up."""
        for level, lines in NEAR.items():
            self._state[f"time_{level}"] = self.reuse.time(lines)
        self.views = {name: View() for name in VIEWS}
        self.counted = []
        self._forget()

    def add(self, records: Array, tasks: Array) -> None:
        """Count a batch; ``tasks`` are those of its events, in order."""
        records = np.ascontiguousarray(records, np.int64)
        operations = np.zeros(len(tasks), summing.operation.dtype)
        operations["task"] = tasks
        self._state["record_base"] = records.ctypes.data
        self._state["operation_base"] = operations.ctypes.data
        begun = self._unit(self._state.ctypes.data, 0 if not len(tasks) else len(records))
        assert begun == len(tasks)
        self._read(operations)

    def _read(self, operations: Array) -> None:
        """From the unit's sums to those of the window, and to the histograms."""
        table = self.arrays["sum_base"]["value"].reshape(len(VIEWS), summing.SUMS)
        kind = operations["kind"]
        chosen = {
            "lookup": kind != CLASS_MAPPING,
            "fault": kind == CLASS_FAULT,
            "mapping": kind == CLASS_MAPPING,
            "hit": operations["hit"] != 0,
        }
        for name, row in zip(VIEWS, table.tolist(), strict=True):
            if not row[summing.N]:
                continue
            view = self.views[name]
            for what, value in zip(NAMES, row, strict=False):
                _add(view.windows[-1], what, value)
            for number, region in enumerate(self.memory.regions):
                _add(view.windows[-1], f"lines_{region.name}", row[summing.REGIONS + number])
            part = "lookup_" if name in ("lookup", "hit") else ""
            view.lines = _histogram(view.lines, operations[f"{part}lines"][chosen[name]])
            view.loads = _histogram(view.loads, operations[f"{part}loads"][chosen[name]])
        for hook, text in COUNTS.items():
            _add(self.counted[-1], text, int(self.arrays["hook_base"]["value"][hook]))
        table[:] = 0
        self.arrays["hook_base"]["value"] = 0

    def shared(self, name: str) -> tuple[int, int]:
        """(lines written that some other operation of this view touches, lines written that another task's operation
        touches), summed over operations; the writer's own task_struct is left out."""
        return int(self._state[f"shared_{name}"][0]), int(self._state[f"between_{name}"][0])


def _regions(memory: Memory) -> Array:
    """The regions as records, and one after the last."""
    found = np.zeros(len(memory.regions) + 1, summing.region.dtype)
    found["first"] = [*(region.first for region in memory.regions), 1 << 62]
    found["step"] = [*(region.step for region in memory.regions), 1]
    found["walked"][:-1] = [region.name not in ("mm", "task") for region in memory.regions]
    found["own"][:-1] = [region.name == "task" for region in memory.regions]
    return found


class Reuse:
    """The reuse distances of lines, in line touches; from them, how long a cache of n lines keeps a line.

    A window of w touches holds on average sum(P(reuse time >= k), k = 1..w) distinct lines: the k-th touch is to a new
    one if its line was not touched since the window began (Xiang et al., "HOTL", ASPLOS 2013). An LRU cache of n lines
    keeps a line for the time w at which this is n. ``counts`` are by sums.reuse_class.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(64 * summing.PARTS, np.int64)

    def time(self, lines: int) -> int:
        """The average number of touches until ``lines`` other lines have been touched; 2^62 if never."""
        seen, at, total = 0.0, 1.0, int(self.counts.sum())
        left = total
        for number in np.flatnonzero(self.counts).tolist():
            exponent, part = divmod(number, summing.PARTS)
            start = max(1.0, (0.5 + part / (2 * summing.PARTS)) * 2.0**exponent)
            step = left / total * (start - at)
            if seen + step >= lines:
                return int(at + (lines - seen) * total / left)
            seen, at = seen + step, start
            left -= int(self.counts[number])
        return 1 << 62


def _add(found: dict[str, int], name: str, value: int) -> None:
    found[name] = found.get(name, 0) + value


def _histogram(old: Array, values: Array) -> Array:
    new = np.bincount(values, minlength=len(old)) if len(values) else old * 0
    new[: len(old)] += old
    return new


def quantile(histogram: Array, share: float) -> int:
    """The ``share`` quantile of the histogram: the smallest value that at least this share does not exceed.

    >>> quantile(np.array([0, 5, 4, 1]), 0.5), quantile(np.array([0, 5, 4, 1]), 0.99)
    (1, 3)
    """
    total = int(histogram.sum())
    return int(np.searchsorted(np.cumsum(histogram), -(-total * round(share * 1000) // 1000)))
