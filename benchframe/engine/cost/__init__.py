"""The cost engine: loads, stores, atomics, branches and cache lines of a strategy's text, the same on every machine."""

from benchframe.engine.cost.count import Cost, count_cost, stored_cost

__all__ = ["Cost", "count_cost", "stored_cost"]
