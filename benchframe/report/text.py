"""A run as a report reads it, once; and the report's sentences: figures, a summary, how to reproduce them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchframe.errors import ResultsError
from benchframe.files import printable
from benchframe.report.charts import CHARTS, Chart, Data, charts_of
from benchframe.report.charts.study import study_chart
from benchframe.report.details import fell_back, per_second, scaling_table
from benchframe.report.mail import MODEL, mail
from benchframe.report.table import (
    Table,
    disturbed,
    host_sentences,
    latency_table,
    ns,
    ratio_text,
    times,
    verdict_text,
    what_failed,
)
from benchframe.results.figures import FIGURES, OPERATIONS, Point, Row, alone, points
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


# ----------------------------------------------------------------------------------------------------------------------
# The sentences of a report: summary, findings, trust, environment. Plain text; each format escapes it.


def scope(run: Run) -> str:
    """How many strategies, workloads, threads and rounds, and the baseline, in a line."""
    crews = sorted({entry.threads for entry in run.manifest.workloads if entry.threads})
    bases = {entry.label.rpartition("@")[0] if entry.threads else entry.label for entry in run.manifest.workloads}
    parts = [counted(len(run.data.strategies), "strategy", "strategies") + f" on {counted(len(bases), 'workload')}"]
    if crews:
        which = "without threads and with " if run.data.workloads else "with "
        parts.append(f"{which}{' and '.join(map(str, crews))} thread{'s' * (crews != [1])}")
    parts.append(counted(run.rounds, "round"))
    return ", ".join([*parts, f"baseline {', '.join(run.baselines)}"]) + "."


def machine(run: Run) -> str:
    """CPU, kernel, versions and day in a line."""
    host, versions = run.manifest.host, run.manifest.versions
    cpus = counted(int(host["cpus"]), "CPU") if host.get("cpus", "").isdecimal() else ""
    if run.manifest.simulated:
        return f"Simulated, not measured: {host.get('cpu', '')}, {cpus}, {run.manifest.created[:10]}."
    python = versions.get("python", "")
    parts = [host.get("cpu", ""), cpus, host.get("kernel", ""), python, run.manifest.created[:10]]
    return ", ".join(part for part in parts if part) + "."


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "cell"), counted(1234, "process", "processes")
    ('1 cell', '1,234 processes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _moment(text: str) -> str:
    """A time of the manifest for display.

    >>> _moment("2026-11-23T12:11:37+00:00"), _moment("whenever")
    ('2026-11-23 12:11 UTC', 'whenever')
    """
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", text)
    return f"{match[1]} {match[2]} UTC" if match else text


def summary(run: Run) -> str:
    """How much was measured, when, and how much of the time was spent in measured loops."""
    manifest, cells = run.manifest, run.cells
    processes = sum(len(cell.done) for cell in cells)
    share = f"{100 * manifest.measured / manifest.wall:.0f} %" if manifest.wall else "an unknown share"
    finished = f"finished {_moment(manifest.finished)}" if manifest.finished else "not finished"
    if manifest.simulated:
        return (
            f"{counted(len(cells), 'cell')}, {counted(processes, 'simulated run')}; begun {_moment(manifest.created)}, "
            f"{finished}. No time was measured: simulated CPUs ran the compiled text of threaded runs, in simulated "
            f"time, and every answer was checked against the oracle. {MODEL}"
        )
    return (
        f"{counted(len(cells), 'cell')}, {counted(processes, 'process', 'processes')} in "
        f"{counted(run.rounds, 'interleaved round')}; started "
        f"{_moment(manifest.created)}, {finished}; {share} of {manifest.wall:.0f} s inside measured loops. "
        f"Every process checked each answer against the oracle before it was timed. {MODEL}"
    )


def comparisons(run: Run) -> Iterator[str]:
    """One line per comparison, as plain as its interval allows; failures first."""
    for cell in run.cells:
        if cell.state.state != "ok":
            where = f"{cell.entry.strategy} on {cell.entry.workload}"
            yield f"{where} is {cell.state.state}: {what_failed(cell.state)}"
    for row in run.data.rows:
        for key, head in FIGURES.items():
            figure = row.figures.get(key)
            if figure is not None and figure.ratio is not None:
                ratio = figure.ratio
                word = figure.verdict.text if figure.verdict else ratio.word
                rounds = "one round" if ratio.n == 1 else f"{ratio.n} rounds"
                yield (
                    f"{row.cell.entry.strategy} on {row.cell.entry.workload}, {head}: {word}, "
                    f"ratio {ratio_text(ratio)}, {rounds}"
                )
    for point in run.points:
        if point.against is not None and point.verdict is not None:
            yield (
                f"{point.cell.entry.strategy} on {point.workload} with {counted(point.threads, 'thread')}, "
                f"{OPERATIONS[point.figure]} per second: {point.verdict.text}, ratio {ratio_text(point.against)} "
                f"(above 1 is faster), {counted(point.against.n, 'round')}"
            )


def trust(run: Run) -> list[str]:
    """Observations that make figures less certain; never empty."""
    manifest = run.manifest
    lines = [*manifest.notes, *disturbed(run.cells), *(f"when the run started: {reason}" for reason in manifest.noise)]
    loads = [
        float(load)
        for cell in run.cells
        for process in cell.figures.get("replay", next(iter(cell.figures.values()), []))
        if isinstance(load := process.metadata.get("load_avg_1min"), (int, float))
    ]
    if loads:
        lines.append(f"load average during the run: {min(loads):.1f} to {max(loads):.1f}")
    lines += _hints(run)
    return lines or ["nothing unusual was noticed"]


_UNSTEADY = re.compile(r"the (standard deviation|maximum|minimum) .*?(\d+(?:\.\d+)?)%")


def _hints(run: Run) -> list[str]:
    """pyperf's warnings, each kind once, with the cells concerned; if there are many, the worst first."""
    places: dict[str, list[str]] = {}
    worst: dict[str, list[tuple[float, str, str]]] = {}
    for cell in run.cells:
        for figure, hints in cell.state.hints.items():
            where = f"{cell.entry.strategy} on {cell.entry.workload}, {figure}"
            for hint in hints:
                unsteady = _UNSTEADY.match(hint)
                if hint.startswith("Not enough samples"):
                    places.setdefault("not enough samples to be within 1 %", []).append(where)
                elif unsteady:
                    worst.setdefault(unsteady[1], []).append((float(unsteady[2]), where, hint))
                else:
                    places.setdefault(hint, []).append(where)
    lines = []
    for found in worst.values():
        found.sort(key=lambda item: -item[0])
        lines += [f"pyperf on {where}: {hint}" for _, where, hint in found[:3]]
        if found[3:]:
            lines.append(
                f"pyperf reports the same, with smaller numbers, for {counted(len(found) - 3, 'other figure')}"
            )
    for text, cells in places.items():
        lines.append(f"pyperf on {cells[0] if len(cells) == 1 else counted(len(cells), 'figure')}: {text}")
    return lines


