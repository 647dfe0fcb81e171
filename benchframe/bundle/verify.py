"""``benchframe verify BUNDLE``: the same cells again, here, and whether they agree beyond noise.

What is compared is each strategy's ratio to the baseline of its own run, so another, faster machine can agree; the
baseline itself has no ratio. What is counted (hits, invalidations, cost) must agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchframe.bundle.unpack import Bundle
from benchframe.compare.compare import ABSOLUTE, Comparison, Line, compare
from benchframe.compare.gate import cost_changes
from benchframe.compare.sides import Side
from benchframe.engine.rounds import spare_cpu
from benchframe.errors import ResultsError
from benchframe.results.figures import FIGURES
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import Manifest, WorkloadEntry
from benchframe.results.plan import Stream, make_stream, plan
from benchframe.stats import Judging, holm
from benchframe.stats.verdict import above, below

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy

AGREES, DIFFERS, UNVERIFIED = 0, 1, 2
MAX_ROUNDS = 10
"""Rounds of a verification, unless the user says otherwise."""
MAX_SECONDS = 600
"""Seconds of measuring in one process that a bundle may ask for; a rigorous run has 2."""
COUNTS = ("lookups", "hits", "invalidations", "splits", "merges", "faults", "mapping_ops", "events")


@dataclass(frozen=True)
class Verification:
    """``code`` AGREES, DIFFERS or UNVERIFIED; one text per cell that was looked at; what differs about the place."""

    code: int
    lines: tuple[str, ...]
    differences: tuple[str, ...]


def prepare(bundle: Bundle, known: Registry) -> tuple[dict[str, Strategy], list[Stream]]:
    """The installed strategies and the packed (or remade) events of a bundle's run.

    Raises ResultsError if a strategy's code or a workload's events are not those that were measured, and UnknownName
    if a strategy is not installed.
    """
    from benchframe.engine.content import strategy_digest

    manifest = bundle.folder.manifest
    strategies = {cell.strategy: known.strategy(cell.strategy) for cell in manifest.cells}
    for cell in manifest.cells:
        if strategy_digest(strategies[cell.strategy]) != cell.strategy_digest:
            raise ResultsError(
                bundle.name,
                f"strategy {cell.strategy} here is not the one that was measured (other code)",
                "install the version that the bundle names, or give its file with --plugin",
            )
    return strategies, [_stream(bundle, entry, known) for entry in manifest.workloads]


def _stream(bundle: Bundle, entry: WorkloadEntry, known: Registry) -> Stream:
    trace = bundle.trace(entry.digest)
    if trace is None and entry.spec:
        trace = make_stream(known.spec(entry.spec), entry.seed, threads=entry.threads).trace
    if trace is None or trace.digest != entry.digest:
        what = "are not in the bundle" if trace is None else "are made differently here"
        raise ResultsError(bundle.name, f"the events of {entry.label} {what}", "they cannot be run again")
    return Stream(replace(entry, path=""), trace)


def plan_again(
    bundle: Bundle,
    strategies: Mapping[str, Strategy],
    streams: Sequence[Stream],
    rounds: int | None,
    plugins: Sequence[str],
    blocked: Sequence[str],
) -> Manifest:
    """The manifest of the second run: the same cells, depth, schedule and layouts, on this machine.

    ``rounds`` None: as many as the first run had, at least 2 and at most MAX_ROUNDS. Raises ResultsError if the
    bundle asks for processes that would take for ever.
    """
    then = bundle.folder.manifest
    seconds = then.options.min_time * (then.options.values + then.options.warmups)
    if seconds > MAX_SECONDS or then.options.timeout > 100 * MAX_SECONDS:
        raise ResultsError(
            bundle.name, f"it asks for {seconds:,.0f} s in each process", f"more than {MAX_SECONDS} s is not run again"
        )
    done = max((len(cell.done) for cell in bundle.folder.cells()), default=2)
    cpu = spare_cpu()
    options = replace(
        then.options,
        rounds=rounds or max(2, min(done, MAX_ROUNDS)),
        cpu=-1 if cpu is None else cpu,
        until_decided=False,
        budget=0.0,
    )
    asked = list(dict.fromkeys(cell.strategy for cell in then.cells))
    command = ["benchframe", "verify", bundle.name]
    manifest = plan(
        asked, strategies, streams, options, seed=then.seed, command=command, plugins=plugins, blocked=blocked
    )
    measured = {(cell.workload, cell.strategy) for cell in then.cells}
    return replace(manifest, cells=tuple(c for c in manifest.cells if (c.workload, c.strategy) in measured))


def judge_again(bundle: Bundle, again: RunFolder) -> tuple[Verification, Comparison]:
    """What the second run says of the first."""
    a, b = Side(bundle.folder), Side(again)
    found = compare(a, b)
    code, lines = AGREES, []
    told = [line for line in found.lines if line.how != ABSOLUTE]
    for line, p in zip(told, _beyond(told, found.judging), strict=True):
        differs = p <= found.judging.alpha
        code = max(code, DIFFERS if differs else AGREES)
        ratio = line.verdict.ratio
        lines.append(
            f"{_word(line, differs, found.judging)}: {line.strategy} on {line.workload}, {FIGURES[line.figure]}: "
            f"{100 * (ratio.value - 1):+.1f} % [{100 * (ratio.low - 1):+.1f}, {100 * (ratio.high - 1):+.1f}]"
        )
    for before, after in found.pairs:
        where = f"{after.entry.strategy} on {after.entry.workload}"
        if before.state.state != after.state.state:
            code = DIFFERS
            lines.append(f"differs: {where} was {before.state.state} and is {after.state.state}")
            continue
        if before.workload.threads:  # what real threads count depends on who came first
            lines.append(f"agrees: {where}: every answer was right again")
            continue
        counted = _counts(before.state.counts, after.state.counts)
        counted = [f"{where}, {text}" for text in counted]
        exact = found.same_model and bool(before.state.cost and after.state.cost)
        if exact:
            worse, better, _ = cost_changes(before, after)
            counted += worse + better
        code = max(code, DIFFERS if counted else AGREES)
        lines += [f"differs: {text}" for text in counted]
        if not counted:
            lines.append(f"agrees: {where}: counts{' and cost' * exact} to the last one")
    if found.missing:
        code = UNVERIFIED if code == AGREES else code
        lines += [f"not verified: {text}" for text in found.missing if "is not in" in text]
    return Verification(code, tuple(lines), tuple(map(str, found.differences))), found


def _beyond(lines: Sequence[Line], judging: Judging) -> list[float]:
    """Corrected p values of "the ratio changed by no more than the smallest effect of interest".

    Two runs at two times differ by a little that the spread within neither of them shows; so a verification, as a
    gate, says "differs" only if the change is surely larger than that.
    """
    bound = math.log1p(judging.within)
    ratios = [line.verdict.ratio for line in lines]
    return holm([min(1.0, 2 * min(above(ratio, bound), below(ratio, -bound))) for ratio in ratios])


def _word(line: Line, differs: bool, judging: Judging) -> str:
    if differs:
        return "differs beyond noise"
    within = f"{100 * judging.within:g} %"
    return f"agrees within {within}" if line.verdict.word == "same" else "agrees as far as noise tells"


def _counts(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return [
        f"{name}: {before[name]:,.0f} -> {after[name]:,.0f}"
        for name in COUNTS
        if name in before and name in after and before[name] != after[name]
    ]
