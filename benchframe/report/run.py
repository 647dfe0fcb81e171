"""The input of a report: one run, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from benchframe.errors import ResultsError
from benchframe.files import printable
from benchframe.report.charts import CHARTS, Chart, Data, charts_of
from benchframe.report.charts.study import study_chart
from benchframe.report.mail import mail
from benchframe.report.scaling import scaling_table
from benchframe.report.table import Table, fell_back, latency_table
from benchframe.results.figures import Point, alone, points
from benchframe.results.folder import Cell, RunFolder
from benchframe.results.manifest import Manifest
from benchframe.results.studies import HostFigures, SavedStudy, Source, read_host, read_sources, read_studies


@dataclass(frozen=True)
class Run:
    """A run and its ``name``; ``path`` is its name in commands. ``sources`` may be empty (an older run)."""

    name: str
    manifest: Manifest
    cells: tuple[Cell, ...]
    sources: Mapping[str, Source]
    wanted: tuple[str, ...] = ()
    path: str = ""
    studies: tuple[SavedStudy, ...] = ()
    host: HostFigures | None = None
    """What the running kernel took, if it performed the workloads."""

    @classmethod
    def read(cls, folder: RunFolder, wanted: tuple[str, ...] = ()) -> Run:
        """Read all of ``folder``, with the charts ``wanted`` (all, if none is named). Raises ResultsError."""
        unknown = [name for name in wanted if name not in CHARTS]
        if unknown:
            raise ResultsError("--chart", f"no chart is called {unknown[0]!r}", f"there are {', '.join(CHARTS)}")
        where = folder.path.resolve()
        path = f"reports/{where.name}" if where.parent.name == "reports" else where.name
        cells, sources, studies = tuple(folder.cells()), read_sources(folder.path), read_studies(folder.path)
        host = read_host(folder.path)
        return cls(printable(where.name), folder.manifest, cells, sources, wanted, printable(path), studies, host)

    @property
    def argument(self) -> str:
        """The run as a command's argument."""
        return self.path or self.name

    @cached_property
    def data(self) -> Data:
        """The cells, summarised for tables and charts."""
        return Data(self.cells)

    @cached_property
    def charts(self) -> list[Chart]:
        """The charts for which the run has data."""
        return charts_of(self.data, self.wanted)

    @cached_property
    def drawn(self) -> list[tuple[SavedStudy, Chart | None]]:
        """The studies stored with the run, each with its chart."""
        taken, found = list(CHARTS), []
        for study in self.studies:
            chart = study_chart(study, taken)
            taken += [chart.name] if chart else []
            found.append((study, chart))
        return found

    @property
    def pictures(self) -> list[Chart]:
        """The charts to write as files: including those of studies, unless charts are named."""
        return [*self.charts, *(chart for _, chart in self.drawn if chart and not self.wanted)]

    @cached_property
    def latency(self) -> Table:
        """The latency table with the run's notes; without rows if all cells have threads."""
        return latency_table(alone(self.cells), self.manifest.notes, rows=self.data.rows, host=self.host)

    @cached_property
    def scaling(self) -> Table:
        """The table by threads; without rows if no cell has threads."""
        return scaling_table(self.cells, () if self.data.rows else self.manifest.notes)

    @cached_property
    def mail(self) -> str:
        """The latency table for a mail."""
        return mail(self.cells, rows=self.data.rows, manifest=self.manifest, host=self.host)

    @cached_property
    def points(self) -> list[Point]:
        """The results with threads, a point per threaded cell."""
        return points(self.cells)

    @property
    def rounds(self) -> int:
        """The number of rounds done, and the number requested."""
        return max((len(cell.done) for cell in self.cells), default=0)

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines, each once."""
        return list(dict.fromkeys(workload.baseline for workload in self.manifest.workloads))

    @property
    def fallbacks(self) -> list[tuple[str, str, Mapping[str, float]]]:
        """(workload, strategy, counts) of the cells in which a lookup gave up its fast path."""
        return fell_back(self.cells)

    @property
    def costs(self) -> list[tuple[str, str, Mapping[str, float]]]:
        """(workload, strategy, counts) of the cells that have counts."""
        return [(c.entry.workload, c.entry.strategy, c.state.cost) for c in self.cells if c.state.cost]
