"""What ``benchframe host`` prints: a table of the kernel's times beside the model's, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean, stdev

from benchframe.host.measure import FAULTS, INTERRUPTED, MAPPINGS, HostTimes
from benchframe.host.model import Figures
from benchframe.host.program import Program
from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.stats import welch_ratio

_MODELLED = {FAULTS: "fault", MAPPINGS: "mapping"}
"""Rows that the model has a figure for."""


def host_table(times: HostTimes, program: Program, model: Mapping[str, Figures], kernel: str, label: str) -> Table:
    """One row per kind of event; ``model`` by strategy."""
    heads = ("", "events", f"Linux {kernel}, ns", "median", "p99", "A/A [95 %]", *(f"{one}, ns" for one in model))
    rows, records = [], []
    for row in times.rows:
        summary, repeated = row.summary, row.repeated
        spread = f"{ns(summary.mean)} ± {ns(summary.sd)}" if summary.n > 1 else ns(summary.mean)
        modelled = [_modelled(figures, _MODELLED.get(row.name, "")) for figures in model.values()]
        rows.append((row.name, f"{row.events:,}", spread, ns(row.p50), ns(row.p99), ratio_text(repeated), *modelled))
        record: dict[str, Value] = {
            "event": row.name, "events": row.events, "kernel": kernel, "mean": summary.mean, "sd": summary.sd,
            "low": summary.low, "high": summary.high, "n": summary.n, "p50": row.p50, "p99": row.p99,
            "repeated": repeated.value if repeated else None,
        }  # fmt: skip
        for name, figures in model.items():
            values = list(figures.get(_MODELLED.get(row.name, ""), {}).values())
            record[name] = fmean(values) if values else None
        records.append(record)
    right = (False, True, True, True, True, False, *(True for _ in model))
    notes = (*sentences(times, model, kernel), *_notes(times, program, model))
    return Table(f"{label} on Linux {kernel}", heads, tuple(rows), right, tuple(records), notes)


def _modelled(figures: Figures, figure: str) -> str:
    values = list(figures.get(figure, {}).values())
    if not values:
        return ""
    return ns(fmean(values)) + (f" ± {ns(stdev(values))}" if len(values) > 1 else "")


def sentences(times: HostTimes, model: Mapping[str, Figures], kernel: str) -> list[str]:
    """What share of a fault the lookup is, and what other strategies could save. Empty without a model or faults."""
    fault = times.row(FAULTS)
    if fault is None or not model:
        return []
    real = dict(enumerate(fault.rounds))
    first = next(iter(model))
    lookup = model[first].get("lookup", {})
    share = welch_ratio(lookup, real)
    if share is None:
        return [f"{first}: the lookup's time is hidden by noise; use more --rounds."]
    mean = fmean(lookup.values())
    end = f" [{_percent(share.low)}, {_percent(share.high)}]" if share.n > 1 else ""
    real_ns = ns(fault.summary.mean)
    text = f"A lookup is {ns(mean)} ns ({first} in the model) of a page fault of {real_ns} ns on this kernel: "
    told = [f"{text}the best strategy can save {_percent(share.value)}{end} of a fault."]
    for name in list(model)[1:]:
        other = model[name].get("lookup", {})
        if other:
            saved = mean - fmean(other.values())
            word = "less" if saved >= 0 else "more"
            part = _percent(abs(saved) / fault.summary.mean)
            told.append(f"A lookup by {name} takes {ns(abs(saved))} ns {word} than by {first}: {part} of a fault.")
    return told


def _percent(share: float) -> str:
    """A share in per cent with two significant digits.

    >>> _percent(0.00534), _percent(0.123), _percent(float("nan"))
    ('0.53 %', '12 %', '-')
    """
    return "-" if share != share else f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _notes(times: HostTimes, program: Program, model: Mapping[str, Figures]) -> Iterable[str]:
    """How it was measured, what was left out."""
    yield (
        f"{times.rounds} processes, each beside {times.areas} VMAs of its own, huge pages off; ± is the standard "
        "deviation of process means. A/A: every second process against the others."
    )
    yield (
        f"The clock's own {ns(times.overhead)} ns are subtracted. A system call that does nothing: {ns(times.null)} ns."
        f" {times.interrupted:,} of {times.samples:,} samples were interrupted (over {INTERRUPTED / 1000:.0f} us above "
        "the event's median) and are left out."
    )
    if model:
        yield "The model's figures are warm and without entry to the kernel, clearing of pages and memory accounting."
    if times.silent:
        yield f"{times.silent:,} touches caused no fault here, since the page was there: not in the figures."
    if times.signals:
        yield f"{times.signals:,} touches ended in a signal here: not in the figures."
    if program.cut:
        yield f"Cut: {program.cut}."
    if program.omitted:
        yield f"Not performed: {_counted(program.omitted)}."
    if program.changed:
        yield f"Performed otherwise: {_counted(program.changed)}."
    if times.differ:
        yield f"Calls that ended otherwise than recorded: {_counted(times.differ)}."


def _counted(counts: Mapping[str, int]) -> str:
    """``12 x, 3 y``, the largest number first."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
