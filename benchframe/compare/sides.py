"""What ``benchframe compare A B`` names: ``RUN`` or ``RUN:STRATEGY``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchframe.errors import ResultsError
from benchframe.results.folder import RUNS, Cell, RunFolder, find_run


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run and, if one was named, a strategy in it."""

    folder: RunFolder
    strategy: str = ""

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.folder.path.resolve().name + (f":{self.strategy}" if self.strategy else "")

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """All cells of the run by (workload, strategy); raises ResultsError."""
        return {(cell.entry.workload, cell.entry.strategy): cell for cell in self.folder.cells()}

    def baseline(self, workload: str) -> Cell | None:
        """The cell of the workload's baseline if it is there and ok."""
        cell = self.cells.get((workload, self.folder.manifest.workload(workload).baseline))
        return cell if cell is not None and cell.state.state == "ok" else None


def read_sides(first: str, second: str, root: Path = RUNS) -> tuple[Side, Side]:
    """Both sides from what the user typed. ``:STRATEGY`` alone as the second is one of the first's run; a strategy
    named on one side only is compared with itself on the other. Raises ResultsError."""
    run, name = _parse(first)
    a = Side(RunFolder.open(find_run(run, root)), name)
    other, name = _parse(second)
    b = Side(a.folder if not other else RunFolder.open(find_run(other, root)), name)
    if a.strategy and not b.strategy:
        b = Side(b.folder, a.strategy)
    elif b.strategy and not a.strategy:
        a = Side(a.folder, b.strategy)
    for side in (a, b):
        known = list(dict.fromkeys(cell.strategy for cell in side.folder.manifest.cells))
        if side.strategy and side.strategy not in known:
            raise ResultsError(side.folder.path, f"it has no strategy {side.strategy}", f"it has {', '.join(known)}")
    if a.folder.path.resolve() == b.folder.path.resolve() and a.strategy == b.strategy:
        raise ResultsError(first, "both sides are the same", "name two runs, or RUN:STRATEGY and :STRATEGY")
    return a, b


def _parse(text: str) -> tuple[str, str]:
    """(run, strategy); a path that exists is never cut at its colon."""
    if ":" not in text or Path(text).exists():
        return text, ""
    run, _, strategy = text.rpartition(":")
    return run, strategy
