"""Cold compiles in parallel, one process per job; units that share functions go to the same process.

Numba types and lowers a function once in a process. A strategy's three units share most of their functions, so in
separate processes they take nearly twice the time that they take one after the other. A process then continues with the
next strategy, which shares the model's part of a fault with the previous one.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from benchframe.dialect.records import DialectError
from benchframe.runner import KNOWN_REPLAY, allocating, mapping, specs, unit_store
from benchframe.units import Units, UnitSpec

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

Progress = Callable[[str, float], None]
ONE, THREADS = "one", "threads"
"""Builds: for one thread, for several."""


def needed(strategies: Sequence[Strategy], builds: frozenset[str]) -> list[list[UnitSpec]]:
    """The units that ``strategies`` need for the ``builds`` (ONE and THREADS), in groups that share functions: first
    those shared by all strategies, since they take longest, then each strategy's own."""
    found: list[list[UnitSpec]] = []
    if ONE in builds:
        found += [[*_shared(strategies, mapping), KNOWN_REPLAY], *(specs(s) for s in strategies)]
    if THREADS in builds:
        from benchframe.engine import threads

        found = [_shared(strategies, threads.mapping), *found, *(threads.specs(s) for s in strategies)]
    return found


def _shared(strategies: Sequence[Strategy], of: Callable[[Strategy], UnitSpec]) -> list[UnitSpec]:
    """The unit that strategies with the same allocator share, of each allocator."""
    return [of(one) for one in {frozenset(allocating(s).items()): s for s in strategies}.values()]


def missing(units: Units, groups: list[list[UnitSpec]]) -> list[list[str]]:
    """The names of the units that neither this process nor the store has, each content once; groups without any are
    left out."""
    seen: set[str] = set()
    found = []
    for group in groups:
        names = []
        for spec in units.missing(group):
            key = spec.key(units.mm, units.hooks)
            if key not in seen:
                seen.add(key)
                names.append(spec.name)
        if names:
            found.append(names)
    return found


def check_texts(strategies: Sequence[Strategy], builds: frozenset[str] = frozenset({"one"})) -> None:
    """Raise DialectError with all that the texts of the strategies to be compiled have wrong, before a minute is spent
    on the first of them."""
    from benchframe.dialect.lint import check_functions
    from benchframe.units import strategy_digest

    units = unit_store()

    def there(strategy: Strategy) -> bool:
        own = [
            spec for group in needed([strategy], builds) for spec in group if spec.name.endswith(f"-{strategy.name}")
        ]
        try:
            return not units.missing(own)
        except DialectError:  # so bad that it has no identity
            return False

    new = [one for one in strategies if not there(one)]
    check_functions(function for one in new for function in one.functions())
    for one in new:
        strategy_digest(one)  # recursion, and names that stand for what strategy code may not use


def _compile(strategies: Sequence[Strategy], builds: frozenset[str], names: list[str]) -> list[tuple[str, float]]:
    """In a child: compile the units with these names."""
    units = unit_store()
    by_name = {spec.name: spec for group in needed(strategies, builds) for spec in group}
    for name in names:
        units.get(by_name[name])
    took = dict(units.compiled)
    return [(name, took.get(name, 0.0)) for name in names]


def compile_missing(
    strategies: Sequence[Strategy], progress: Progress | None, jobs: int, builds: frozenset[str] = frozenset({ONE})
) -> list[tuple[str, float]]:
    """See :func:`compile_strategies`."""
    check_texts(strategies, builds)
    groups = missing(unit_store(), needed(strategies, builds))
    done: list[tuple[str, float]] = []
    if not groups:
        return done
    # Forked, so that the children have the plugins (including those loaded from a file) without importing them again.
    context = multiprocessing.get_context("fork")
    _load_compiler()
    count = sum(map(len, groups))
    _SHARED[:] = strategies
    _BUILDS[:] = [builds]
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(max(1, min(jobs, len(groups))), mp_context=context, initializer=_leave_signals)
    try:
        waiting = {pool.submit(_compile_shared, names) for names in groups}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for unit in (unit for future in finished for unit in future.result()):
                done.append(unit)
                if progress is not None:
                    progress(unit[0], len(done) / count)
    except BaseException:  # Ctrl-C, or code that cannot be compiled: nobody waits a minute for the others
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def _leave_signals() -> None:
    """In a child: Ctrl-C is the parent's to handle, who kills it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_SHARED: list[Strategy] = []
"""What the forked children compile: functions cannot be pickled, but a fork inherits them."""
_BUILDS: list[frozenset[str]] = []


def _compile_shared(names: list[str]) -> list[tuple[str, float]]:
    return _compile(_SHARED, _BUILDS[0], names)


def _load_compiler() -> None:
    """Import numba once, before the fork."""
    import benchframe.dialect.llvm  # noqa: F401


def compile_strategies(
    strategies: Sequence[Strategy],
    progress: Callable[[str, float], None] | None = None,
    jobs: int = 2,
    builds: Sequence[str] = ("one",),
) -> list[tuple[str, float]]:
    """Compile what the store lacks, in ``jobs`` processes. Returns (unit, seconds) of each; empty if nothing was
    missing.

    ``builds``: "one" for runs with one thread, "threads" for those with several.

    ``progress(unit, share done)`` is told as units finish. Raises DialectError with every finding in the
    texts of what is to be compiled; then for the first that cannot be.
    """
    return compile_missing(strategies, progress, jobs, frozenset(builds))
