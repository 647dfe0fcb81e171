"""What ``benchframe host`` prints: a table of the kernel's times beside the model's, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

from benchframe.host.measure import FAULTS, INTERRUPTED, MAPPINGS, HostTimes
from benchframe.host.model import Figures
from benchframe.host.program import Program
from benchframe.report.table import Table, Value, mean_sd, ns, percent, ratio_text, share_of_fault
from benchframe.stats import summarise

_MODELLED = {FAULTS: "fault", MAPPINGS: "mapping"}
"""Rows that the model has a figure for."""


def host_table(times: HostTimes, program: Program, model: Mapping[str, Figures], kernel: str, label: str) -> Table:
    """One row per kind of event; ``model`` by strategy."""
    heads = ("", "events", f"Linux {kernel}, ns", "median", "p99", "A/A [95 %]", *(f"{one}, ns" for one in model))
    rows, records = [], []
    for row in times.rows:
        summary, repeated = row.summary, row.repeated
        modelled = [_modelled(figures, _MODELLED.get(row.name, "")) for figures in model.values()]
        rows.append(
            (row.name, f"{row.events:,}", mean_sd(summary), ns(row.p50), ns(row.p99), ratio_text(repeated), *modelled)
        )
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
    notes = (*sentences(times, model), *_notes(times, program, model))
    return Table(f"{label} on Linux {kernel}", heads, tuple(rows), right, tuple(records), notes)


def _modelled(figures: Figures, figure: str) -> str:
    values = list(figures.get(figure, {}).values())
    return mean_sd(summarise(values)) if values else ""


def sentences(times: HostTimes, model: Mapping[str, Figures]) -> list[str]:
    """What share of a fault the lookup is, and what other strategies could save. Empty without a model or faults."""
    fault = times.row(FAULTS)
    if fault is None or not model:
        return []
    first = next(iter(model))
    lookup = model[first].get("lookup", {})
    if not lookup:
        return [f"{first}: the lookup's time is hidden by noise; use more --rounds."]
    mean = fmean(lookup.values())
    told = [share_of_fault(lookup, fault.rounds, f"{first} in the model")[1]]
    for name in list(model)[1:]:
        other = model[name].get("lookup", {})
        if other:
            saved = mean - fmean(other.values())
            word = "less" if saved >= 0 else "more"
            part = percent(abs(saved) / fault.summary.mean)
            told.append(f"A lookup by {name} takes {ns(abs(saved))} ns {word} than by {first}: {part} of a fault.")
    return told


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
