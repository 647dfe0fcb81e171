"""Races of the RFC of December 2009 that its code as posted does not show alone: B9, B30."""

from benchframe.api import Protocol, Strategy, native, scenario
from benchframe.kernel import TASK, read_unlock
from benchframe_plugins import pmdcache

Historic = scenario.Historic


# ---- B9: a wake-up when one holder is left ---------------------------------------------------------------------------


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


# ---- B30: a speculative fault of the RFC fails -----------------------------------------------------------------------


@native
def get_as_posted(mm, task, addr):
    """get_speculative; it stores for put_as_posted whether the fault did anything."""
    TASK(mm, task).fault_kind = 0
    return get_speculative(mm, task, addr)


@native
def put_as_posted(mm, task, vma):
    """The ends of do_page_fault in 4/4: bad_area does not consider speculation. It releases mmap_sem, and the VMA stays
    held."""
    t = TASK(mm, task)
    if t.speculative and t.fault_kind == 0 and mm_version_check(mm, task):
        t.speculative = 0
        return read_unlock(mm, task)
    return put(mm, task, vma)


get_speculative, put, mm_version_check = pmdcache.get_speculative, pmdcache.put, pmdcache.mm_version_check


def seed_with_its_ends() -> Strategy:
    """pmdcache with do_page_fault's error paths as they were posted."""
    (seed,) = pmdcache.benchframe_strategies()
    if seed.protocol is None:
        raise TypeError("pmdcache has a protocol")
    hooks = {**seed.protocol.binding, "vma_get": get_as_posted, "vma_put": put_as_posted}
    return Strategy("b30", "pmdcache with its error paths as posted", seed.index, seed.cache, Protocol(**hooks))


def read_only(space: scenario.Setup) -> None:
    """A read-only VMA, read once."""
    space.map(0, 4, prot=1)
    space.touch(0, access=1)


B30 = scenario.Scenario(
    "refused-munmap",
    "a fault is refused, and its VMA unmapped",
    read_only,
    ((scenario.fault(1),), (scenario.munmap(0, 4),)),
)


def races() -> list[Historic]:
    """The races, with the bug and fixed."""
    lost = Historic(
        "B9",
        "the RFC's third version wakes when one holder is left, but the writer waits for zero",
        "third version of the RFC, 25 December 2009",
        "rcu_rbtree_v3",
        "rcu_rbtree",
        B9,
        "deadlock: lost wake-up",
        among=12,
    )
    ends = Historic(
        "B30",
        "a speculative fault that is refused releases an mmap_sem that it did not take, and holds its VMA for ever",
        "RFC of December 2009, 4/4, arch/x86/mm/fault.c: bad_area, mm_fault_error",
        seed_with_its_ends(),
        "pmdcache_rcu",
        B30,
        "deadlock",
        among=12,
    )
    return [lost, ends]