def environment(run: Run) -> list[tuple[str, str]]:
    """(what, value) of the machine, the versions, and the plugins' metadata."""
    manifest = run.manifest
    cpu = "not pinned" if manifest.options.cpu < 0 else f"pinned to CPU {manifest.options.cpu}"
    return [*{**manifest.host, **manifest.versions, **manifest.metadata}.items(), ("workers", cpu)]


WORKLOADS = ("workload", "what it is", "events", "timed", "baseline", "events are from")
"""Headings of :func:`workloads`."""


def workload_heads(run: Run) -> tuple[str, ...]:
    """WORKLOADS, and a column for the nearest recorded program if the run tells it of any workload."""
    placed = any(entry.nearest for entry in run.manifest.workloads)
    return (*WORKLOADS, "nearest recorded program") if placed else WORKLOADS


def workloads(run: Run) -> list[tuple[str, ...]]:
    """A row of :func:`workload_heads` per workload; "" for what an older run does not record."""
    found: list[tuple[str, ...]] = []
    width = len(workload_heads(run))
    for entry in run.manifest.workloads:
        source = f"file {entry.path.rpartition('/')[2]}" if entry.path else f"seed {entry.seed}"
        texts = (entry.label, entry.summary, f"{entry.events:,}", f"{entry.timed:,}", entry.baseline)
        found.append((*texts, f"{source}, {entry.digest[:12]}", entry.nearest)[:width])
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The beginning of a report: the fastest strategy on each workload, how certain that is, what it does less of; failures.


