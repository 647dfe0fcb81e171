"""``benchframe gate BASE NEW``: loose on time, exact on counted cost.

Time fails the gate only if it is *significantly* slower by more than the limit: the one-sided test of "at most LIMIT
slower", corrected by Holm over all figures of the gate, so that at most one harmless change in twenty fails the gate,
however many cells there are. Counted cost (docs/cost.md) has no noise: any growth is a regression, any shrinking an
improvement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchframe.report.compare import Comparison
from benchframe.results.figures import FIGURES
from benchframe.results.folder import Cell
from benchframe.stats import holm
from benchframe.stats.verdict import above

PASS, REGRESSION, INVALID = 0, 1, 2
COST_MODES = ("auto", "exact", "off")


@dataclass(frozen=True)
class GateResult:
    """``code`` PASS, REGRESSION or INVALID, and the reasons, one text each: ``bad`` (what fails the gate), ``good``
    (improvements), ``notes``. ``where`` summarises the regressions, a text per cell."""

    code: int
    bad: tuple[str, ...]
    good: tuple[str, ...]
    notes: tuple[str, ...]
    where: tuple[str, ...] = ()


def gate(found: Comparison, limit: float = 0.05, cost: str = "auto", growth: float = 0.0) -> GateResult:
    """Judge NEW against BASE. ``limit`` 0.05 allows time to grow by 5 %; ``cost`` is one of COST_MODES: ``exact``
    demands counted cost on both sides, ``auto`` compares it where both have it. A count may grow by the share
    ``growth``. O(lines)."""
    invalid = [f"not compared: {text}" for text in found.missing]
    notes = [f"new: {text}" for text in found.added]
    if not found.lines:
        invalid.append("the two runs have no figure in common")
    bad, good, more, slower = _time(found, limit)
    notes += more
    grown: dict[str, int] = {}
    if cost != "off" and not found.same_model:
        (invalid if cost == "exact" else notes).append("counted cost is not comparable: another model")
    elif cost != "off":
        compared = 0
        for base, new in found.pairs:
            if not base.state.cost or not new.state.cost:
                if cost == "exact":
                    invalid.append(f"{_place(new)}: no counted cost in {'BASE' if not base.state.cost else 'NEW'}")
                continue
            compared += 1
            worse, better, other = cost_changes(base, new, growth)
            grown[_place(new)] = len(worse)
            bad += [f"cost: {text}" for text in worse]
            good += [f"cost: {text}" for text in better]
            (invalid if cost == "exact" else notes).extend(other)
        how = f"; each may grow by {100 * growth:g} %" if growth else " exactly"
        notes.append(f"counted cost: {compared} of {len(found.pairs)} cells compared{how}")
    notes += [
        f"{place}: slower, though no counted cost grew: code placement, the machine, or something not counted; gate "
        "two "
        "runs of each before you look for it in the source"
        for place in slower
        if grown.get(place) == 0
    ]
    code = INVALID if invalid else REGRESSION if bad else PASS
    return GateResult(code, (*invalid, *bad), tuple(good), tuple(notes), tuple(_where(slower, grown)))


def _place(cell: Cell) -> str:
    return f"{cell.entry.strategy} on {cell.entry.workload}"


def _where(slower: Mapping[str, int], grown: Mapping[str, int]) -> list[str]:
    """The regressions, a text per cell."""
    found = []
    for place in dict.fromkeys((*slower, *grown)):
        time, cost = slower.get(place, 0), grown.get(place, 0)
        parts = [f"{time} figure{'s' * (time > 1)} slower"] * (time > 0)
        parts += [f"{cost} count{'s' * (cost > 1)} grew"] * (cost > 0)
        if parts:
            found.append(f"{place} ({', '.join(parts)})")
    return found


def _time(found: Comparison, limit: float) -> tuple[list[str], list[str], list[str], dict[str, int]]:
    """(regressions, improvements, notes, how many figures of each cell are slower)."""
    bound, alpha = math.log1p(limit), found.judging.alpha
    corrected = holm([above(line.verdict.ratio, bound) for line in found.lines])
    bad, good, unsure = [], [], []
    slower: dict[str, int] = {}
    for line, p in zip(found.lines, corrected, strict=True):
        ratio = line.verdict.ratio
        what = f"{line.strategy} on {line.workload}, {FIGURES[line.figure]}: {100 * (ratio.value - 1):+.1f} %"
        interval = f"[{100 * (ratio.low - 1):+.1f}, {100 * (ratio.high - 1):+.1f}] %"
        if p <= alpha:
            slower[_place(line.second)] = slower.get(_place(line.second), 0) + 1
            bad.append(f"slower: {what} {interval}, more than {100 * limit:g} % (p {p:.2g})")
        elif line.verdict.word == "faster":
            good.append(f"faster: {what} {interval}")
        elif not ratio.high <= 1 + limit:
            unsure.append((ratio.high, f"{what} {interval}"))
    notes = []
    if unsure:
        worst = max(unsure)[1]
        notes.append(
            f"{len(unsure)} of {len(found.lines)} figures may be more than {100 * limit:g} % slower, too noisy to say: "
            f"the widest is {worst}; more --rounds narrow it"
        )
    return bad, good, notes, slower


def cost_changes(base: Cell, new: Cell, growth: float = 0.0) -> tuple[list[str], list[str], list[str]]:
    """(regressions, improvements, what cannot be compared) of the counted cost of one cell, a line each.

    More hits are an improvement. If both sides counted the same events, every difference counts. If a long stream was
    sampled at different events (a strategy with more records leaves room for fewer events), a mean counts as different
    if the difference exceeds SIGMAS standard errors. Increases of at most the share ``growth`` are left out.
    """
    where = _place(new)
    before, after = base.state.cost, new.state.cost
    if base.workload.digest != new.workload.digest or before.get("events") != after.get("events"):
        return [], [], [f"{where}: different events, so cost is not comparable"]
    sampled = before.get("counted") != after.get("counted")
    worse: list[str] = []
    better: list[str] = []
    for key in sorted({*before, *after} - {"events", "counted"}):
        old, now = before.get(key), after.get(key)
        if key.endswith(("_se", ".n")) or old == now or (sampled and _within(key, before, after)):
            continue
        text = f"{where}, {key}: {_number(old)} -> {_number(now)}" + _percent(old, now)
        good = ((now or 0.0) > (old or 0.0)) == key.endswith("hits")
        if good or abs((now or 0.0) - (old or 0.0)) > growth * abs(old or 0.0):
            (better if good else worse).append(text)
    return worse, better, []


SIGMAS = 5.0


def _within(key: str, before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether two sampled means agree within their standard errors; quantiles of a sample have none."""
    errors = before.get(f"{key}_se"), after.get(f"{key}_se")
    if errors[0] is None or errors[1] is None:
        return not key.startswith("bytes.")
    return abs(after.get(key, 0.0) - before.get(key, 0.0)) <= SIGMAS * math.hypot(errors[0], errors[1])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


def _percent(old: float | None, now: float | None) -> str:
    return f" ({100 * (now / old - 1):+.3g} %)" if old and now is not None else ""


def summary(outcome: GateResult, limit: float) -> str:
    """The gate's last line."""
    if outcome.code == PASS:
        return f"gate: pass (no figure is significantly more than {100 * limit:g} % slower)"
    number = f"{len(outcome.bad)} reason{'s' * (len(outcome.bad) != 1)}"
    if outcome.code == INVALID:
        return f"gate: not comparable, or failed, {number}"
    more = [f"and {len(outcome.where) - 5} more"] if len(outcome.where) > 6 else []
    shown = outcome.where[: 5 if more else 6]
    return f"gate: regression, {number}: {'; '.join([*shown, *more])}"
