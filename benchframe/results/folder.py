"""A run's folder: ``manifest.json``, ``cells/<key>.json`` and ``cells/<key>.state.json``.

Every file is replaced as a whole, so a reader, a full disk and a kill at any moment see a folder that is valid.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.errors import ResultsError, disk_error
from benchframe.files import write_atomic
from benchframe.results.calm import calm
from benchframe.results.cell import CellState, Process, read_processes, read_state
from benchframe.results.manifest import MANIFEST, CellEntry, Manifest, WorkloadEntry, read_manifest
from benchframe.stats import Judging

if TYPE_CHECKING:
    import pyperf  # type: ignore[import-untyped]

RUNS = Path("reports/runs")
"""Where runs are kept, below the current folder."""


@dataclass(frozen=True)
class Cell:
    """One cell as read: its place in the run, its state, its processes by figure."""

    entry: CellEntry
    workload: WorkloadEntry
    state: CellState
    figures: dict[str, list[Process]]
    judging: Judging = field(default_factory=Judging)
    """How the run wants its verdicts reached."""

    @property
    def baseline(self) -> bool:
        """Whether this is the cell that the others of its workload are compared with."""
        return self.entry.strategy == self.workload.baseline

    def rounds(self, figure: str) -> dict[int, float]:
        """Process means (ns per operation) of a figure by round, of the processes that count (:func:`calm`); empty if
        the trace has no such operation."""
        return {process.round: process.mean for process in calm(self.figures.get(figure, ()))}

    @property
    def done(self) -> set[int]:
        """Rounds that are on disk."""
        return {process.round for processes in self.figures.values() for process in processes}


class RunFolder:
    """A run on disk. :meth:`create` makes one, :meth:`open` reads one; ``manifest`` is kept in memory."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> RunFolder:
        """Make the folder (which must not exist yet) and its manifest; raises ResultsError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            (path / "cells").mkdir()
        except FileExistsError:
            raise ResultsError(path, "it exists already", "continue it with --resume, or choose another -o") from None
        except OSError as error:
            raise disk_error(path, error, "written") from None
        manifest.write(path)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read and check the manifest; raises ResultsError."""
        return cls(path, read_manifest(path))

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        manifest.write(self.path)
        self.manifest = manifest

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run against a second benchframe that would write to it; raises ResultsError if one does.

        The lock is the kernel's (flock): a killed process leaves none behind.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise disk_error(self.path, error, "read") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResultsError(self.path, "another benchframe is working on it", "wait until it ends") from None
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def spool(self) -> Iterator[Path]:
        """A scratch folder inside the run, empty at first, gone afterwards; a killed sitting's leavings go too."""
        path = self.path / "spool"
        for part in self.path.rglob(".*.part"):
            part.unlink(missing_ok=True)
        try:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        except OSError as error:
            raise disk_error(path, error, "written") from None
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def suite_path(self, entry: CellEntry) -> Path:
        """The cell's pyperf file."""
        return self.path / "cells" / f"{entry.key}.json"

    def state_path(self, entry: CellEntry) -> Path:
        """The cell's state file."""
        return self.path / "cells" / f"{entry.key}.state.json"

    def cell(self, entry: CellEntry) -> Cell:
        """Read one cell; raises ResultsError."""
        return Cell(
            entry,
            self.manifest.workload(entry.workload),
            read_state(self.state_path(entry)),
            read_processes(self.suite_path(entry)),
            self.manifest.options.judging,
        )

    def cells(self) -> list[Cell]:
        """Read all cells in the manifest's order; raises ResultsError."""
        return [self.cell(entry) for entry in self.manifest.cells]

    def write_state(self, entry: CellEntry, state: CellState) -> None:
        """Replace a cell's state."""
        state.write(self.state_path(entry))

    def add_suite(self, entry: CellEntry, data: dict[str, Any]) -> pyperf.BenchmarkSuite:
        """Add one process's suite (as JSON data) to the cell's file, atomically; gives the whole suite.

        Raises ResultsError if pyperf finds that the two were not measured alike (another CPU, Python, ASLR).
        """
        import pyperf

        path = self.suite_path(entry)
        new = pyperf.BenchmarkSuite.loads(json.dumps(_without_paths(data)))
        suite = new
        if path.exists():
            read_processes(path)  # checked by us before pyperf trusts it
            suite = pyperf.BenchmarkSuite.load(str(path))
            try:
                suite.add_runs(new)
            except ValueError as error:
                raise ResultsError(path, str(error), "start a new run: this one was made elsewhere") from None
        buffer = io.StringIO()
        suite.dump(buffer)
        write_atomic(path, buffer.getvalue().encode())
        return suite

    def discard_if_empty(self) -> bool:
        """Remove the folder if nothing was measured in it: ``last`` must not name it. Gives whether it was removed."""
        if any((self.path / "cells").glob("*.json")):
            return False
        try:
            with self.locked():
                shutil.rmtree(self.path, ignore_errors=True)
        except ResultsError:  # another benchframe is at work in it
            return False
        return True

    def forget(self, entry: CellEntry) -> None:
        """Remove a cell's files: its strategy was edited, so its figures are another program's."""
        for path in (self.suite_path(entry), self.state_path(entry)):
            path.unlink(missing_ok=True)


_PATHS = ("python_executable", "python_cflags", "python_config_args")
"""What pyperf notes that decides no figure and names a user's folders: a run may be given to anyone."""


def _without_paths(data: dict[str, Any]) -> dict[str, Any]:
    """A suite's JSON data without the metadata in _PATHS."""

    def clean(part: dict[str, Any]) -> dict[str, Any]:
        metadata = {key: value for key, value in part.get("metadata", {}).items() if key not in _PATHS}
        return {**part, "metadata": metadata} if "metadata" in part else part

    benchmarks = [
        {**clean(bench), "runs": [clean(run) for run in bench.get("runs", ())]} for bench in data.get("benchmarks", ())
    ]
    return {**clean(data), "benchmarks": benchmarks}


def find_run(name: str, root: Path = RUNS) -> Path:
    """The folder of run ``name``: a path, a folder's name below ``root``, the start of one, ``last``, or ``DIR/last``.

    Raises ResultsError, naming the newest runs, if there is none or more than one.
    """
    path = Path(name)
    if path.name == "last" and name != "last" and not path.exists():
        return find_run("last", path.parent)
    if name != "last" and ((path / MANIFEST).is_file() or path.exists()):
        return path.parent if path.name == MANIFEST else path
    runs = list_runs(root)
    if not runs:
        raise ResultsError(name, f"there is no run in {root}", "make one with `benchframe run`")
    if name == "last":
        return runs[-1]
    found = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    newest = ", ".join(run.name for run in reversed(runs[-3:]))
    what = f"{len(found)} runs begin so" if found else f"no such run in {root}"
    raise ResultsError(name, what, f"the newest are {newest}; `last` names the newest")


def list_runs(root: Path = RUNS) -> list[Path]:
    """All run folders below ``root``, oldest first (their names begin with the date)."""
    return sorted(p.parent for p in root.glob(f"*/{MANIFEST}"))
