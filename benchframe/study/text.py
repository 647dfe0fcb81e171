"""Studies as :class:`~benchframe.tables.build.Table`, so that every form of table works for them too."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.study.breakeven import Breakeven, number
from benchframe.study.explain import Explanation
from benchframe.study.layout import Sensitivity
from benchframe.study.model import Model
from benchframe.study.units import text as alone
from benchframe.tables.build import Table, Value, ns, ratio_text


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
    "far steps": "loads that were probably evicted from L1",
}
"""The terms as a reader of kernel code calls them."""
_TELLING = 0.1
"""A contribution is said if it is this share of the largest."""


def in_words(found: Explanation) -> list[str]:
    """The difference in a sentence, by its largest contributions; that it is a guess where the model cannot tell."""
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
    """What the ridge term pulls the fit towards, if anything."""
    if not model.alone:
        return []
    return [f"timed alone: {alone(model.alone)}; the fit is pulled towards that (strength {model.strength:g})."]


def breakeven_table(found: Sequence[Breakeven]) -> Table:
    """A row per point of each sweep; the verdicts are the notes."""
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
