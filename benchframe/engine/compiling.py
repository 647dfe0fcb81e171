"""Cold compiles in parallel: one process per unit, as many at once as there are jobs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from benchframe.engine.runner import KNOWN_REPLAY, MAPPING, specs, unit_store

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

Progress = Callable[[str, float], None]


def _compile(strategies: Sequence[Strategy], name: str) -> tuple[str, float]:
    """In a child: compile one unit of those that ``strategies`` need."""
    units = unit_store()
    for spec in [MAPPING, KNOWN_REPLAY, *(spec for s in strategies for spec in specs(s))]:
        if spec.name == name:
            units.get(spec)
            return units.compiled[0] if units.compiled else (name, 0.0)
    raise LookupError(name)


def compile_missing(strategies: Sequence[Strategy], progress: Progress | None, jobs: int) -> list[tuple[str, float]]:
    """See :func:`benchframe.engine.native.compile_strategies`."""
    units = unit_store()
    needed = {spec.name: spec for spec in [MAPPING, KNOWN_REPLAY, *(spec for s in strategies for spec in specs(s))]}
    by_key = {spec.key(units.mm, units.hooks): spec for spec in units.missing(list(needed.values()))}
    missing = sorted(by_key.values(), key=lambda spec: spec.name != MAPPING.name)  # the longest first
    done: list[tuple[str, float]] = []
    if not missing:
        return done
    # Forked, so that the children have the plugins (also those loaded from a file) without importing them again.
    context = multiprocessing.get_context("fork")
    _load_compiler()
    _SHARED[:] = strategies
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


def _compile_shared(name: str) -> tuple[str, float]:
    return _compile(_SHARED, name)


def _load_compiler() -> None:
    """Import numba once, before the fork."""
    import benchframe.dialect.backend  # noqa: F401
