"""A counted run's accesses played through caches: how many miss each level, by structure.

The records of :mod:`benchframe.engine.cost.records` in the order in which they were made, through three levels of
set-associative caches with least-recently-used replacement. Before each operation the caches are put into the state of
``--caches`` (:mod:`benchframe.engine.caches`): levels are emptied, or a program's footprint goes through them, as in a
timed cold replay. Line numbers and states are the same everywhere, so the result is too, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.units import Units, UnitSpec
from benchframe.engine.caches import L2, LINE, LLC, MEMORY, PAGE, PROGRAM, ROOM, Caches
from benchframe.engine.cost import misses
from benchframe.engine.cost.records import Memory, region, word

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


class Hierarchy:
    """Plays batches of records through the caches of ``sizes``, in one state of ``--caches``.

    A level that a timed replay empties by reading twice its size is simply empty here: under LRU the result is the
    same.
    """

    def __init__(self, memory: Memory, sizes: CacheSizes, asked: Caches) -> None:
        self.memory, self.asked = memory, asked
        counts = [sets * ways for sets, ways in zip(sizes.sets, sizes.ways, strict=True)]
        levels = np.zeros(3, misses.level.dtype)
        levels["sets"], levels["ways"] = sizes.sets, sizes.ways
        levels["offset"] = np.cumsum([0, *counts[:2]])
        self._state = np.zeros(1, misses.caches.dtype)
        self.arrays = {
            "region_base": _regions(memory),
            "level_base": levels,
            "tag_base": np.zeros(max(1, sum(counts)), word.dtype),
            "held_base": np.zeros(memory.lines, word.dtype),
            "sum_base": np.zeros(3 * misses.VIEW_WORDS + 3, word.dtype),
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
        self._unit = Units(misses.caches, ()).get(UnitSpec("caches", misses.play_records, {}))

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
            n = int(values[3 * misses.VIEW_WORDS + view])
            for number, one in enumerate(LEVELS if n else ()):
                start = view * misses.VIEW_WORDS + number * misses.REGIONS
                row = values[start : start + len(self.memory.regions)]
                found[f"{name}.missed_{one}"] = int(row.sum()) / n
                for part, count in zip(self.memory.regions, row.tolist(), strict=True):
                    if count:
                        found[f"{name}.missed_{one}.{part.name}"] = count / n
        return found


def _regions(memory: Memory) -> Array:
    """The regions' first lines as records, and one after the last."""
    assert len(memory.regions) <= misses.REGIONS
    found = np.zeros(len(memory.regions) + 1, region.dtype)
    found["first"] = [*(part.first for part in memory.regions), 1 << 62]
    return found
