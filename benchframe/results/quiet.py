"""How quiet the machine was while a cell was measured, from what its processes wrote beside their figures.

What counts as quiet is decided in :mod:`benchframe.engine.quiet` and :mod:`benchframe.results.calm`; this adds it up,
so that nothing is set aside unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchframe.results.calm import calm, level, number
from benchframe.results.cell import Process
from benchframe.results.folder import Cell


@dataclass(frozen=True)
class SetAside:
    """Of ``replays`` made, ``quiet`` count. Of ``processes``, ``restless`` were disturbed throughout; ``left_out`` of
    those do not count, the others do, since their cells have too few calm ones."""

    replays: int = 0
    quiet: int = 0
    processes: int = 0
    restless: int = 0
    left_out: int = 0

    @property
    def share(self) -> float:
        """The share of replays that do not count."""
        return 1 - self.quiet / self.replays if self.replays else 0.0


def set_aside(cells: Iterable[Cell]) -> SetAside:
    """The sum over all processes of ``cells`` that say so; older results, and runs with threads, do not."""
    replays = quiet = processes = restless = left_out = 0
    for cell in cells:
        found = _processes(cell)
        counted = {process.round for process in calm(found)}
        for process in found:
            made, good = (int(number(process, f"benchframe_{name}")) for name in ("replays", "quiet"))
            if made > 0:
                gone = process.round not in counted
                replays += made
                quiet += 0 if gone else good or made
                processes += 1
                restless += gone or not good
                left_out += gone
    return SetAside(replays, quiet, processes, restless, left_out)


def control(cell: Cell) -> float:
    """The lowest quiet level of the cell's control, in cycles per replay; 0 if no process knew it."""
    return min(controls(cell).values(), default=0.0)


def controls(cell: Cell) -> dict[int, float]:
    """The quiet level of each round's process that counts, where it is known."""
    return {process.round: level(process) for process in calm(_processes(cell)) if level(process) > 0}


def _processes(cell: Cell) -> list[Process]:
    """The processes of one figure: all figures of a process say the same."""
    return next(iter(cell.figures.values()), [])
