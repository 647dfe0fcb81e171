"""Races that have names: what tells one from another, those a strategy is known to have, those that Linux once had."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Named = Any
"""A Strategy or a Scenario, or the name of one: races stand below both, so their types cannot be named here."""
Chain = tuple[str, ...]
Weaker = tuple[str, str, str, str]
"""An ordering that is weaker than the text says: function, operation, field, ordering."""


@dataclass(frozen=True)
class Sites:
    """Names of functions, and one of a field.

    ``used``: where the failing task was, the innermost function first; for a failure that has no place (a deadlock, a
    stale answer, a broken invariant) the functions in which tasks were stopped, in alphabetical order. ``freed``: who
    gave the record back, or handed it to kfree_rcu. ``source``: the field from which the stale reference was loaded
    in one of the functions ``used``, then who stored to that field, the last first.
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
    """A race that a strategy is known to have: what `benchframe check` finds is called by its name.

    A finding is this bug if all that is given here fits; what is empty (``dangling``: None) fits everything, so give
    all that `check` prints beside it, lest a new bug pass for this one.

    ``kind``: "use after free". ``functions``: patterns of where it showed, ``"vma_hold"`` or with those that called it,
    ``"vma_hold < lookup_vma_cache"``; one must fit. A failure without a place (stale answer, broken invariant,
    deadlock) shows in the functions in which tasks were stopped: all of them must be among ``functions``, the first of
    ``functions`` among them. ``freed``: patterns of who gave the record back. ``source``: patterns of where the stale
    reference was loaded from and who stored there last, ``"page.cache < update"``. ``dangling``: it says "before this
    call began". ``scenarios``: names. ``says``: the text, with ``*`` for what may differ.
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
        """Is a finding this bug?"""
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
"""Kinds of failures that have one place; the others come from how tasks were interleaved."""


def _begins(chain: tuple[str, ...], pattern: str) -> bool:
    """Does ``chain``, innermost first, begin as ``"inner < outer"`` says?"""
    names = tuple(name.strip() for name in pattern.split("<"))
    return chain[: len(names)] == names


@dataclass(frozen=True)
class Historic:
    """A race that Linux or the RFC once had, put back: with the bug the checker finds it, with the mend nothing.

    ``number`` is its name in docs/checking.md, ``summary`` one line, ``sources`` where it was reported or mended.
    ``broken`` and ``mended`` are strategies, or names of strategies of the registry. ``scenario`` shows it, or the name
    of a common scenario; ``mended_scenario`` if the mend is in the model's rules. ``shows`` begins the failure that
    must be found, kind and text; the search looks at up to ``among`` failures for it. ``whole`` is False where the
    mended search is too large to be ended in a minute. ``because``: why the bug is not shown; then the rest is empty.
    ``memory``: the memory model that it takes. ``weaker``: what ``broken`` has weaker than its text says, each
    (function, operation, field, ordering): ``("vma_start_read", "rmw", "vm_refcnt", "relaxed")``. An operation is load,
    store, rmw or a barrier (mb, rmb, wmb: field "", ordering "none").
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
