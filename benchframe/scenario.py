"""A scenario for the checker: a small address space, the calls of each task, and the races that are known by name.

The scenarios that every strategy must survive are in ``check.cases``; a strategy adds its own with
``Strategy(scenarios=...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from benchframe.events import FaultFlag, Kind
from benchframe.mm import flags, layout
from benchframe.mm.flags import ENOMEM
from benchframe.mm.machine import Parameters, Space

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


BASE = 0x10000000
"""Page 0 of every scenario: the start of a 2 MiB region."""
RW, ANON = 3, 0x32
"""PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED."""

OLD_NOREPLACE = Parameters(rules=Parameters().rules | flags.RULE_NOREPLACE_417)
"""Rules under which MAP_FIXED_NOREPLACE looks at the first address only, as in Linux 4.17."""


@dataclass(frozen=True)
class Call:
    """One call of a task: a row of a stream, and its name in a counterexample. ``answer``: what the call must return,
    if that differs from what the checker expects anyway (a mapping call must succeed, or fail with one of
    ``errors``)."""

    label: str
    columns: Mapping[str, int]
    answer: int | None = None
    errors: tuple[int, ...] = ()

    def wrong(self, result: int) -> str:
        """Why the call may not give ``result`` in any address space; empty if it may."""
        if self.answer is not None:
            return "" if result == self.answer else f"answered {result}, must answer {self.answer}"
        if self.columns["kind"] in (Kind.FAULT, Kind.LOOKUP) or result >= 0 or -result in self.errors:
            return ""
        return f"failed with {result}"


def fault(page: int, access: int = 2) -> Call:
    """A user page fault on a page; access 1 reads, 2 writes."""
    word = "write" if access & 2 else "read"
    return Call(
        f"{word} fault, page {page}",
        {"kind": Kind.FAULT, "addr": BASE + page * layout.PAGE_SIZE, "prot": access, "flags": FaultFlag.USER},
    )


def store(page: int) -> Call:
    """A user's store: through the task's TLB, with a write fault if there is no entry. For scenarios with
    ``hardware``."""
    call = fault(page)
    return Call(f"store to page {page}", {**call.columns, "new_len": 1})


def is_store(call: Call) -> bool:
    """Whether a call is a :func:`store`."""
    return call.columns["kind"] == Kind.FAULT and call.columns.get("new_len", 0) == 1


def lookup(page: int) -> Call:
    """A user lookup without the rest of the fault."""
    return Call(
        f"lookup, page {page}",
        {"kind": Kind.LOOKUP, "addr": BASE + page * layout.PAGE_SIZE, "flags": FaultFlag.USER},
    )


def _mapping(kind: Kind, label: str, page: int, count: int, **columns: int) -> Call:
    return Call(
        label,
        {"kind": kind, "addr": BASE + page * layout.PAGE_SIZE, "len": count * layout.PAGE_SIZE, **columns},
    )


def mmap(page: int, count: int, prot: int = RW) -> Call:
    """mmap at a fixed address."""
    return _mapping(Kind.MMAP, f"mmap of pages {page}-{page + count - 1}", page, count, prot=prot, flags=ANON)


def munmap(page: int, count: int) -> Call:
    """munmap."""
    return _mapping(Kind.MUNMAP, f"munmap of pages {page}-{page + count - 1}", page, count)


def mprotect(page: int, count: int, prot: int) -> Call:
    """mprotect."""
    return _mapping(Kind.MPROTECT, f"mprotect of pages {page}-{page + count - 1}", page, count, prot=prot)


def madvise(page: int, count: int, advice: int = 4) -> Call:
    """madvise, of pages that others may have unmapped (ENOMEM); 4 is MADV_DONTNEED."""
    what = f"madvise({advice}) of pages {page}-{page + count - 1}"
    return replace(_mapping(Kind.MADVISE, what, page, count, flags=advice), errors=(ENOMEM,))


def mremap(page: int, count: int, to: int, keep: bool = False) -> Call:
    """mremap to a fixed address; ``keep`` leaves the old mapping in place, but empty (MREMAP_DONTUNMAP)."""
    at = BASE + to * layout.PAGE_SIZE
    words = {"new_len": count * layout.PAGE_SIZE, "flags": 7 if keep else 3, "offset": at}
    kept = " with DONTUNMAP" if keep else ""
    return _mapping(Kind.MREMAP, f"mremap of pages {page}-{page + count - 1} to {to}{kept}", page, count, **words)


def elsewhere(call: Call, mm: int, task: int) -> Call:
    """The same call in another address space, by a task of that address space."""
    return Call(f"{call.label} in mm {mm}", {**call.columns, "mm": mm, "task": task})


def by(call: Call, task: int) -> Call:
    """The same call by another task of the same address space, one that :func:`thread` created."""
    return Call(f"{call.label} by task {task}", {**call.columns, "task": task})


def peek(page: int, mm: int) -> Call:
    """A lookup in another process's address space, as ptrace and /proc do it: find_vma under that process's
    mmap_lock."""
    return Call(
        f"lookup, page {page}, in mm {mm} of another process",
        {"kind": Kind.LOOKUP, "addr": BASE + page * layout.PAGE_SIZE, "mm": mm},
    )


def walk(mm: int = 0) -> Call:
    """A read of /proc/PID/maps: all VMAs of trace mm ``mm`` in the order of addresses."""
    return Call(f"walk of all VMAs, mm {mm}", {"kind": Kind.WALK, "mm": mm})


def poke(page: int, mm: int) -> Call:
    """A store to another process's memory, as ptrace does it: a write fault in kernel mode."""
    return Call(
        f"write to page {page} of another process, mm {mm}",
        {"kind": Kind.FAULT, "addr": BASE + page * layout.PAGE_SIZE, "prot": 2, "mm": mm},
    )


