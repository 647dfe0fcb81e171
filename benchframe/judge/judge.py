"""The comparison itself: both sides perform the same operations; results, areas and flags must be equal."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchframe.judge.child import ARENA, ARENA_END, harmless
from benchframe.judge.generators import ZONES, generator
from benchframe.judge.kernel import Kernel
from benchframe.judge.ops import NAMES, Calls, Make, Op, Row, apply, words_of
from benchframe.oracle.flags import SMAPS

Accept = Callable[[Op], bool]
BATCH = 256
"""Operations in a batch; each batch begins with an empty arena on both sides."""
SHOWN = frozenset(SMAPS.values())
"""The VmFlags words that are compared; others depend on the kernel's configuration."""


@dataclass
class Mismatch:
    """One disagreement: a program whose last operation ends differently on the two sides."""

    ops: list[Op]
    what: str
    """One line: what differs."""
    before: list[int]
    """The areas before the last operation, four words each, where both sides still agreed."""
    expected: tuple[int, list[int]]
    """The kernel's result and areas."""
    got: tuple[int, list[int]]
    """The judged side's."""
    flags: tuple[list[str], list[str]] | None = None
    """VmFlags of the kernel and of the judged side, if they differ."""


@dataclass
class Outcome:
    """The whole run."""

    ops: int = 0
    seconds: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)
    flag_checks: int = 0
    areas: int = 0
    """Sum over all operations of the number of areas."""
    errnos: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(call, errno) -> how often the kernel refused so."""
    forks: int = 0
    grew: int = 0
    """Operations after which there were more areas."""
    shrank: int = 0

    @property
    def rate(self) -> float:
        """Checked operations a second."""
        return self.ops / self.seconds if self.seconds else 0.0

    def add(self, other: "Outcome") -> None:
        """Count another run in."""
        for name in ("ops", "seconds", "flag_checks", "areas", "forks", "grew", "shrank"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.mismatches += other.mismatches
        self.errnos += other.errnos


@dataclass
class Expected:
    """What the judged side said to a batch."""

    ops: list[Op] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    layouts: list[list[int]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def rehearse(make: Make, ops: Sequence[Op]) -> Expected:
    """Run a given program on a fresh judged side."""
    side = make()
    told = Expected()
    for op in ops:
        side, result = apply(side, op)
        _note(told, op, result, side.layout())
    told.flags = _flags(side)
    return told


def _note(told: Expected, op: Op, result: int, layout: list[Row]) -> None:
    """Note one operation's result and areas."""
    told.ops.append(op)
    told.results.append(result)
    told.layouts.append(words_of(layout))


def _flags(side: Calls) -> list[str]:
    """The flags of the side's areas that lie in the arena."""
    flags = side.layout_flags()
    if not flags:
        return []
    return [words for row, words in zip(side.layout(), flags, strict=True) if ARENA <= row[0] < ARENA_END]


def compose(make: Make, name: str, seed: str, count: int, accept: Accept = harmless) -> Expected:
    """Let a generator write a program of ``count`` accepted operations while the judged side performs it."""
    side = make()
    source = generator(name, seed)
    told = Expected()
    layout = side.layout()
    while len(told.ops) < count:
        op = source.next(layout)
        if not (harmless(op) and accept(op)):
            continue
        side, result = apply(side, op)
        layout = side.layout()
        _note(told, op, result, layout)
    told.flags = _flags(side)
    return told


def compare(told: Expected, kernel: Kernel, outcome: Outcome | None = None) -> Mismatch | None:
    """Fetch the kernel's answer to ``told.ops``, which was sent, and find the first difference."""
    said = kernel.receive()
    before: list[int] = []
    for at, op in enumerate(told.ops):
        result, layout = said.results[at], said.layouts[at]
        if result != told.results[at] or layout != told.layouts[at]:
            what = f"{op} returned {told.results[at]}, the kernel says {result}"
            if result == told.results[at]:
                what = f"after {op} the areas differ"
            pair = (result, layout), (told.results[at], told.layouts[at])
            return Mismatch(told.ops[: at + 1], what, before, *pair)
        if outcome is not None:
            outcome.ops += 1
            outcome.areas += len(layout) // 4
            outcome.grew += len(layout) > len(before)
            outcome.shrank += len(layout) < len(before)
            outcome.forks += NAMES[op.code] == "fork"
            if -4096 < result < 0:
                outcome.errnos[NAMES[op.code], -result] += 1
        before = layout
    if told.flags and said.flags:
        if outcome is not None:
            outcome.flag_checks += 1
        pairs = zip(told.flags, said.flags, strict=True)
        if any(_shown(one) != _shown(other) for one, other in pairs):
            last = said.results[-1], before
            return Mismatch(told.ops, "the flags of the areas differ", before, last, last, (said.flags, told.flags))
    return None


def _shown(words: str) -> set[str]:
    return set(words.split()) & SHOWN


def check(make: Make, ops: Sequence[Op], kernel: Kernel) -> Mismatch | None:
    """Run one program on both sides."""
    told = rehearse(make, ops)
    kernel.send(told.ops, with_flags=True)
    return compare(told, kernel)


def judge(
    make: Make,
    ops: int,
    seed: int,
    name: str,
    kernel: Kernel,
    minutes: float | None = None,
    stop_after: int = 1,
    progress: Callable[[Outcome], None] | None = None,
    accept: Accept = harmless,
    first: int = 0,
) -> Outcome:
    """Random differential run of ``ops`` operations (or until ``minutes`` are over) with one generator.

    Batch number n of a run depends on (seed, generator, n) only. While the kernel runs one batch, the judged side
    composes the next.

    Args:
        make: makes a fresh judged side, with an empty arena and the break at BRK_BASE.
        stop_after: give up after this many mismatches; each costs the rest of its batch.
        progress: called after each batch.
        accept: which operations the judged side speaks; others are left out.
        first: number of the first batch, to go on where an earlier run ended.

    Raises:
        ValueError: no such generator.
        JudgeError: the judging process failed.
    """
    if name not in ZONES:
        generator(name, "")
    outcome = Outcome()
    began = time.monotonic()
    number = first
    running: Expected | None = None
    while True:
        spent = time.monotonic() - began
        under_way = outcome.ops + (BATCH if running else 0)
        more = under_way < ops and (minutes is None or spent < minutes * 60)
        upcoming = compose(make, name, f"{seed}/{name}/{number}", BATCH, accept) if more else None
        number += 1
        if running is not None:
            mismatch = compare(running, kernel, outcome)
            if mismatch is not None:
                outcome.mismatches.append(mismatch)
        if running is None and upcoming is None:
            break
        if len(outcome.mismatches) >= stop_after:
            break
        if upcoming is not None:
            kernel.send(upcoming.ops, with_flags=True)
        running = upcoming
        outcome.seconds = time.monotonic() - began
        if progress is not None:
            progress(outcome)
    outcome.seconds = time.monotonic() - began
    return outcome
