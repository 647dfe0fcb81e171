"""How quiet the machine was while a cell was measured, from what its processes wrote beside their figures.

What counts as quiet is decided in :mod:`benchframe.engine.quiet`; this adds it up, so that nothing is set aside unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchframe.results.cell import Process
from benchframe.results.folder import Cell


@dataclass(frozen=True)
class SetAside:
    """Of ``replays`` made, ``quiet`` count; ``restless`` of ``processes`` found no quiet one, so all theirs count."""

    replays: int = 0
    quiet: int = 0
    processes: int = 0
    restless: int = 0

    @property
    def share(self) -> float:
        """The share of replays that do not count."""
        return 1 - self.quiet / self.replays if self.replays else 0.0


def set_aside(cells: Iterable[Cell]) -> SetAside:
    """The sum over all processes of ``cells`` that say so; older results, and runs with threads, do not."""
    replays = quiet = processes = restless = 0
    for cell in cells:
        for process in _processes(cell):
            made, counted = (_number(process, f"benchframe_{name}") for name in ("replays", "quiet"))
            if made > 0:
                replays += int(made)
                quiet += int(counted or made)
                processes += 1
                restless += not counted
    return SetAside(replays, quiet, processes, restless)


def control(cell: Cell) -> float:
    """The lowest quiet level of the cell's control, in cycles per replay; 0 if no process knew it."""
    return min((level for p in _processes(cell) if (level := _number(p, "benchframe_control")) > 0), default=0.0)


def controls(cell: Cell) -> dict[int, float]:
    """The quiet level of each round's process, where it is known."""
    found = {process.round: _number(process, "benchframe_control") for process in _processes(cell)}
    return {round_: level for round_, level in found.items() if level > 0}


def _processes(cell: Cell) -> list[Process]:
    """The processes of one figure: all figures of a process say the same."""
    return next(iter(cell.figures.values()), [])


def _number(process: Process, name: str) -> float:
    value = process.metadata.get(name, 0)
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e18 else 0.0
