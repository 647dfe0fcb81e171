"""When each process runs: presets, rounds, their shuffled order, and the time budget.

A *round* runs one worker process for every cell, in an order shuffled by the run's seed, so that drift of the
machine (heat, other load) hits all cells alike and ratios can be paired by round. The order of round ``r``
depends on the seed, ``r`` and the set of cells alone: a resumed run walks the same schedule as an unbroken one.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

LAYOUTS = 1 << 31
"""Layout seeds lie in [0, LAYOUTS)."""


@dataclass(frozen=True)
class Depth:
    """How much is measured: ``rounds`` processes per cell, each with ``warmups`` unrecorded and ``values``
    recorded timings of at least ``min_time`` seconds. The worker warms up with an eighth of a value in any case."""

    rounds: int
    values: int
    warmups: int
    min_time: float


DEPTHS: dict[str, Depth] = {
    "quick": Depth(rounds=3, values=3, warmups=0, min_time=0.1),
    "default": Depth(rounds=10, values=6, warmups=0, min_time=0.25),
    "rigorous": Depth(rounds=25, values=6, warmups=0, min_time=0.25),
}


def order(seed: int, round_: int, cells: Sequence[str]) -> list[str]:
    """The names of ``cells`` in the order in which round ``round_`` runs them; O(n log n).

    >>> order(1, 0, ["a", "b", "c"]) == order(1, 0, ["c", "b", "a"])
    True
    """
    shuffled = sorted(cells)
    random.Random(f"benchframe order {seed} {round_}").shuffle(shuffled)
    return shuffled


def layout_seed(seed: int, round_: int) -> int:
    """The seed of the address-space layout that every process of round ``round_`` uses: equal within a round,
    so that strategies are compared on one layout; different between rounds, so that no single layout decides."""
    digest = hashlib.sha256(f"benchframe layout {seed} {round_}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % LAYOUTS


class Budget:
    """Decides before each round whether it still fits.

    ``limit`` is in seconds, None for no limit. A round is expected to take as long as the longest of the last
    three; the first two always run, because one round has no spread.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._taken: list[float] = []

    def took(self, seconds: float) -> None:
        """Note the duration of a round that has ended."""
        self._taken.append(seconds)

    @property
    def expected(self) -> float | None:
        """Seconds that the next round will take, None before the first has ended."""
        return max(self._taken[-3:]) if self._taken else None

    def fits(self, elapsed: float) -> bool:
        """Whether a next round would end within the limit, ``elapsed`` seconds after the start."""
        expected = self.expected
        return self.limit is None or expected is None or len(self._taken) < 2 or elapsed + expected <= self.limit


def spare_cpu() -> int | None:
    """The CPU that workers are pinned to, or None if pinning does not help or is not possible.

    The last CPU this process may use, if there are at least two: CPU 0 often serves interrupts, and the parent needs
    one. On a machine that is busy already (load average above CPUs - 3/4) a pinned process could not get out of the
    others' way, so it is left to the scheduler.
    """
    try:
        cpus = sorted(os.sched_getaffinity(0))
        busy = os.getloadavg()[0] > len(cpus) - 0.75
    except (AttributeError, OSError):
        return None
    return cpus[-1] if len(cpus) > 1 and not busy else None
