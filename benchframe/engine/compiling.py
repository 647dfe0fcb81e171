"""Cold compiles in parallel: one process per unit, as many at once as there are jobs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from benchframe.dialect.units import UnitSpec
from benchframe.engine.runner import KNOWN_REPLAY, MAPPING, specs, unit_store

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

Progress = Callable[[str, float], None]
ONE, THREADS = "one", "threads"
"""Builds: for one thread, for several."""


def needed(strategies: Sequence[Strategy], builds: frozenset[str]) -> list[UnitSpec]:
    """The units that ``strategies`` need for the ``builds``: ONE and THREADS."""
    found: list[UnitSpec] = []
    if ONE in builds:
        found += [MAPPING, KNOWN_REPLAY, *(spec for s in strategies for spec in specs(s))]
    if THREADS in builds:
        from benchframe.engine import crew

        found += [crew.MAPPING, *(spec for s in strategies for spec in crew.specs(s))]
    return found


def _compile(strategies: Sequence[Strategy], builds: frozenset[str], name: str) -> tuple[str, float]:
    """In a child: compile one unit of those that ``strategies`` need."""
    units = unit_store()
    for spec in needed(strategies, builds):
        if spec.name == name:
            units.get(spec)
            return units.compiled[0] if units.compiled else (name, 0.0)
    raise LookupError(name)


def compile_missing(
    strategies: Sequence[Strategy], progress: Progress | None, jobs: int, builds: frozenset[str] = frozenset({ONE})
) -> list[tuple[str, float]]:
    """See :func:`benchframe.engine.native.compile_strategies`."""
    units = unit_store()
    wanted = {spec.name: spec for spec in needed(strategies, builds)}
    by_key = {spec.key(units.mm, units.hooks): spec for spec in units.missing(list(wanted.values()))}
    missing = sorted(by_key.values(), key=lambda spec: not spec.name.startswith(MAPPING.name))  # the longest first
    done: list[tuple[str, float]] = []
    if not missing:
        return done
    # Forked, so that the children have the plugins (also those loaded from a file) without importing them again.
    context = multiprocessing.get_context("fork")
    _load_compiler()
    _SHARED[:] = strategies
    _BUILDS[:] = [builds]
    with ProcessPoolExecutor(max(1, min(jobs, len(missing))), mp_context=context) as pool:
        waiting = {pool.submit(_compile_shared, spec.name) for spec in missing}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                done.append(future.result())
                if progress is not None:
                    progress(done[-1][0], len(done) / len(missing))
    return done


_SHARED: list[Strategy] = []
"""What the forked children compile: functions do not pickle, a fork inherits them."""
_BUILDS: list[frozenset[str]] = []


def _compile_shared(name: str) -> tuple[str, float]:
    return _compile(_SHARED, _BUILDS[0], name)


def _load_compiler() -> None:
    """Import numba once, before the fork."""
    import benchframe.dialect.backend  # noqa: F401
