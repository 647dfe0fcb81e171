"""What there is to draw of a study: curves and bars, kept with it; :mod:`benchframe.charts.study` draws them."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.results.studies import Bars, Curve, Mark, SavedStudy
from benchframe.study.breakeven import Breakeven
from benchframe.study.explain import Explanation
from benchframe.study.layout import Sensitivity
from benchframe.tables.build import Table


def saved_explanation(found: Explanation, workload: str, table: Table, command: Sequence[str]) -> SavedStudy:
    """An explanation: a bar per term, what is left over, and the measured difference."""
    a, b = found.a.name, found.b.name
    items = [Mark(c.ns, c.low, c.high, label=c.term) for c in found.contributions]
    items.append(Mark(found.remainder, found.remainder, found.remainder, label="unexplained"))
    items.append(Mark(*found.difference, label="measured"))
    finite = tuple(mark for mark in items if all(v == v and abs(v) < 1e12 for v in (mark.value, mark.low, mark.high)))
    note = f"What each kind of work adds to the time per lookup of {b} over that of {a}: left of 0 it saves time. Bars "
    note += "are counts times the fitted cost of each, with 95 % intervals; the last is what was measured."
    bars = Bars(f"{workload}: {b} less {a}", "ns per lookup", finite)
    return _saved("explain", f"Why {b} differs from {a} on {workload}", note, table, command, (a, b), bars=(bars,))


def saved_breakeven(studies: Sequence[Breakeven], table: Table, command: Sequence[str]) -> SavedStudy:
    """A sweep or several: the ratio B / A against each parameter, and the crossovers."""
    a, b = studies[0].a, studies[0].b
    note = f"Below 1 {b} is faster. Bars are 95 % intervals of the ratio, the strip that of the crossover."
    over = ", ".join(study.sweep.over for study in studies)
    return _saved(
        "breakeven", f"Where {b} beats {a}: {over}", note, table, command, (a, b), curves=tuple(map(_curve, studies))
    )


def _curve(study: Breakeven) -> Curve:
    return Curve(
        study.sweep.over,
        study.sweep.title.format(b=study.b),
        f"{study.b} / {study.a}, {study.sweep.figure}",
        study.sweep.scale == "log",
        tuple(Mark(p.ratio.value, p.ratio.low, p.ratio.high, p.x) for p in study.places),
        tuple(Mark(c.x, c.low, c.high) for c in study.crossovers),
        f"{study.b} faster",
    )


def saved_layout(found: Sequence[Sensitivity], table: Table, command: Sequence[str]) -> SavedStudy:
    """Shares of the variance, a picture per strategy."""
    names = [study.strategy for study in found]
    bars = tuple(
        Bars(
            f"{study.strategy} on {study.workload}, ns/{study.figure}",
            "% of the variance",
            tuple(Mark(100 * c.share, 100 * c.low, 100 * c.high, label=c.name) for c in study.components),
        )
        for study in found
    )
    note = "Which part of the variance of log ns is whose: the layout seed's, the alignment's to 2 MiB, the process's."
    title = f"What the layout does to {', '.join(names)} on {found[0].workload}"
    return _saved("layout", title, note, table, command, names, bars=bars)


def _saved(
    kind: str,
    title: str,
    note: str,
    table: Table,
    command: Sequence[str],
    strategies: Sequence[str],
    *,
    curves: tuple[Curve, ...] = (),
    bars: tuple[Bars, ...] = (),
) -> SavedStudy:
    """``table`` and pictures together."""
    return SavedStudy(
        kind, title, note, tuple(command), table.heads, table.right, table.rows, table.notes, curves, bars,
        tuple(strategies),
    )  # fmt: skip
