"""What a report says first: who is fastest on each workload, how sure that is, and what it does less of; failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchframe.report.run import Run
from benchframe.report.words import counted
from benchframe.results.figures import FIGURES, Row
from benchframe.results.folder import Cell
from benchframe.results.scaling import OPERATIONS, Point
from benchframe.tables.build import disturbed, ns, ratio_text, times, verdict_text, what_failed
from benchframe.tables.scaling import per_second


@dataclass(frozen=True)
class Finding:
    """One workload in short: the baseline's time, who is fastest, what that one does less and more of (``why``), and
    by verdict who beats the baseline, equals it, or may do either. All others are slower. ``winner`` is the fastest
    alone, ``word`` its verdict, "" if it is the baseline."""

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

    By lookups (or what stands for them), and by throughput where threads played.
    """
    told = (("Fastest", findings(run)), ("Most per second", crew_findings(run)))
    return " ".join(f"{what}: {_winners(found)}." for what, found in told if found)


def _winners(found: Sequence[Finding]) -> str:
    """Who is fastest where, the most frequent first."""
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
    """Names as a sentence has them.

    >>> _joined(["a", "b", "c"]), _joined(["a", "and 3 more"])
    ('a, b and c', 'a, and 3 more')
    """
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])}{', ' if names[-1].startswith('and ') else ' and '}{names[-1]}"


def how_sure(run: Run) -> str:
    """How many comparisons are decided, and what disturbed; "" if nothing was compared."""
    words = [f.verdict.word for row in run.data.rows for n, f in row.figures.items() if n in FIGURES and f.verdict]
    words += [point.verdict.word for point in run.points if point.verdict]
    if not words:
        return ""
    decided = len(words) - words.count("undecided")
    parts = [f"{decided:,} of {counted(len(words), 'comparison')} {'is' if decided == 1 else 'are'} decided."]
    return " ".join(["How sure:", *parts, *disturbed(run.cells)])


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
"""Counts of docs/cost.md that a reader looks for first, in the order in which they are always said."""


def why(base: Cell, best: Cell, view: str) -> str:
    """Counts of both where they differ by a tenth or more, and the hit rate: what ``best`` does less, and more, of.

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
    """What has no figures, a line per strategy and state: where, and the first message. A wrong answer, a crash, a
    timeout, or not reached."""
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
