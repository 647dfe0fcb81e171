"""Schedules: as text that a story ends with, and followed again.

``v1:0x1.1x3.`` is one step of task 0, then three of task 1; ``v1-tso:`` says that stores were buffered. A stretch that
goes round and round, as in a livelock, is written once: ``(0x1.1x1.)x900.``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchframe.check.run import Op, Step
from benchframe.errors import BenchframeError


class ReplayError(BenchframeError):
    """A replay string that cannot be used here."""


PREFIX = {"sc": "v1:", "tso": "v1-tso:"}
"""How a replay string begins, by memory model."""
LONGEST = 1_000_000
"""Steps of a schedule, at most."""
PERIOD = 12
"""Stretches of a round that goes on and on, at most."""


def encode(schedule: Sequence[int], memory_model: str = "sc") -> str:
    """A schedule as text: runs of ``TASKxSTEPS.``, a repeated end as ``(...)xTIMES.``

    >>> encode([0, 1, 1, 1, 0, 0])
    'v1:0x1.1x3.0x2.'
    >>> encode([0] + [1, 0] * 500, "tso")
    'v1-tso:(0x1.1x1.)x500.0x1.'
    """
    runs = [f"{task}x{len(list(steps))}." for task, steps in itertools.groupby(schedule)]
    return PREFIX[memory_model] + _folded(runs)


def _folded(runs: list[str]) -> str:
    """The longest stretch that repeats, if it is worth it, written once."""
    best = (0, 0, 0)  # saved, first, period
    for period in range(1, PERIOD + 1):
        same = 0
        for at in range(period, len(runs) + 1):
            if at < len(runs) and runs[at] == runs[at - period]:
                same += 1
                continue
            times = same // period + 1
            if times >= 4:
                best = max(best, (period * (times - 1), -(at - same - period), -period))
            same = 0
    saved, first, period = best[0], -best[1], -best[2]
    if not saved:
        return "".join(runs)
    after = first + saved + period
    return "".join([*runs[:first], "(", *runs[first : first + period], f")x{saved // period + 1}.", *runs[after:]])


def decode(text: str) -> list[int]:
    """The schedule of a replay string; ReplayError if it is none, or longer than a million steps.

    >>> decode("v1:0x1.1x3.(0x2.1x1.)x2.")
    [0, 1, 1, 1, 0, 0, 1, 0, 0, 1]
    """
    run = r"\d{1,3}x\d{1,7}\."
    if not re.fullmatch(rf"v1(-tso)?:({run}|\(({run})+\)x\d{{1,7}}\.)*", text):
        raise ReplayError(f"{text[:60]!r} is no replay string; it looks like v1:0x1.1x3.0x2.")
    parts: list[tuple[list[tuple[int, int]], int]] = []
    for whole, inner, times in re.findall(rf"({run})|\(((?:{run})+)\)x(\d+)\.", text.partition(":")[2]):
        pairs = [(int(task), int(count)) for task, count in re.findall(r"(\d+)x(\d+)\.", whole or inner)]
        parts.append((pairs, int(times or 1)))
    if sum(sum(count for _, count in pairs) * times for pairs, times in parts) > LONGEST:
        raise ReplayError("the replay string has more than a million steps; nothing here is that long")
    schedule: list[int] = []
    for pairs, times in parts:
        schedule += [task for task, count in pairs for _ in range(count)] * times
    return schedule


def model_of(text: str) -> str:
    """The memory model of a replay string: "sc" or "tso"."""
    return "tso" if text.startswith(PREFIX["tso"]) else "sc"


@dataclass
class Replay:
    """A ``choose`` that follows a schedule, then the lowest enabled task. ``missed``: steps it could not follow."""

    schedule: Sequence[int]
    missed: int = field(default=0)

    def __call__(
        self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]
    ) -> int | None:
        if step < len(self.schedule):
            if self.schedule[step] in enabled:
                return self.schedule[step]
            self.missed += 1
        return enabled[0]
