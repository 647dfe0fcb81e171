"""Races that have names: what distinguishes one from another, those that a strategy is known to have, and those that
Linux once had."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Named = Any
"""A Strategy or a Scenario, or its name: both are in layers above this module, so it cannot import their types."""
Chain = tuple[str, ...]
Weaker = tuple[str, str, str, str]
"""An ordering that is weakened from what the text says: function, operation, field, ordering."""


@dataclass(frozen=True)
class Sites:
    """Where a failure happened: names of functions, and of one field.

    ``used``: where the failing task was, the innermost function first. A failure without a place of its own (a
    deadlock, a stale answer, a broken invariant) has here the functions in which tasks were stopped, in alphabetical
    order. ``freed``: who freed the record or handed it to kfree_rcu. ``source``: the field from which one of the
    functions ``used`` loaded the stale reference, then the functions that stored to that field, the last one first.
    """

    used: Chain = ()
    freed: Chain = ()
    source: Chain = ()

    def __str__(self) -> str:
        parts = [" < ".join(self.used)] if self.used else []
        parts += ["freed in " + " < ".join(self.freed)] if self.freed else []
        parts += ["from " + " < ".join(self.source)] if self.source else []
        return "; ".join(parts)


@dataclass(frozen=True)
class KnownBug:
    """A race that a strategy is known to have: `benchframe check` reports a matching finding under its name.

    A finding matches if it agrees with everything given here. An empty member (``dangling``: None) matches everything,
    so give all that `check` prints beside it; otherwise a new bug could be taken for this one.

    ``kind``: "use after free". ``functions``: patterns for the place of the failure, ``"vma_hold"`` or with its
    callers, ``"vma_hold < lookup_vma_cache"``; one of them must match. The place of a failure without one of its own
    (stale answer, broken invariant, deadlock) is the functions in which tasks were stopped: all of them must be among
    ``functions``, and the first of ``functions`` among them. ``freed``: patterns for who freed the record. ``source``:
    patterns for where the stale reference was loaded from and who stored there last, ``"page.cache < update"``.
    ``dangling``: whether the finding says "before this call began". ``scenarios``: their names. ``says``: the text of
    the finding, with ``*`` for what may vary.
    """

    name: str
    summary: str
    functions: tuple[str, ...] = ()
    kind: str = "use after free"
    dangling: bool | None = None
    scenarios: tuple[str, ...] = ()
    freed: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    says: str = ""

    def shows(self, kind: str, text: str, scenario: str, sites: Sites) -> bool:
        """Whether a finding is this bug."""
        if kind != self.kind or (self.scenarios and scenario not in self.scenarios):
            return False
        if self.dangling not in (None, "before this call began" in text):
            return False
        if self.says and not fnmatchcase(text, self.says):
            return False
        for chain, patterns in ((sites.freed, self.freed), (sites.source, self.source)):
            if patterns and not any(_begins(chain, pattern) for pattern in patterns):
                return False
        if not self.functions:
            return True
        if kind in CHAINED:
            return any(_begins(sites.used, pattern) for pattern in self.functions)
        return self.functions[0] in sites.used and set(sites.used) <= set(self.functions)


CHAINED = frozenset({"use after free"})
"""Kinds of failures that happen at one place; the others come from how tasks interleave."""


def _begins(chain: tuple[str, ...], pattern: str) -> bool:
    """Whether ``chain``, innermost first, begins as ``"inner < outer"`` says."""
    names = tuple(name.strip() for name in pattern.split("<"))
    return chain[: len(names)] == names


@dataclass(frozen=True)
class Historic:
    """A race that Linux or the RFC once had, reintroduced: the checker finds it in the broken version and nothing in
    the fixed one.

    ``number`` is its number in docs/checking.md, ``summary`` one line, ``sources`` where it was reported or fixed.
    ``broken`` and ``mended`` are strategies, or names of strategies in the registry. ``scenario`` shows the race; it
    may be the name of a common scenario. Give ``mended_scenario`` if the fix is in the model's rules. The failure that
    must be found begins with ``shows`` (kind and text); the search looks at up to ``among`` failures for it. ``whole``
    is False if the search of the fixed version is too large to finish in a minute. ``because`` says why the bug is not
    shown; then the rest is empty. ``memory`` is the memory model that the race needs. ``weaker`` lists the operations
    of ``broken`` that are weaker than its text says, each as (function, operation, field, ordering):
    ``("vma_start_read", "rmw", "vm_refcnt", "relaxed")``. An operation is load, store, rmw or a barrier (mb, rmb, wmb:
    field "", ordering "none").
    """

    number: str
    summary: str
    sources: str = ""
    broken: Named = ""
    mended: Named = ""
    scenario: Named = ""
    shows: str = ""
    mended_scenario: Named = None
    among: int = 1
    whole: bool = True
    because: str = ""
    memory: str = "sc"
    weaker: tuple[Weaker, ...] = ()
