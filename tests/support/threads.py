"""Sessions with real threads."""

from functools import cache

from benchframe.engine.threads import ThreadSession
from benchframe.registry import Registry, load
from benchframe.strategy import Strategy
from benchframe.trace.trace import Trace
from support.compile import compiled


@cache
def registry() -> Registry:
    """The installed plugins."""
    return load()


def trace(label: str, threads: int) -> Trace:
    """A workload's stream for threads."""
    return registry().spec(label).trace(1, threads)


def session(strategy: Strategy | str, label: str, threads: int) -> ThreadSession:
    """A threaded session."""
    chosen = registry().strategy(strategy) if isinstance(strategy, str) else strategy
    return ThreadSession(compiled(chosen, threads=True), trace(label, threads), threads)
