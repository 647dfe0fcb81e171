"""The list of historic races, B1 to B30: those that can be shown, and why the others cannot."""

from benchframe.api import TASK, Protocol, Strategy, native, read_unlock, scenario
from benchframe_plugins import _races_locks, _races_order, _races_tree, pmdcache

Historic = scenario.Historic


def seed(number: str, where: str, summary: str, shows: str) -> Historic:
    """A race of the RFC of December 2009, as posted and in the repaired twin."""
    source = "RFC of December 2009"
    return Historic(number, summary, source, "pmdcache", "pmdcache_rcu", where, f"use after free: {shows}", among=12)


def unseen(number: str, summary: str, because: str) -> Historic:
    """A bug that the model does not show."""
    return Historic(number, summary, because=because)


def two(space: scenario.Setup) -> None:
    """Two VMAs in one region, both touched."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(8, 0)


B9 = scenario.Scenario(
    "fault-ends-munmap",
    "a fault ends while its VMA's unmapping waits for it",
    two,
    ((scenario.fault(1),), (scenario.munmap(0, 4),)),
)
SEED = (
    seed("B1", "lookup-munmap", "page->cache is loaded, the VMA freed, then held",
         "T0: add of VMA #1, which T1 freed, in vma_hold"),
    seed("B2", "merge-then-lookup", "the PTE pages of a VMA that a merge frees still name it",
         "T0: add of VMA #2, which T1 freed before this call began, in vma_hold"),
    seed("B3", "fault-merge", "a merge waits for another VMA than the one it frees",
         "T0: load of VMA #2, which T1 freed, in fill_none"),
    seed("B4", "fault-munmap-signal", "a signal ends the wait, and nobody looks at the result",
         "T0: load of VMA #1, which T1 freed, in fill_none"),
    seed("B5", "lookup-munmap-table", "the walk meets a freed page table",
         "T0: load of page #5, which T1 freed, in lookup_vma_cache"),
    seed("B6", "fault-munmap", "a fault in flight puts the VMA back after its invalidation",
         "T0: add of VMA #1, which T1 freed before this call began, in vma_hold"),
)  # fmt: skip
UNSEEN = (
    unseen("B7", "the RFC's version check says yes for another mm than the task's own",
           "no call of the model looks into another task's mm"),
    unseen("B8", "a fault beside munmap ends in SIGSEGV", "no bug: right at a moment of the call, and judged so"),
    unseen("B11", "page tables made for a VMA that is gone",
           "avoided by vma_valid at SITE_TABLE; without it validate_mm calls the table a leak"),
    unseen("B12", "speculative fault beside fork, stale TLB", "as B19, the same window"),
    unseen("B13", "speculative copy beside the registration of an MMU notifier", "no notifiers in the model"),
    unseen("B14", "SRCU's callbacks cost 20 %", "no race"),
    unseen("B16", "a counter that was removed is still printed", "no race of lookups"),
    unseen("B22", "lock order of the mend for B21", "i_mmap_rwsem is not in the model"),
    unseen("B25", "a merge sets an anon_vma in a VMA that is not locked yet",
           "the model does the same, and nothing that a fault does depends on it"),
    unseen("B27", "mm_drop_all_locks unlocks too much", "no MMU notifiers in the model"),
    unseen("B28", "two readers store different hints into mmap_cache",
           "no bug: `benchframe check --strategy mmap_cache` is clean"),
)  # fmt: skip


# ---- B30: the RFC's speculative fault that fails ---------------------------------------------------------------------


@native
def get_as_posted(mm, task, addr):
    """get_speculative; put_as_posted is to know whether the fault did anything."""
    TASK(mm, task).fault_kind = 0
    return get_speculative(mm, task, addr)


@native
def put_as_posted(mm, task, vma):
    """The ends of do_page_fault in 4/4: bad_area knows no speculation. mmap_sem is given back, the VMA stays held."""
    t = TASK(mm, task)
    if t.speculative and t.fault_kind == 0 and mm_version_check(mm, task):
        t.speculative = 0
        return read_unlock(mm, task)
    return put(mm, task, vma)


get_speculative, put, mm_version_check = pmdcache.get_speculative, pmdcache.put, pmdcache.mm_version_check


def seed_with_its_ends() -> Strategy:
    """pmdcache, and do_page_fault's error paths as they were posted."""
    (seed,) = pmdcache.benchframe_strategies()
    if seed.protocol is None:
        raise TypeError("pmdcache has a protocol")
    hooks = {**seed.protocol.binding, "vma_get": get_as_posted, "vma_put": put_as_posted}
    return Strategy("b30", "the seed, error paths as posted", seed.index, seed.cache, Protocol(**hooks))


def read_only(space: scenario.Setup) -> None:
    """A VMA that may not be written, read once."""
    space.map(0, 4, prot=1)
    space.touch(0, access=1)


B30 = scenario.Scenario(
    "refused-munmap",
    "a fault is refused, and its VMA unmapped",
    read_only,
    ((scenario.fault(1),), (scenario.munmap(0, 4),)),
)


def races() -> list[Historic]:
    """All, by number."""
    lost = Historic(
        "B9",
        "the RFC's third version wakes when one holder is left, the writer waits for none",
        "third version of the RFC, 25 December 2009",
        "rcu_rbtree_v3",
        "rcu_rbtree",
        B9,
        "deadlock: lost wake-up",
        among=12,
    )
    ends = Historic(
        "B30",
        "a speculative fault that is refused gives back a mmap_sem that it did not take, and holds its VMA for ever",
        "RFC of December 2009, 4/4, arch/x86/mm/fault.c: bad_area, mm_fault_error",
        seed_with_its_ends(),
        "pmdcache_rcu",
        B30,
        "deadlock",
        among=12,
    )
    every = [*SEED, lost, ends, *UNSEEN, *_races_tree.races(), *_races_locks.races(), *_races_order.races()]
    return sorted(every, key=lambda race: (race.number[0], int(race.number[1:])))