@dataclass(frozen=True)
class Finding:
    """One workload in short: the baseline's time, the fastest strategy, what that does less and more of (``why``), and
    by verdict the strategies that beat the baseline, equal it, or may do either. All others are slower. ``winner`` is
    the fastest alone, ``word`` its verdict, "" if it is the baseline."""

    workload: str
    baseline: str
    fastest: str
    faster: tuple[str, ...]
    same: tuple[str, ...]
    undecided: tuple[str, ...]
    winner: str
    word: str
    why: str


def headline(run: Run) -> str:
    """The findings in a sentence; "" if nothing was compared.

    By lookups (or the figure used instead), and by throughput for runs with threads.
    """
    told = (("Fastest", findings(run)), ("Most per second", crew_findings(run)))
    return " ".join(f"{what}: {_winners(found)}." for what, found in told if found)


def _winners(found: Sequence[Finding]) -> str:
    """The fastest strategies and where, the most frequent first."""
    places: dict[tuple[str, str], list[str]] = {}
    for each in found:
        places.setdefault((each.winner, each.word), []).append(each.workload)
    parts = []
    for (winner, word), labels in sorted(places.items(), key=lambda item: -len(item[1])):
        where = _joined(labels) if len(labels) < 4 else f"{len(labels)} of {len(found)} workloads"
        who = winner if word else f"{winner}, the baseline,"
        sure = {"faster": "", "": "", "same": " (the same as the baseline)"}.get(word, f" ({word})")
        parts.append(f"{who} on {where}{sure}")
    return "; ".join(_some(parts, 4))


def _joined(names: Sequence[str]) -> str:
    """Names joined for a sentence.

    >>> _joined(["a", "b", "c"]), _joined(["a", "and 3 more"])
    ('a, b and c', 'a, and 3 more')
    """
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])}{', ' if names[-1].startswith('and ') else ' and '}{names[-1]}"


def how_sure(run: Run) -> str:
    """How many comparisons are decided, and what was disturbed; "" if nothing was compared."""
    words = [f.verdict.word for row in run.data.rows for n, f in row.figures.items() if n in FIGURES and f.verdict]
    words += [point.verdict.word for point in run.points if point.verdict]
    if not words:
        return ""
    decided = len(words) - words.count("undecided")
    parts = [f"{decided:,} of {counted(len(words), 'comparison')} {'is' if decided == 1 else 'are'} decided."]
    return " ".join(["How sure:", *parts, *disturbed(run.cells)])


def on_this_kernel(run: Run) -> str:
    """Where the lookup is the largest share of a real fault, and what could be saved of it; "" if the running kernel
    performed no workload."""
    if run.host is None or not (told := host_sentences(run.data.rows, run.host)):
        return ""
    return f"Linux {run.host.release}, {'the largest share: ' * (len(told) > 1)}{max(told)[1]}"


def legend(run: Run) -> list[str]:
    """How to read the findings."""
    what = "ratios to the baseline, below 1 is faster"
    if run.data.crews:
        what = "ratios of throughput to the baseline's, above 1 is faster"
        if run.data.workloads:
            what = f"ratios to the baseline: of ns, where below 1 is faster; {what.replace('ratios ', 'with threads ')}"
    missing = "is slower, or has no figures" if failures(run) else "is slower"
    first = (
        f"Numbers beside names: {what}. A strategy that is in no column {missing}. Verdicts are over processes, "
        "corrected for "
        "their number. Fastest is the lowest mean; whether it beats a strategy other than the baseline, shows "
        f"benchframe compare {run.argument}:A :B."
    )
    lines = [first]
    if any(each.why for each in findings(run)):
        lines.append(
            "Counts: per operation, baseline → fastest, those that differ by a tenth or more. They are counted, not "
            "timed; benchframe explain A B --workload W attributes ns to them."
        )
    return lines


