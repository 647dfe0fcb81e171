"""From the records of a counted run to sums per operation: NumPy over batches of some 100 000 records.

Views of the same records. ``lookup``: what happened inside the lookup's hooks of a fault, and all of a LOOKUP event.
``hit``: the same for those that the strategy's cache answered. ``fault``: all of a fault, its lookup included.
``mapping``: all of a mapping operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.engine.cost.memory import (
    ATOMIC,
    BARRIER,
    BRANCH,
    COUNTED,
    ENTER,
    EVENT,
    LEAVE,
    LINE,
    LOAD,
    OPERAND,
    SHIFT,
    STORE,
    Memory,
)
from benchframe.engine.cost.predictor import Predictor
from benchframe.mm.hooks import COUNT_FALLBACK, COUNT_HIT, COUNT_LOOKUP, COUNT_RETRY

Array = npt.NDArray[Any]
VIEWS = ("lookup", "fault", "mapping", "hit")
CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING = range(3)
COUNTS = {COUNT_LOOKUP: "lookups", COUNT_HIT: "hits", COUNT_RETRY: "retries", COUNT_FALLBACK: "fallbacks"}
NEAR = {"l1": 512, "l2": 16384}
"""Lines of a first- and a second-level cache, 32 KiB and 1 MiB: see ``far_l1``."""
IN_LOOKUP, WRITTEN, WRITTEN_IN_LOOKUP = 1, 2, 4
"""How an operation touched a line."""
_LINE_BITS = 31
_LINE_SHIFT = LINE.bit_length() - 1
_BATCH_BITS = 24
_LOW = (1 << SHIFT) - 1
_ONE = np.int32(1)


@dataclass
class View:
    """Sums over the operations of one view: per operation in a window, and over all."""

    windows: list[dict[str, int]] = field(default_factory=list)
    lines: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    """Histogram: operations that touched so many lines."""
    loads: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    def total(self, name: str) -> int:
        """A sum over all windows."""
        return sum(window.get(name, 0) for window in self.windows)


@dataclass(frozen=True)
class _Touched:
    """The distinct lines of each operation of a batch, in order of operation: ``flags`` says how (IN_LOOKUP ...)."""

    operation: Array
    line: Array
    flags: Array
    region: Array


class Tally:
    """Takes batches of records; each must begin with an event. O(n log n) in a batch's records."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.views = {name: View() for name in VIEWS}
        self.counted: list[dict[str, int]] = []
        self.predictor = Predictor()
        # When each line was last touched, counted in lines touched by all operations; untouched memory costs nothing.
        self._seen = np.zeros(memory.lines, np.int64)
        self._clock = self._began = 1
        self._sharing = {"lookup": _Sharing(memory.lines), "fault": _Sharing(memory.lines)}
        self.reuse = Reuse()
        self._times = dict(NEAR)
        names = [region.name for region in memory.regions]
        self._walked = np.array([name not in ("mm", "task") for name in names])
        self._task = names.index("task")

    def window(self, gap: bool) -> None:
        """A new window begins; with a ``gap`` what lies between it and the one before was not counted."""
        for view in self.views.values():
            view.windows.append({})
        self.counted.append({})
        if gap:
            self._began = self._clock

    def again(self) -> None:
        """Forget the sums; the predictor and the lines touched last stay: what was counted was to warm them up."""
        self._times = {level: self.reuse.time(lines) for level, lines in NEAR.items()}
        self.reuse = Reuse()
        self.views = {name: View() for name in VIEWS}
        self.counted = []
        self._sharing = {name: _Sharing(self.memory.lines) for name in self._sharing}

    def add(self, records: Array, tasks: Array) -> None:
        """Count a batch; ``tasks`` are those of its events, in order."""
        kind, low = (records >> SHIFT).astype(np.int8), records & _LOW
        begins = kind == EVENT
        operation = np.cumsum(begins, dtype=np.int32) - 1
        classes = low[begins].astype(np.int8)
        of_class = classes[operation]
        inside = of_class == CLASS_LOOKUP
        if (kind == ENTER).any():
            inside |= (of_class == CLASS_FAULT) & (
                np.cumsum((kind == ENTER) - (kind == LEAVE).astype(np.int8), dtype=np.int32) > 0
            )
        asked, faults, calls = classes != CLASS_MAPPING, classes == CLASS_FAULT, classes == CLASS_MAPPING
        hits = np.zeros(len(classes), bool)
        hits[operation[(kind == COUNTED) & (low == COUNT_HIT)]] = True
        hits &= asked
        chosen = {"lookup": inside, "fault": of_class == CLASS_FAULT, "mapping": of_class == CLASS_MAPPING}
        if hits.any():
            chosen["hit"] = inside & hits[operation]
        operations = {"lookup": asked, "fault": faults, "mapping": calls, "hit": hits}
        for name, which in chosen.items():
            if operations[name].any():
                self._events(name, kind, operation, which, operations[name])
        self._predicted(kind, low, chosen)
        touched = self._touched(kind, low, operation, inside)
        far = self._far(touched, len(classes))
        looked = (touched.flags & IN_LOOKUP) != 0
        for name, of in operations.items():
            if not of.any():
                continue
            bit = WRITTEN_IN_LOOKUP if name in ("lookup", "hit") else WRITTEN
            mine = looked if name == "lookup" else of[touched.operation]
            if name == "hit":
                mine = mine & looked
            self._lines(name, touched, mine, of, bit, tasks)
            sums = self.views[name].windows[-1]
            for level, (which, late) in far.items():
                _add(sums, f"far_{level}", self._steps(touched, which & mine))
                _add(sums, f"far_{level}_n", int(np.count_nonzero(of & late)))
        hooks = np.bincount(low[kind == COUNTED], minlength=len(COUNTS))
        for what, name in COUNTS.items():
            _add(self.counted[-1], name, int(hooks[what]))

    def _events(self, name: str, kind: Array, operation: Array, chosen: Array, operations: Array) -> None:
        """Loads, stores, atomics, barriers and branches of a view."""
        view = self.views[name]
        sums = view.windows[-1]
        per_kind = np.bincount(kind[chosen], minlength=COUNTED + 1)
        _add(sums, "n", int(np.count_nonzero(operations)))
        for what, number in (("loads", LOAD), ("stores", STORE), ("atomics", ATOMIC), ("barriers", BARRIER)):
            _add(sums, what, int(per_kind[number]))
        _add(sums, "branches", int(per_kind[BRANCH] + per_kind[OPERAND]))
        each = np.bincount(operation[chosen & (kind == LOAD)], minlength=len(operations))
        view.loads = _histogram(view.loads, each[operations])

    def _predicted(self, kind: Array, low: Array, chosen: dict[str, Array]) -> None:
        """Branches that the predictor has wrong."""
        places = np.flatnonzero(kind == BRANCH)
        wrong = places[self.predictor.missed(low[places])]
        for name, which in chosen.items():
            _add(self.views[name].windows[-1], "mispredicted", int(np.count_nonzero(which[wrong])))

    def _touched(self, kind: Array, low: Array, operation: Array, inside: Array) -> _Touched:
        places = np.flatnonzero(kind <= ATOMIC)
        written, within = kind[places] != LOAD, inside[places]
        flags = (
            within * np.int8(IN_LOOKUP) + written * np.int8(WRITTEN) + (written & within) * np.int8(WRITTEN_IN_LOOKUP)
        )
        keys = np.sort(
            (((operation[places].astype(np.int64) << _LINE_BITS) | (low[places] >> _LINE_SHIFT)) << 3) | flags
        )
        starts = np.flatnonzero(_new(keys >> 3))
        whole = keys[starts] >> 3
        line = whole & ((1 << _LINE_BITS) - 1)
        together = np.bitwise_or.reduceat(keys & 7, starts) if len(starts) else starts
        return _Touched(whole >> _LINE_BITS, line, together, self.memory.region_of(line))

    def _lines(self, name: str, touched: _Touched, chosen: Array, operations: Array, bit: int, tasks: Array) -> None:
        """Distinct lines, the steps of the walk, lines written."""
        memory, view = self.memory, self.views[name]
        sums = view.windows[-1]
        of, line, region = touched.operation[chosen], touched.line[chosen], touched.region[chosen]
        written = (touched.flags[chosen] & bit) != 0
        for number, found in enumerate(np.bincount(region, minlength=len(memory.regions)).tolist()):
            _add(sums, f"lines_{memory.regions[number].name}", found)
        _add(sums, "lines", len(line))
        view.lines = _histogram(view.lines, np.bincount(of, minlength=len(operations))[operations])
        _add(sums, "steps", self._steps(touched, chosen & self._walked[touched.region]))
        _add(sums, "dirty", int(np.count_nonzero(written)))
        if name in self._sharing:
            self._sharing[name].add(line, written & (region != self._task), tasks[of])

    def _steps(self, touched: _Touched, chosen: Array) -> int:
        """How many distinct records, or blocks of small ones, the chosen lines belong to."""
        line, region = touched.line[chosen], touched.region[chosen]
        first = self.memory.firsts[region]
        step = (touched.operation[chosen] << _LINE_BITS) | (first + (line - first) // self.memory.steps[region])
        return int(np.count_nonzero(_new(step)))

    def _far(self, touched: _Touched, count: int) -> dict[str, tuple[Array, Array]]:
        """Per level: which touched lines are likely to have left such a cache, and in which operations that can be
        known, the window being long enough."""
        when = self._clock + np.arange(len(touched.line))
        order = np.sort((touched.line << _BATCH_BITS) | np.arange(len(when))) & ((1 << _BATCH_BITS) - 1)
        lines = touched.line[order]
        before = np.empty(len(when), np.int64)
        before[order[1:]] = when[order[:-1]]
        fresh = order[_new(lines)]
        before[fresh] = self._seen[touched.line[fresh]]
        self._seen[touched.line] = when  # in order of time: the last one stays
        began = self._clock + np.searchsorted(touched.operation, np.arange(count))
        self._clock += len(when)
        unknown = before < self._began
        self.reuse.add((when - before)[~unknown])
        result = {}
        for level, time in self._times.items():
            late = began - self._began >= time
            far = unknown | (when - before > time)
            result[level] = (far & late[touched.operation], late)
        return result

    def shared(self, name: str) -> tuple[int, int]:
        """(lines written that some other operation of this view touches, that another task's touches), summed over
        operations; the writer's own task_struct is left out."""
        return self._sharing[name].meet()


class Reuse:
    """How long ago lines were touched last, in line touches; from that, how long a cache of n lines remembers.

    A window of w touches holds on average sum(P(reuse time >= k), k = 1..w) distinct lines: the k-th touch is to a new
    one if its line was not touched since the window began (Xiang et al., "HOTL", ASPLOS 2013). The time after which
    that is n is what an LRU cache of n lines remembers.
    """

    PARTS = 8

    def __init__(self) -> None:
        self._counts = np.zeros(64 * self.PARTS, np.int64)

    def add(self, times: Array) -> None:
        """Note reuse times, at least 1. Exact on every machine: frexp only takes a float apart."""
        if len(times):
            mantissa, exponent = np.frexp(times.astype(np.float64))
            part = ((mantissa - 0.5) * (2 * self.PARTS)).astype(np.int64)
            self._counts += np.bincount(exponent * self.PARTS + part, minlength=len(self._counts))

    def time(self, lines: int) -> int:
        """Touches after which ``lines`` other lines were touched, on average; 2^62 if never."""
        seen, at, total = 0.0, 1.0, int(self._counts.sum())
        left = total
        for number in np.flatnonzero(self._counts).tolist():
            exponent, part = divmod(number, self.PARTS)
            start = max(1.0, (0.5 + part / (2 * self.PARTS)) * 2.0**exponent)
            step = left / total * (start - at)
            if seen + step >= lines:
                return int(at + (lines - seen) * total / left)
            seen, at = seen + step, start
            left -= int(self._counts[number])
        return 1 << 62


class _Sharing:
    """Which lines are touched by more than one operation, by more than one task, and how often they are written."""

    def __init__(self, lines: int) -> None:
        self._touches, self._writes = np.zeros(lines, np.int32), np.zeros(lines, np.int32)
        # Task + 1 of the first that touched the line; -1 once there was another.
        self._toucher = np.zeros(lines, np.int32)
        self._known: list[Array] = []

    def add(self, line: Array, written: Array, tasks: Array) -> None:
        """Lines that operations of ``tasks`` touched, each once per operation, and which of them they wrote."""
        new = _distinct(line[self._touches[line] == 0])
        self._known.append(new)
        np.add.at(self._touches, line, _ONE)
        np.add.at(self._writes, line[written], _ONE)
        mine = (tasks + 1).astype(np.int32)
        self._toucher[line[::-1]] = np.where(self._toucher[line[::-1]] == 0, mine[::-1], self._toucher[line[::-1]])
        self._toucher[line[self._toucher[line] != mine]] = -1

    def meet(self) -> tuple[int, int]:
        """See :meth:`Tally.shared`."""
        known = np.concatenate([np.zeros(0, np.int64), *self._known])
        writes = self._writes[known].astype(np.int64)
        return int(writes[self._touches[known] > 1].sum()), int(writes[self._toucher[known] == -1].sum())


def _add(sums: dict[str, int], name: str, value: int) -> None:
    sums[name] = sums.get(name, 0) + value


def _new(keys: Array) -> Array:
    """Which of sorted keys differ from the one before."""
    if not len(keys):
        return np.zeros(0, bool)
    return np.concatenate(([True], keys[1:] != keys[:-1]))


def _distinct(keys: Array) -> Array:
    """The distinct keys, sorted."""
    keys = np.sort(keys)
    return np.asarray(keys[_new(keys)])


def _histogram(old: Array, values: Array) -> Array:
    new = np.bincount(values, minlength=len(old)) if len(values) else old * 0
    new[: len(old)] += old
    return new


def quantile(histogram: Array, share: float) -> int:
    """The smallest value that at least ``share`` of what the histogram counts does not exceed.

    >>> quantile(np.array([0, 5, 4, 1]), 0.5), quantile(np.array([0, 5, 4, 1]), 0.99)
    (1, 3)
    """
    total = int(histogram.sum())
    return int(np.searchsorted(np.cumsum(histogram), -(-total * round(share * 1000) // 1000)))
