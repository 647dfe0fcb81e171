"""``benchframe oracle --sources``: compare the strategies and the oracle with a kernel's own source files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.errors import UsageError, did_you_mean
from benchframe.judge.sources.build import MAPLE, RBTREE, VMA, Driver, build
from benchframe.judge.sources.compare import Row, maple_calls, maple_forks, maple_stores, maple_trace, rbtree, vmas
from benchframe.judge.sources.maple import KernelMaple
from benchframe.linux.tree import SourcesError, SourceTree, find_trees

if TYPE_CHECKING:
    from rich.console import Console

    from benchframe.registry import Registry

DEFAULT_OPS = 3000
PARTS = ("rbtree", "maple", "traces", "vma")
TRACES = ("python-json", "git-log", "sh-pipeline", "sqlite-index", "container", "postgres-backend")
"""Traces whose stores are compared: few enough to take seconds."""
EQUAL, DIFFERENT = 0, 1


def run_sources_command(
    folders: Sequence[Path],
    known: Registry,
    ops: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    part: str = "all",
    traces: Sequence[str] = TRACES,
) -> int:
    """Compare, print a table, draw the first difference of each row that has one.

    Args:
        folders: kernel source trees, or folders that contain some.
        known: the plugins; rbtree, rbtree_gap, maple and maple_rcu are compared.
        ops: random calls, and random stores, of each comparison (DEFAULT_OPS).
        minutes: stop when this long has passed, between two programs; instead of ``ops``.
        seed: the random programs depend on it alone.
        part: rbtree, maple, traces, vma, or all.
        traces: workloads of ``known`` whose stores part ``traces`` takes.

    Returns:
        0: nothing differs; 1: something does.

    Raises:
        UsageError: no such part.
        SourcesError: no sources, no compiler, or nothing that these sources have was asked for.
    """
    from rich.console import Console

    if part not in ("all", *PARTS):
        raise UsageError(f"no generator is called {part!r}", hint=did_you_mean(part, PARTS, "choose one of {}, or all"))
    parts = PARTS if part == "all" else (part,)
    console = Console(highlight=False)
    trees = find_trees(folders)
    console.print("sources: " + ", ".join(f"Linux {tree.name} in {tree.path}" for tree in trees), soft_wrap=True)
    end = time.monotonic() + minutes * 60 if minutes else None
    count = ops or (DEFAULT_OPS if minutes is None else 1 << 40)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchframe-sources-") as folder:
        runs = list(_runs(console, known, trees, Path(folder), count, seed, parts, traces))
        for left, run in zip(range(len(runs), 0, -1), runs, strict=True):
            share = (end - time.monotonic()) / left if end is not None else None
            found += _table(console, _until(run, share))
        if not found:
            raise SourcesError(
                f"nothing to compare: {', '.join(parts)}", where=folders[0], hint="give it lib/ and mm/ of Linux 6.12"
            )
        wrong = [row for row in found if row.differ]
        _explain(console, wrong)
    total = sum(row.compared for row in found)
    console.print(f"\n{total:,} comparisons in {len(found)} rows; {len(wrong)} rows with differences", soft_wrap=True)
    return DIFFERENT if wrong else EQUAL


def _runs(
    console: Console,
    known: Registry,
    trees: Sequence[SourceTree],
    folder: Path,
    ops: int,
    seed: int,
    parts: Sequence[str],
    traces: Sequence[str],
) -> Iterator[Iterator[list[Row]]]:
    """The comparisons that were asked for, as far as the trees have the files; what they lack is said."""
    if "rbtree" in parts:
        for tree in _having(console, trees, RBTREE):
            library = build(tree, RBTREE, folder)
            for name in ("rbtree", "rbtree_gap"):
                yield rbtree(known.strategy(name), library, tree.name, ops, seed)
    if "vma" in parts:
        for tree in _having(console, trees, VMA):
            yield vmas(known.strategy("rbtree"), build(tree, VMA, folder), tree.version, ops, seed)
    if "maple" in parts or "traces" in parts:
        kernels = [KernelMaple(build(tree, MAPLE, folder), tree.name) for tree in _having(console, trees, MAPLE)]
        for name in ("maple", "maple_rcu") if kernels else ():
            strategy = known.strategy(name)
            if "maple" in parts:
                yield maple_stores(strategy, kernels, ops, seed)
                yield maple_calls(strategy, kernels, ops, seed)
                yield maple_forks(strategy, kernels, ops, seed)
            if "traces" in parts and name == "maple":
                for trace in traces:
                    yield iter([maple_trace(strategy, kernels, trace, known.spec(trace).trace(0))])


def _explain(console: Console, wrong: Sequence[Row]) -> None:
    """Draw a difference of each comparison once: what two kernels, or both maple trees, have in common is not repeated,
    nor a history, where single stores differ already."""
    drawn: set[str] = set()
    single = {row.what.partition(",")[2].partition(":")[0] for row in wrong if "one store" in row.what}
    for row in wrong:
        about = row.what.partition(",")[2] or row.what
        if about in drawn or ("history" in about and about.partition(":")[0] in single):
            continue
        drawn.add(about)
        assert row.draw is not None
        console.print(f"\n{row.what}, Linux {row.kernel}: one of {row.differ:,} differences", markup=False)
        console.print(row.draw(), markup=False, soft_wrap=True)


def _having(console: Console, trees: Sequence[SourceTree], driver: Driver) -> list[SourceTree]:
    """The trees with the files of ``driver``; the others are named."""
    having = []
    for tree in trees:
        lacking = tree.lacks(driver.files)
        if lacking:
            console.print(f"Linux {tree.name} has no {lacking[0]}: not compared", soft_wrap=True, markup=False)
        else:
            having.append(tree)
    return having


def _until(run: Iterator[list[Row]], share: float | None) -> list[Row]:
    """The rows after the last program, or after the first one that ends when ``share`` seconds have passed."""
    end = time.monotonic() + share if share is not None else None
    last: list[Row] = []
    for rows in run:
        last = rows
        if end is not None and time.monotonic() > end:
            break
    return last


def _table(console: Console, rows: Sequence[Row]) -> Sequence[Row]:
    """Print rows as they are done."""
    for row in rows:
        share = 100 * (row.compared - row.differ) / max(1, row.compared)
        equal = "all equal" if not row.differ else f"{row.differ:,} differ ({min(share, 99.99):.2f} % equal)"
        console.print(f"{row.what:<62} {row.kernel:<5} {row.compared:>9,} {row.unit:<9} {equal}", soft_wrap=True)
    return rows
