"""Which processes of a cell count: those to which the machine left a quiet moment.

A process that was disturbed from beginning to end gives another machine's times: 10 to 60 % longer, and all of them.
That it was is told by its control (:mod:`benchframe.engine.quiet`), which is the same code for every strategy and
holds none of the strategy's, so what is left out does not depend on what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.engine.quiet import STRETCH
from benchframe.results.cell import Process

FEWEST = 2
"""If fewer processes than this were calm, all count: a spread needs two."""


def calm(processes: Sequence[Process]) -> list[Process]:
    """Those of one figure's ``processes`` that count.

    One is left out if none of its replays was quiet, or if its quiet level lies more than STRETCH above the lowest of
    all: then it took a disturbed machine for a quiet one, as the first process of a cell may. Processes that do not say
    (older results, threads) count. O(processes).
    """
    lowest = min((found for process in processes if (found := level(process)) > 0), default=0.0)
    left = [p for p in processes if not restless(p) and level(p) <= STRETCH * lowest]
    return left if len(left) >= FEWEST else list(processes)


def restless(process: Process) -> bool:
    """Whether none of its replays was quiet by its own judgement."""
    return number(process, "benchframe_replays") > 0 and not number(process, "benchframe_quiet")


def level(process: Process) -> float:
    """The quiet level of its control, in cycles per replay; 0 if it does not say."""
    return number(process, "benchframe_control")


def number(process: Process, name: str) -> float:
    """A number of its metadata, not negative; 0 for anything else."""
    value = process.metadata.get(name, 0)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e18 else 0.0
