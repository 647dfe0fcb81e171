"""Compiling for tests: in the test's own process, where each function that units share is typed and lowered once."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchframe import runner
from benchframe.dialect.store import cache_folder
from benchframe.engine import threads as crew
from benchframe.strategy import Strategy
from benchframe.units import strategy_digest


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time in what is called ``name``; the others wait."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with Path(folder, f".tests-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compiled(strategy: Strategy, *, threads: bool = False, timed: bool = False) -> Strategy:
    """``strategy``, with all its units in the store: of two processes that need them one compiles, the other loads.
    The replays that are timed, a third of the work, only if ``timed``.

    A process that is started afterwards, `benchframe run` say, loads them too. About a third of the time that it takes
    to compile them one by one in processes of their own.
    """
    shared = [crew.mapping(strategy)] if threads else [runner.mapping(strategy), runner.KNOWN_REPLAY]
    own = crew.specs(strategy) if threads else runner.specs(strategy)
    if not timed:
        shared, own = shared[:1], [spec for spec in own if not spec.name.startswith("replay-")]
    units = runner.unit_store()
    for name, wanted in ((strategy_digest(strategy), own), ("shared", shared)):
        if units.missing(wanted):
            with alone(name):
                for spec in wanted:
                    units.get(spec)
    return strategy


def simulated(strategy: Strategy) -> Strategy:
    """Likewise its units for simulated CPUs, and the simulator."""
    from benchframe.simulator.build import compiled as there
    from benchframe.simulator.build import runtime
    from benchframe.simulator.session import simulated_units, specs

    units = simulated_units()
    if not there() or units.missing(specs(strategy)):
        with alone("simulated"):
            runtime()
            for spec in specs(strategy):
                units.get(spec)
    return strategy
