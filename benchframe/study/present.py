"""Studies as text and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.results.studies import Bars, Curve, Kind, Mark, SavedStudy
from benchframe.study.explain import Explanation
from benchframe.study.model import Model
from benchframe.study.model import text as alone
from benchframe.study.sweeps import Breakeven, Sensitivity, number

# ----------------------------------------------------------------------------------------------------------------------
# The pictures of a study: curves and bars, stored with it; :mod:`benchframe.report.charts.study` draws them.


def saved_explanation(found: Explanation, workload: str, table: Table, command: Sequence[str]) -> SavedStudy:
    """An explanation: a bar per term, the remainder, and the measured difference."""
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
    """One or more sweeps: the ratio B / A against each parameter, and the crossovers."""
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
        f"{study.b} / {study.a}, {study.sweep.figure}" + ("" if study.caches.warm else f" @{study.caches.label}"),
        study.sweep.scale == "log",
        tuple(Mark(p.ratio.value, p.ratio.low, p.ratio.high, p.x) for p in study.places),
        tuple(Mark(c.x, c.low, c.high) for c in study.crossovers),
        f"{study.b} faster",
    )


def saved_layout(found: Sequence[Sensitivity], table: Table, command: Sequence[str]) -> SavedStudy:
    """Shares of the variance, one picture per strategy."""
    names = [study.strategy for study in found]
    bars = tuple(
        Bars(
            f"{study.strategy} on {study.workload}, ns/{study.figure}",
            "% of the variance",
            tuple(Mark(100 * c.share, 100 * c.low, 100 * c.high, label=c.name) for c in study.components),
        )
        for study in found
    )
    note = "Shares of the variance of log ns: of the layout seed, the alignment to 2 MiB, the process."
    title = f"What the layout does to {', '.join(names)} on {found[0].workload}"
    return _saved("layout", title, note, table, command, names, bars=bars)


def _saved(
    kind: Kind,
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


# ----------------------------------------------------------------------------------------------------------------------
# Studies as :class:`~benchframe.report.table.Table`, so that every form of table works for them too.


def signed(value: float) -> str:
    """ns with a sign.

    >>> signed(1.234), signed(-0.04)
    ('+1.23', '-0.04')
    """
    return ("-" if value < 0 else "+") + ns(abs(value))


def explanation_table(found: Explanation, model: Model, workload: str) -> Table:
    """One row per term, then the sum, the remainder and the measured difference."""
    a, b = found.a, found.b
    heads = ("term", a.name, b.name, "difference", "ns per unit [95 %]", "contribution, ns [95 %]")
    rows = []
    for c in found.contributions:
        unit = f"{c.unit:.2f} [{c.unit_low:.2f}, {c.unit_high:.2f}]"
        part = f"{signed(c.ns)} [{signed(c.low)}, {signed(c.high)}]"
        rows.append((c.term, f"{c.a:.2f}", f"{c.b:.2f}", f"{c.b - c.a:+.2f}", unit, part))
    mean, low, high = found.explained
    rows.append(("sum of terms", "", "", "", "", f"{signed(mean)} [{signed(low)}, {signed(high)}]"))
    rows.append(("unexplained", "", "", "", "", signed(found.remainder)))
    mean, low, high = found.difference
    rows.append(("measured", ns(a.mean), ns(b.mean), "", "", f"{signed(mean)} [{signed(low)}, {signed(high)}]"))
    ratio = found.ratio
    free = [c.term for c in found.contributions if c.unit_high < 0.005 and max(c.a, c.b) > 0]
    notes = [
        f"lookup on {workload}, ns: {a.name} {ns(a.mean)}, {b.name} {ns(b.mean)}"
        + (f", ratio {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], {ratio.n} rounds." if ratio else "."),
        *in_words(found),
        *(f"{text}." for text in found.caches),
        *([] if found.state.warm else [f"caches as {found.state.label}: {found.state.says()}."]),
        f"unexplained: {100 * found.unexplained:.0f} % of the measured difference.",
        f"model: {model.cells} cells counted and timed here, a base per stream; non-negative least squares; bootstrap.",
        *_drawn(model),
        *(
            f"{term}, 0.00 ns: the fit cannot separate this term from others that rise with it; it is not free."
            for term in free
        ),
        (
            f"prediction error on differences left out of the fit: {100 * model.difference_error:.0f} % of the slower "
            "time (rms)."
        ),
        *(f"limit: {text}." for text in found.limits),
    ]
    records: list[dict[str, Value]] = []
    for c in found.contributions:
        units: dict[str, Value] = {"unit": c.unit, "unit_low": c.unit_low, "unit_high": c.unit_high}
        records.append({"term": c.term, "a": c.a, "b": c.b, **units, "ns": c.ns, "low": c.low, "high": c.high})
    return Table("Explanation", heads, tuple(rows), (False, *(True,) * 5), tuple(records), tuple(notes))


_WORDS = {
    "work": "loads, stores and branches that are not hidden",
    "mispredictions": "mispredicted branches",
    "atomics": "atomic operations and barriers",
    "depth": "dependent loads",
    "lines": "cache lines",
    "from L2": "lines that only L2 had",
    "from LLC": "lines that only the last-level cache had",
    "from memory": "lines that only memory had",
}
"""The terms in the words of a reader of kernel code."""
_TELLING = 0.1
"""A contribution is mentioned if it is this share of the largest."""


def in_words(found: Explanation) -> list[str]:
    """The difference in a sentence, by its largest contributions, and whether the model's error is larger than it."""
    mean, low, high = found.difference
    if not low * high > 0:
        return []
    a, b = found.a, found.b
    most = max(abs(c.ns) for c in found.contributions)
    parts = sorted(
        (c for c in found.contributions if abs(c.ns) >= max(_TELLING * most, 0.05)), key=lambda c: -abs(c.ns)
    )
    counts = [
        f"{signed(c.ns)} for {abs(c.b - c.a):.2g} {'more' if c.b > c.a else 'fewer'} {_WORDS.get(c.term, c.term)}"
        for c in parts
    ]
    speed = "slower" if mean > 0 else "faster"
    sentence = f"{b.name} is {ns(abs(mean))} ns ({100 * abs(mean) / a.mean:.0f} %) {speed} a lookup than {a.name}"
    guess = (
        "according to a model whose error is larger than that, "
        if abs(mean) <= found.model_error
        else "according to the model, "
    )
    rest = f"{signed(found.remainder)} unexplained"
    return [f"{sentence}: {guess}{', '.join([*counts, rest])} (ns)."]