def execve() -> Call:
    """The only task of an address space executes a new program: the address space becomes empty."""
    return Call("exec", {"kind": Kind.EXEC, "addr": BASE + 1024 * layout.PAGE_SIZE})


def thread(task: int) -> Call:
    """A new task in this address space."""
    return Call(f"clone of task {task}", {"kind": Kind.THREAD, "len": task})


def leave(last: bool = True) -> Call:
    """A task ends; with the ``last`` task the address space ends too."""
    return Call("exit" if last else "exit of one task", {"kind": Kind.EXIT, "len": int(last)})


def fork(child: int = 1, task: int = 5) -> Call:
    """fork."""
    return Call("fork", {"kind": Kind.FORK, "addr": child, "len": task})


class Setup(Space):
    """The address space of a set-up, by page numbers from BASE."""

    def map(self, first: int, count: int, prot: int = RW) -> None:
        """An anonymous private mapping."""
        at = BASE + first * layout.PAGE_SIZE
        if self.mmap(at, count * layout.PAGE_SIZE, prot, ANON) != at:
            raise RuntimeError(f"the set-up cannot map page {first}")

    def touch(self, *pages: int, access: int = 2) -> None:
        """Page faults that must succeed; a cache then holds the last page's VMA for the region."""
        for page in pages:
            if self.fault(BASE + page * layout.PAGE_SIZE, access) != 0:
                raise RuntimeError(f"the set-up cannot touch page {page}")

    def stack(self, first: int, count: int) -> None:
        """A stack: it grows downwards."""
        length = count * layout.PAGE_SIZE
        self.exec_map(BASE + first * layout.PAGE_SIZE, length, RW, 0x22 | 1 << 24)


@dataclass(frozen=True)
class Scenario:
    """``setup`` builds the address space, ``tasks`` are the calls of each task. ``signals``: tasks that a signal may
    interrupt while they wait. ``hardware``: also model the contents of pages and TLBs, which :func:`store` needs."""

    name: str
    summary: str
    setup: Callable[[Setup], None]
    tasks: tuple[tuple[Call, ...], ...]
    signals: tuple[int, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    hardware: bool = False