def findings(run: Run) -> list[Finding]:
    """A row per workload with a valid baseline: by its lookups or, if none were timed, its faults or calls."""
    found = []
    for workload in run.data.workloads:
        rows = run.data.of(workload)
        name = next((name for name in FIGURES if any(name in row.figures for row in rows)), "")
        rows = [row for row in rows if name in row.figures]
        base = next((row for row in rows if row.cell.baseline), None)
        if base is None or len(rows) < 2:
            continue
        rows.sort(key=lambda row: row.figures[name].summary.mean)
        by_word: dict[str, list[str]] = {}
        for row in rows:
            verdict = row.figures[name].verdict
            if verdict is not None:
                by_word.setdefault(verdict.word, []).append(f"{row.cell.entry.strategy} {times(verdict.ratio.value)}")
        best = rows[0].figures[name].verdict
        found.append(
            Finding(
                workload,
                f"{base.cell.entry.strategy} {ns(base.figures[name].summary.mean)} {FIGURES[name]}",
                _fastest(rows[0], name),
                _some(by_word.get("faster", [])),
                _some(by_word.get("same", [])),
                _some(by_word.get("undecided", [])),
                rows[0].cell.entry.strategy,
                best.word if best else "",
                "" if rows[0] is base else why(base.cell, rows[0].cell, name),
            )
        )
    return found


_TERMS = {
    "loads": "loads",
    "steps": "records walked",
    "lines": "cache lines",
    "mispredicted": "mispredicted branches",
    "atomics": "atomics",
}
"""Counts of docs/cost.md that a reader looks for first, in a fixed order."""


def why(base: Cell, best: Cell, view: str) -> str:
    """Counts of both where they differ by a tenth or more, and the hit rate: what ``best`` does less of, and more of.

    "" if nothing was counted.
    """
    before, after = base.state.cost, best.state.cost
    parts = [
        f"{name} {ours:.3g} → {theirs:.3g}"
        for key, name in _TERMS.items()
        if (ours := before.get(f"{view}.{key}")) is not None and (theirs := after.get(f"{view}.{key}")) is not None
        if abs(ours - theirs) >= max(0.1, 0.1 * max(ours, theirs))
    ]
    rate = best.state.counts.get("hit_rate")
    if rate and view != "mapping":
        parts.insert(0, f"hits {100 * rate:.0f} %")
    return ", ".join(parts)


def crew_findings(run: Run) -> list[Finding]:
    """A row per workload and number of threads, by throughput; ratios are of throughputs, above 1 is faster."""
    found = []
    for label in run.data.crews:
        points = [p for p in run.points if p.cell.entry.workload == label and p.throughput is not None]
        base = next((p for p in points if p.cell.baseline), None)
        if base is None or len(points) < 2:
            continue
        best = max(points, key=lambda p: p.throughput or 0)
        by_word: dict[str, list[str]] = {}
        for point in sorted(points, key=lambda p: -(p.throughput or 0)):
            if point.verdict is not None and point.against is not None:
                text = f"{point.cell.entry.strategy} {times(point.against.value)}"
                by_word.setdefault(point.verdict.word, []).append(text)
        found.append(
            Finding(
                f"{base.workload}, {counted(base.threads, 'thread')}{'*' * base.crowded}",
                f"{base.cell.entry.strategy} {_rate(base)}",
                f"{best.cell.entry.strategy}: {_rate(best)}, {_against(best)}",
                _some(by_word.get("faster", [])),
                _some(by_word.get("same", [])),
                _some(by_word.get("undecided", [])),
                best.cell.entry.strategy,
                best.verdict.word if best.verdict else "",
                _waits(base, best),
            )
        )
    return found


def _waits(base: Point, best: Point) -> str:
    """How long the threads of both wait for mmap_lock."""
    if best is base or base.lock_share is None or best.lock_share is None:
        return ""
    return f"waiting for mmap_lock {100 * base.lock_share:.0f} → {100 * best.lock_share:.0f} % of the time"


