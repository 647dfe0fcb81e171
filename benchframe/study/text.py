"""Studies as :class:`~benchframe.tables.build.Table`, so that every form of table works for them too."""

from __future__ import annotations

from benchframe.study.explain import Explanation
from benchframe.study.model import Model
from benchframe.tables.build import Table, ns


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
    notes = [
        f"lookup on {workload}, ns: {a.name} {ns(a.mean)}, {b.name} {ns(b.mean)}"
        + (f", ratio {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}], {ratio.n} rounds." if ratio else "."),
        *(f"{text}." for text in found.caches),
        f"model: {model.cells} cells counted and timed here, non-negative least squares, bootstrap intervals.",
        f"on differences it has not seen it errs by {100 * model.difference_error:.0f} % of the slower time (rms).",
        *(f"limit: {text}." for text in found.limits),
    ]
    records = tuple(
        {"term": c.term, "a": c.a, "b": c.b, "unit": c.unit, "unit_low": c.unit_low, "unit_high": c.unit_high,
         "ns": c.ns, "low": c.low, "high": c.high}
        for c in found.contributions
    )  # fmt: skip
    return Table("Explanation", heads, tuple(rows), (False, *(True,) * 5), records, tuple(notes))
