"""Random interleavings, where there are too many to see all: uniform choice, and PCT with its bound.

PCT (Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs", ASPLOS 2010): tasks get random priorities, the highest that can run runs, and at d - 1 random steps the running
task falls to priority i, below all initial ones. One run finds a bug of depth d with probability >= 1 / (n k^(d-1)) for
n tasks and k steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchframe.check.run import Op, Step


class Uniform:
    """Every enabled task with equal chance."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int:
        return self._random.choice(enabled)


class Pct:
    """One execution's priorities: ``tasks`` tasks, about ``steps`` steps, bugs of depth ``depth``."""

    def __init__(self, seed: int, tasks: int, steps: int, depth: int) -> None:
        draw = random.Random(seed)
        self._priority = [depth + rank for rank in draw.sample(range(tasks), tasks)]
        self._changes = {step: depth - 1 - i for i, step in enumerate(draw.choices(range(max(steps, 1)), k=depth - 1))}

    def __call__(self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]) -> int:
        chosen = max(enabled, key=self._priority.__getitem__)
        if step in self._changes:
            self._priority[chosen] = self._changes[step]
            chosen = max(enabled, key=self._priority.__getitem__)
        return chosen


def pct_bound(tasks: int, steps: int, depth: int, runs: int) -> float:
    """The chance, at least, that ``runs`` runs find a bug of depth ``depth``.

    >>> round(pct_bound(3, 60, 2, 829), 2)
    0.99
    """
    once = 1 / (tasks * max(steps, 1) ** (depth - 1))
    return 1.0 - float((1 - once) ** runs)