def _rate(point: Point) -> str:
    return f"{per_second(point.throughput)} {OPERATIONS[point.figure]}/s"


def _against(point: Point) -> str:
    if point.against is None or point.verdict is None:
        return "the baseline"
    return f"{ratio_text(point.against)} {point.verdict.word}"


def _some(names: Sequence[str], limit: int = 6) -> tuple[str, ...]:
    """The first names, and how many more there are.

    >>> _some(["a", "b", "c", "d"], 3)
    ('a', 'b', 'and 2 more')
    """
    return tuple(names) if len(names) <= limit else (*names[: limit - 1], f"and {len(names) - limit + 1} more")


def _fastest(row: Row, name: str) -> str:
    best = row.figures[name]
    ratio = f", {verdict_text(best)}" if best.verdict else ", the baseline"
    return f"{row.cell.entry.strategy}: {ns(best.summary.mean)} {FIGURES[name]}{ratio}"


def failures(run: Run) -> list[str]:
    """Cells without figures, a line per strategy and state: where, and the first message. The states are a wrong
    answer, a crash, a timeout, or not reached."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in run.cells:
        if cell.state.state != "ok":
            groups.setdefault((cell.entry.strategy, cell.state.state), []).append(cell)
    lines = []
    for (strategy, state), cells in groups.items():
        where = _joined(_some([cell.entry.workload for cell in cells], 4))
        first = f"on {cells[0].entry.workload}: " if len(cells) > 1 else ""
        lines.append(f"{strategy} on {where} is {state}: {first}{what_failed(cells[0].state)}")
    return lines


# ----------------------------------------------------------------------------------------------------------------------
# Commands that repeat a run, or one of its figures.


def same_run(manifest: Manifest) -> str:
    """The command of the run itself, including its seed if that was drawn."""
    return shlex.join(manifest.again)


def part_of_run(manifest: Manifest, workloads: Sequence[str], strategies: Sequence[str]) -> str:
    """A command that measures these workloads with these strategies like the run: mode, rounds, seed, baseline."""
    if manifest.simulated:
        return shlex.join(manifest.again)
    entries = [entry for entry in manifest.workloads if entry.label in workloads]
    options = manifest.options
    command = ["benchframe", "run", "--strategy", ",".join(strategies)]
    specs = list(dict.fromkeys(entry.spec for entry in entries if not entry.path))
    if specs:
        command += ["--workload", ",".join(specs)]
    for entry in entries:
        if entry.path:
            command += ["--trace", entry.path]
    if options.mode in ("quick", "rigorous"):
        command.append(f"--{options.mode}")
    command += ["--rounds", str(options.rounds), "--seed", str(manifest.seed)]
    baselines = {entry.baseline for entry in entries}
    if len(baselines) == 1:
        command += ["--baseline", *baselines]
    seeds = {entry.seed for entry in entries if not entry.path} - {0}
    if len(seeds) == 1:
        command += ["--stream-seed", str(*seeds)]
    for path in manifest.plugins:
        command += ["--plugin", path]
    threads = sorted({entry.threads for entry in entries})
    if any(threads):
        command += ["--threads", ",".join(map(str, threads))]
    there = {(cell.strategy, cell.workload) for cell in manifest.cells}
    for entry in entries:
        for strategy in strategies:
            if (strategy, entry.label) not in there:
                command += ["--skip", f"{strategy}@{entry.label}"]
    return shlex.join(command)


def draw(name: str, chart: Chart) -> str:
    """The command that draws one chart of run ``name`` as files."""
    return shlex.join(["benchframe", "report", name, "--chart", chart.name, "--format", "svg,png,pdf"])


def tabulate(name: str, *options: str) -> str:
    """The command that prints a table of run ``name``."""
    return shlex.join(["benchframe", "table", name, *options])


def frame(name: str) -> str:
    """The command that prints all values of run ``name`` as a data frame."""
    return shlex.join(["python", "-c", f"import benchframe; print(benchframe.load({json.dumps(name)}))"])


def line(*words: str) -> str:
    """Any command, quoted for a shell."""
    return shlex.join(words)
