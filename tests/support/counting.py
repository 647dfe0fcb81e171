"""Counted replays of installed strategies, for tests of the cost engine."""

from benchframe.engine.cost import CountedReplay
from support.space import registry, runner, strategy


def replay(name: str, spec: str, seed: int = 0) -> CountedReplay:
    """A counted replay, nothing counted yet."""
    runner(name, "native")
    return CountedReplay(strategy(name), registry().spec(spec).trace(seed))


def numbers(name: str, spec: str, budget: int = 0) -> dict[str, float]:
    """What is counted of a stream."""
    return dict(replay(name, spec).run(budget).numbers)
