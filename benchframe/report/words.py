"""What a report says in words: summary, findings, trust, environment. Plain text: each form escapes it its own way."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchframe.report.run import Run
from benchframe.results.figures import FIGURES
from benchframe.results.scaling import OPERATIONS
from benchframe.tables.build import disturbed, ratio_text, what_failed
from benchframe.tables.mail import MODEL


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
    """A number of things.

    >>> counted(1, "cell"), counted(1234, "process", "processes")
    ('1 cell', '1,234 processes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _moment(text: str) -> str:
    """A time of the manifest for people.

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
        f"{counted(run.rounds, 'interleaved round')}; begun "
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
    """What was noticed that makes figures less certain; never empty."""
    manifest = run.manifest
    lines = [*manifest.notes, *disturbed(run.cells), *(f"when the run began: {reason}" for reason in manifest.noise)]
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
    """pyperf's words, each kind once, with the cells that it says it of; the worst first where there are many."""
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
            lines.append(f"pyperf says the same, with smaller numbers, of {counted(len(found) - 3, 'other figure')}")
    for text, cells in places.items():
        lines.append(f"pyperf on {cells[0] if len(cells) == 1 else counted(len(cells), 'figure')}: {text}")
    return lines


def environment(run: Run) -> list[tuple[str, str]]:
    """(what, value) of the machine, the versions, and what plugins had to say."""
    manifest = run.manifest
    cpu = "not pinned" if manifest.options.cpu < 0 else f"pinned to CPU {manifest.options.cpu}"
    return [*{**manifest.host, **manifest.versions, **manifest.metadata}.items(), ("workers", cpu)]


WORKLOADS = ("workload", "what it is", "events", "timed", "baseline", "events are from")
"""Heads of :func:`workloads`."""


def workloads(run: Run) -> list[tuple[str, ...]]:
    """A row of WORKLOADS per workload; "" for what an older run does not say."""
    found: list[tuple[str, ...]] = []
    for entry in run.manifest.workloads:
        source = f"file {entry.path.rpartition('/')[2]}" if entry.path else f"seed {entry.seed}"
        texts = (entry.label, entry.summary, f"{entry.events:,}", f"{entry.timed:,}", entry.baseline)
        found.append((*texts, f"{source}, {entry.digest[:12]}"))
    return found
