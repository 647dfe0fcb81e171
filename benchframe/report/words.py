"""What a report says in words: summary, findings, trust, environment. Plain text: each form escapes it its own way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchframe.report.run import Run
from benchframe.results.figures import FIGURES, Row
from benchframe.tables.build import ns, ratio_text, verdict_text


def summary(run: Run) -> str:
    """How much was measured, when, and how much of the time was spent in measured loops."""
    manifest, cells = run.manifest, run.cells
    processes = sum(len(cell.done) for cell in cells)
    share = f"{100 * manifest.measured / manifest.wall:.0f} %" if manifest.wall else "an unknown share"
    finished = f"finished {manifest.finished}" if manifest.finished else "not finished"
    return (
        f"{len(cells)} cells, {processes} processes in up to {manifest.options.rounds} interleaved rounds; begun "
        f"{manifest.created}, {finished}; {share} of {manifest.wall:.0f} s inside measured loops. Every process "
        "checked each answer against the oracle before it was timed."
    )


@dataclass(frozen=True)
class Finding:
    """One workload in short: the baseline's time, who is fastest, and by verdict
    who beats the baseline, equals it, or may do either. All others are slower."""

    workload: str
    baseline: str
    fastest: str
    faster: tuple[str, ...]
    same: tuple[str, ...]
    undecided: tuple[str, ...]


def findings(run: Run) -> list[Finding]:
    """A row per workload that has a sound baseline: by its lookups or, if none were timed, its faults or calls."""
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
                by_word.setdefault(verdict.word, []).append(f"{row.cell.entry.strategy} {verdict.ratio.value:.2f}")
        found.append(
            Finding(
                workload,
                f"{base.cell.entry.strategy} {ns(base.figures[name].summary.mean)} {FIGURES[name]}",
                _fastest(rows[0], name),
                *(_some(by_word.get(word, [])) for word in ("faster", "same", "undecided")),
            )
        )
    return found


def _some(names: list[str], limit: int = 6) -> tuple[str, ...]:
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
    """One line per cell that has no figures: a wrong answer, a crash, a timeout, or not reached."""
    lines = []
    for cell in run.cells:
        state = cell.state
        if state.state != "ok":
            event = f" (event {state.event})" if state.event >= 0 else ""
            lines.append(f"{cell.entry.strategy} on {cell.entry.workload} is {state.state}: {state.message}{event}")
    return lines


def comparisons(run: Run) -> Iterator[str]:
    """One line per comparison, as plain as its interval allows; failures first."""
    yield from failures(run)
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


def trust(run: Run) -> list[str]:
    """What was noticed that makes figures less certain; never empty."""
    manifest = run.manifest
    lines = [*manifest.notes, *(f"when the run began: {reason}" for reason in manifest.noise)]
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


def _hints(run: Run) -> list[str]:
    """pyperf's words, each once, with the cells that it says it of."""
    cells: dict[str, list[str]] = {}
    for cell in run.cells:
        for figure, hints in cell.state.hints.items():
            for hint in hints:
                text = hint if not hint.startswith("Not enough samples") else "Not enough samples to be within 1 %"
                kind = text if not any(c.isdigit() for c in text.replace("1 %", "")) else ""
                where = f"{cell.entry.strategy} on {cell.entry.workload}, {figure}"
                cells.setdefault(kind or f"{where}: {text}", []).append(where if kind else "")
    lines = []
    for text, places in cells.items():
        shown = [place for place in places if place]
        if not shown:
            lines.append(f"pyperf on {text}")
        elif len(shown) > 3:
            lines.append(f"pyperf on {len(shown)} figures: {text}")
        else:
            lines += [f"pyperf on {place}: {text}" for place in shown]
    return lines


def environment(run: Run) -> list[tuple[str, str]]:
    """(what, value) of the machine, the versions, and what plugins had to say."""
    manifest = run.manifest
    cpu = "not pinned" if manifest.options.cpu < 0 else f"pinned to CPU {manifest.options.cpu}"
    return [*{**manifest.host, **manifest.versions, **manifest.metadata}.items(), ("workers", cpu)]


def workloads(run: Run) -> list[tuple[str, str, str, str, str]]:
    """(label, events, timed, baseline, where the events are from) per workload."""
    found = []
    for entry in run.manifest.workloads:
        source = f"file {entry.path.rpartition('/')[2]}" if entry.path else f"seed {entry.seed}"
        texts = (entry.label, f"{entry.events:,}", f"{entry.timed:,}", entry.baseline)
        found.append((*texts, f"{source}, {entry.digest[:12]}"))
    return found