def _drawn(model: Model) -> list[str]:
    """What the fit is drawn towards, if anything."""
    if not model.alone:
        return []
    return [f"timed alone: {alone(model.alone)}; the fit is pulled towards that (strength {model.strength:g})."]


def breakeven_table(found: Sequence[Breakeven]) -> Table:
    """A row per point of each sweep; the notes have the verdicts."""
    a, b = found[0].a, found[0].b
    heads = ("over", "value", f"{a}, ns", f"{b}, ns", "ratio [95 %]", f"hit rate of {b}", "workload")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for study in found:
        for place in study.places:
            hits = "" if place.hit_rate != place.hit_rate else f"{100 * place.hit_rate:.1f} %"
            first = study.sweep.over if place is study.places[0] else ""
            rows.append((first, number(place.x), ns(place.a), ns(place.b), ratio_text(place.ratio), hits, place.spec))
            ratio = {"ratio": place.ratio.value, "low": place.ratio.low, "high": place.ratio.high}
            records.append({"over": study.sweep.over, "x": place.x, "a": place.a, "b": place.b, **ratio})
    notes = [f"{study.sweep.over}: {study.verdict}." for study in found]
    notes.append(
        f"ns per {_per(found)}; ratios paired by round, {found[0].rounds} rounds; a crossover's interval by bootstrap."
    )
    if not (state := found[0].caches).warm:
        notes.append(f"caches as {state.label}: {state.says()}.")
    return Table("Breakeven", heads, tuple(rows), (False, *(True,) * 5, False), tuple(records), tuple(notes))


def _per(found: Sequence[Breakeven]) -> str:
    figures = dict.fromkeys(study.sweep.figure for study in found)
    return " or ".join("event (with mapping calls)" if figure == "replay" else figure for figure in figures)


def layout_table(found: Sequence[Sensitivity]) -> Table:
    """A row per component of variance; the means by alignment are in the notes."""
    heads = ("workload", "strategy", "source", "sd", "share of variance [95 %]", "p")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    notes = []
    for study in found:
        for part in study.components:
            first = part is study.components[0]
            share = f"{100 * part.share:.0f} % [{100 * part.low:.0f}, {100 * part.high:.0f}]"
            p = "" if part.p != part.p else f"{part.p:.3f}" if part.p >= 0.001 else "< 0.001"
            name = study.strategy if first else ""
            rows.append((study.workload, name, part.name, f"{100 * part.sd:.2f} %", share, p))
            numbers: dict[str, Value] = {"sd": part.sd, "share": part.share, "low": part.low, "high": part.high}
            records.append({"workload": study.workload, "strategy": study.strategy, "source": part.name, **numbers})
        by_shift = study.times.mean(axis=(0, 2))
        by_seed = study.times.mean(axis=(1, 2))
        shifts = ", ".join(f"{shift}: {ns(float(t))}" for shift, t in zip(study.shifts, by_shift, strict=True))
        notes.append(f"{study.strategy} on {study.workload}, ns/{study.figure} by pages of shift: {shifts}.")
        notes.append(f"by layout seed: {ns(float(by_seed.min()))} to {ns(float(by_seed.max()))}.")
    notes.append("random effects of log ns, crossed; sd is relative; intervals by parametric bootstrap.")
    return Table("Layout", heads, tuple(rows), (False,) * 3 + (True,) * 3, tuple(records), tuple(notes))
