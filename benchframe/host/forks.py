"""What fork and exit take on the running kernel, by the number of VMAs: ``benchframe host --fork``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchframe.host.loop import ARENA, CALL, NOTHING, WORDS, WRITE
from benchframe.host.measure import EMPTY, HostError, prepared, unsupported
from benchframe.host.program import MAP_ANONYMOUS, MAP_FIXED_NOREPLACE
from benchframe.judge.child import MMAP, SYSCALL
from benchframe.report.table import Table, Value, mean_sd, ns
from benchframe.stats import summarise
from benchframe.trace.meta import PAGE

VMAS = (0, 10, 100, 1000, 10_000)
FORKS = 16
"""Forks of a process; the first is not counted, since it fills the slabs."""
ROUNDS = 5
ENOUGH = 100
"""From so many VMAs on the difference to none is divided by their number; below it is lost in noise."""


@dataclass(frozen=True)
class ForkRow:
    """``vmas`` anonymous private VMAs of one page, ``written`` or never touched: ns by process, each the shortest of
    its forks, since a disturbance only adds; and by process ns per VMA, over the same round's process without VMAs."""

    vmas: int
    written: bool
    fork: tuple[float, ...]
    exit: tuple[float, ...]
    fork_each: tuple[float, ...] = ()
    exit_each: tuple[float, ...] = ()


@dataclass(frozen=True)
class ForkTimes:
    """What :func:`measure_forks` found; ``areas`` are the VMAs that a process has besides."""

    rows: list[ForkRow]
    areas: int
    overhead: float


def rows_of(vmas: int, written: bool) -> NDArray[np.int64]:
    """A program that makes the VMAs, a page apart so that they do not merge, and writes to each."""
    ops = np.zeros((EMPTY + vmas * (1 + written), WORDS), np.int64)
    at = ARENA + PAGE + 2 * PAGE * np.arange(vmas)
    ops[:EMPTY, 0] = NOTHING
    maps = ops[EMPTY : EMPTY + vmas]
    maps[:, :2] = CALL, SYSCALL[MMAP]
    maps[:, 2] = at
    maps[:, 3:7] = PAGE, 3, 2 | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1
    touches = ops[EMPTY + vmas :]
    touches[:, 0] = WRITE
    touches[:, 1] = at[: len(touches)]
    return ops


def measure_forks(
    vmas: Sequence[int] = VMAS, rounds: int = ROUNDS, cpu: int = -1, done: Callable[[int], None] | None = None
) -> ForkTimes:
    """Fork and wait :data:`FORKS` times for each number of VMAs, in ``rounds`` processes each, which take turns.

    ``vmas`` begins with 0. Some 0.1 s a process, 0.5 s with 10 000 VMAs. Raises HostError: unsupported, or the kernel
    refuses to map so many (vm.max_map_count) or to fork.
    """
    if reason := unsupported():
        raise HostError(reason)
    if not vmas or vmas[0] != 0:
        raise ValueError("the first number of VMAs must be 0: others are compared with it")
    cases = [(count, written) for count in vmas for written in ((False, True) if count else (False,))]
    taken: dict[tuple[int, bool], list[NDArray[np.float64]]] = {case: [] for case in cases}
    overheads, areas = [], 0
    for number in range(rounds):
        for case in cases:
            with prepared(rows_of(*case), []) as run:
                one = run(None, False, cpu, FORKS)
            refused = one.out[EMPTY:, 2]
            if (refused < 0).any():
                raise HostError(f"the kernel refused {int((refused < 0).sum()):,} of {case[0]:,} mappings")
            overheads.append(float(np.median(one.ns[:EMPTY])))
            taken[case].append(one.forks[1:].min(axis=0) - overheads[-1])
            areas = one.answer["areas"]
        if done is not None:
            done(number)
    base = taken[0, False]
    rows = []
    for (count, written), found in taken.items():
        each = [(one - none) / count for one, none in zip(found, base, strict=True)] if count >= ENOUGH else []
        fork, gone = ([float(one[side]) for one in found] for side in (0, 1))
        fork_each, gone_each = ([float(one[side]) for one in each] for side in (0, 1))
        rows.append(ForkRow(count, written, tuple(fork), tuple(gone), tuple(fork_each), tuple(gone_each)))
    return ForkTimes(rows, areas, float(np.median(overheads)))


def fork_table(times: ForkTimes, kernel: str) -> Table:
    """One row per number of VMAs, untouched and written."""
    heads = ("VMAs", "pages", "fork, us", "per VMA, ns", "exit, us", "per VMA, ns")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for row in times.rows:
        texts = [_spread(row.fork, 1000), _spread(row.fork_each), _spread(row.exit, 1000), _spread(row.exit_each)]
        pages = "" if not row.vmas else "one written in each" if row.written else "none touched"
        rows.append((f"{row.vmas:,}", pages, *texts))
        records.append(
            {
                "vmas": row.vmas, "written": int(row.written), "kernel": kernel, "n": len(row.fork),
                "fork": summarise(row.fork).mean, "fork_sd": summarise(row.fork).sd, "exit": summarise(row.exit).mean,
                "exit_sd": summarise(row.exit).sd, "fork_per_vma": _mean(row.fork_each),
                "exit_per_vma": _mean(row.exit_each),
            }
        )  # fmt: skip
    what = (
        f"fork: until the parent goes on. exit: from the child's exit_group until its parent is back from wait4, "
        f"with the switch to it. Besides its own {times.areas} VMAs; per VMA: over the row of 0."
    )
    how = (
        f"{len(times.rows[0].fork)} processes a row, the shortest of {FORKS - 1} forks of each; ± is the standard "
        f"deviation over processes. The clock's own {ns(times.overhead)} ns are subtracted."
    )
    right = (True, False, True, True, True, True)
    return Table(f"fork and exit on Linux {kernel}", heads, tuple(rows), right, tuple(records), (what, how))


def _mean(values: Sequence[float]) -> float | None:
    return summarise(values).mean if values else None


def _spread(values: Sequence[float], unit: float = 1.0) -> str:
    """``mean ± sd`` in a unit of so many ns; "" for nothing."""
    if not values:
        return ""
    return mean_sd(summarise([value / unit for value in values]))
