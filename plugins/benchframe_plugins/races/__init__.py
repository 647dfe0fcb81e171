"""The list of historic races, B1 to B30 and W1 to W12: those that can be shown, and why the others cannot.

`rfc` has the races of the RFC of December 2009, `tree` those of trees and caches, `locks` those of the per-VMA locks,
`order` those that x86 hides; `known` tells the failures of the RFC's code apart.
"""

from benchframe.api import hookimpl, scenario

Historic = scenario.Historic


def seed(number: str, where: str, summary: str, shows: str) -> Historic:
    """A race of the RFC of December 2009, as posted, and the repaired strategy."""
    source = "RFC of December 2009"
    return Historic(number, summary, source, "pmdcache", "pmdcache_rcu", where, f"use after free: {shows}", among=12)


def unseen(number: str, summary: str, because: str) -> Historic:
    """A bug that the model does not show."""
    return Historic(number, summary, because=because)


SEED = (
    seed("B1", "lookup-munmap", "page->cache is loaded, the VMA freed, then held",
         "T0: add of VMA #1, which T1 freed, in vma_hold"),
    seed("B2", "merge-then-lookup", "the PTE pages of a VMA that a merge frees still name it",
         "T0: add of VMA #2, which T1 freed before this call began, in vma_hold"),
    seed("B3", "fault-merge", "a merge waits for another VMA than the one it frees",
         "T0: load of VMA #2, which T1 freed, in fill_none"),
    seed("B4", "fault-munmap-signal", "a signal ends the wait, and the result is not checked",
         "T0: load of VMA #1, which T1 freed, in fill_none"),
    seed("B5", "lookup-munmap-table", "the walk reads a freed page table",
         "T0: load of page #5, which T1 freed, in lookup_vma_cache"),
    seed("B6", "fault-munmap", "a fault in flight stores the VMA again after its invalidation",
         "T0: add of VMA #1, which T1 freed before this call began, in vma_hold"),
)  # fmt: skip
UNSEEN = (
    unseen("B8", "a fault concurrent with munmap ends in SIGSEGV", "not a bug: the answer is right at some moment of "
                                                                   "the call"),
    unseen("B11", "page tables are made for a freed VMA",
           "prevented by vma_valid at SITE_TABLE; without it validate_mm reports the table as a leak"),
    unseen("B12", "speculative fault concurrent with fork, stale TLB", "as B19, the same window"),
    unseen("B13", "speculative copy concurrent with the registration of an MMU notifier", "no notifiers in the model"),
    unseen("B14", "SRCU's callbacks cost 20 %", "no race"),
    unseen("B16", "a counter that was removed is still printed", "not a race of lookups"),
    unseen("B22", "lock order of the fix for B21", "i_mmap_rwsem is not in the model"),
    unseen("B25", "a merge sets an anon_vma in a VMA that is not locked yet",
           "the model does the same, and faults do not depend on it"),
    unseen("B27", "mm_drop_all_locks unlocks too much", "no MMU notifiers in the model"),
    unseen("B28", "two readers store different hints into mmap_cache",
           "not a bug: `benchframe check --strategy mmap_cache` finds nothing"),
)  # fmt: skip


@hookimpl
def benchframe_historic() -> list[Historic]:
    """All races that Linux and the RFC once had, by number."""
    from benchframe_plugins.races import locks, order, rfc, tree

    every = [*SEED, *UNSEEN, *rfc.races(), *tree.races(), *locks.races(), *order.races()]
    return sorted(every, key=lambda race: (race.number[0], int(race.number[1:])))
