"""From the records of a counted run to sums per operation: the memory behind :mod:`benchframe.engine.cost.sums`.

There are four views of the same records. ``lookup``: what happened inside the lookup hooks of a fault, and all of a
LOOKUP event. ``hit``: the same for lookups that the strategy's cache answered. ``fault``: all of a fault, including its
lookup. ``mapping``: all of a mapping operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.units import Units, UnitSpec
from benchframe.engine.cost import records as summing
from benchframe.engine.cost import sums
from benchframe.engine.cost.predictor import ROWS, TABLES, entry
from benchframe.engine.cost.records import Memory
from benchframe.mm.hooks import COUNT_FALLBACK, COUNT_HIT, COUNT_LOOKUP, COUNT_RETRY
from benchframe.mm.replay import CLASS_FAULT, CLASS_MAPPING

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
        self._unit = Units(summing.summing, ()).get(UnitSpec("tally", sums.tally_records, {}))
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
