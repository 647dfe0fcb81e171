"""A self-test's record as text, and whether it passes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchframe.selftest.analysis import (
    BLOCK,
    MINUTES,
    FalsePositives,
    Loaded,
    Power,
    false_positives,
    injected,
    injected_exactly,
    loaded,
    power,
)
from benchframe.selftest.record import FIGURES, Record
from benchframe.selftest.twins import BASELINE, COPIES, PERIOD, SLOWED
from benchframe.stats import ALPHA, Ratio, Verdict
from benchframe.tables.build import ratio_text


@dataclass(frozen=True)
class Judgement:
    """The text, and what speaks against trusting this host; empty if nothing does."""

    text: str
    problems: tuple[str, ...]


def judge_record(record: Record, seed: int = 1) -> Judgement:
    """All of a self-test's conclusions. Seeded: the same record gives the same text. A second or so."""
    rng = np.random.default_rng(seed)
    false = false_positives(record.quiet)
    powers = [p for figure in FIGURES if (p := power(record, figure, rng))]
    twin, under = injected(record), loaded(record)
    problems = [*_false(false), *_twin(twin), *_load(under)]
    lines = [
        f"self-test on {record.workload}, {record.about.get('date', 'undated')}",
        ", ".join(record.about.get(key, "?") for key in ("cpu", "kernel")),
        f"{record.about.get('cpus', '?')} CPUs, pinned: {record.about.get('pinned', '?')}",
        f"noise: {record.about.get('noise', '?')}",
        "",
        *_aa_lines(false),
        "",
        *_power_lines(powers, record.seconds),
        "",
        *_exact_lines(record),
        *_twin_lines(twin, record),
        "",
        *_load_lines(under, record),
        "",
        "Clock",
        (
            f"  reading the cycle counter costs {record.overhead[0]:.1f} to {record.overhead[1]:.1f} ns, which is "
            "subtracted"
        ),
        "",
        *(f"FAILED: {problem}" for problem in problems),
        *([] if problems else ["passed: this test found nothing wrong with verdicts on this host"]),
    ]
    return Judgement("\n".join(lines) + "\n", tuple(problems))


def _aa_lines(found: FalsePositives) -> list[str]:
    rate = _percent(found.wrong / found.n) if found.n else "-"
    interval = f"95 % interval of the rate {_percent(found.low)} to {_percent(found.high)}"
    return [
        f"A/A: rbtree against copies of itself, {BLOCK} rounds each",
        f"  {found.wrong} of {found.n} comparisons differ at {100 * ALPHA:g} % before correction ({rate})",
        f"  of {found.independent} that share no process (lookup): {found.independent_wrong}; {interval}",
        (
            f"  after the correction for multiple comparisons: {found.wrong_tables} of {found.tables} tables contain a "
            "false verdict"
        ),
    ]


def _power_lines(powers: list[Power], seconds: float) -> list[str]:
    heads = "".join(f"{f'{m:g} min':>10}" for m in MINUTES)
    lines = [
        f"Smallest slow-down that is found with probability 0.9 (two strategies, {2 * seconds:.1f} s a round)",
        f"  {'':<10}{'sd':>8}{heads}{'3 % in 2 min':>16}{'resampled':>12}",
    ]
    for p in powers:
        cells = "".join(f"{'-' if math.isinf(e) else _percent(e):>10}" for e in p.smallest)
        lines.append(f"  {p.figure:<10}{_percent(p.sd):>8}{cells}{p.found:>16.3f}{p.resampled:>12.3f}")
    lines.append(
        "  sd: of the log ratio of two identical processes in a round; last two columns: probability of finding 3 %"
    )
    return lines


def _exact_lines(record: Record) -> list[str]:
    rounds = len(next(iter(record.quiet["lookup"].values()), {}))
    found = ", ".join(f"{figure} {k} of {n}" for figure, (k, n) in injected_exactly(record).items())
    return [f"A/B: a copy's times multiplied by 1.03, {rounds} rounds, found as slower: {found}"]


def _twin_lines(twin: dict[str, Verdict], record: Record) -> list[str]:
    lines = [f"A/B: {SLOWED} walks the tree a second time on one lookup in {PERIOD}"]
    base, slowed = record.loads.get(BASELINE, 0.0), record.loads.get(SLOWED, 0.0)
    if base > 0:
        lines.append(f"  loads per lookup, counted: {base:.2f} and {slowed:.2f} ({100 * (slowed / base - 1):+.1f} %)")
    lines += [f"  {figure:<10}{ratio_text(v.ratio, 3)} over {v.ratio.n} rounds: {v.text}" for figure, v in twin.items()]
    return lines


def _load_lines(under: list[Loaded], record: Record) -> list[str]:
    rounds = len(next(iter(next(iter(record.load.values()), {}).values()), {}))
    lines = [
        f"Load: busy loops from round {record.loaded_from + 1} of {rounds} on; ratio to rbtree",
        f"  {'':<10}{'':<16}{'interleaved':<38}{'rbtree first, then it':<34}it first, then rbtree",
    ]
    for one in under:
        shown = f"{ratio_text(one.interleaved.ratio, 3)} {one.interleaved.word}"
        lines.append(f"  {one.figure:<10}{one.strategy:<16}{shown:<38}{_alone(one.before):<34}{_alone(one.after)}")
    changes = {one.figure: one.slowdown for one in under}
    changed = ", ".join(f"{figure} {100 * change:+.1f} %" for figure, change in changes.items())
    return [
        *lines,
        f"  the load changes rbtree itself by {changed}",
        "  the two columns on the right: the same values, as if the strategies had run one after the other",
    ]


def _alone(ratio: Ratio) -> str:
    return f"{ratio_text(ratio, 3)} {ratio.word}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 1 else f"{100 * share:.0f} %"


def _false(found: FalsePositives) -> list[str]:
    if found.independent and found.low > ALPHA:
        rate = _percent(found.independent_wrong / found.independent)
        return [f"a strategy differs from itself in {rate} of comparisons"]
    return []


def _twin(twin: dict[str, Verdict]) -> list[str]:
    verdict = twin.get("lookup")
    if verdict is None or verdict.word in ("slower", "undecided", "same"):
        return []
    return [f"the slowed strategy reads {verdict.text} in lookup: {ratio_text(verdict.ratio, 3)}"]


def _load(under: list[Loaded]) -> list[str]:
    return [
        f"under a load {one.strategy} reads {one.interleaved.word} in {one.figure}, although it is the same code"
        for one in under
        if one.strategy in COPIES and one.interleaved.word in ("faster", "slower")
    ]
