"""Races of the RFC of December 2009 that its code as posted does not show alone: B7, B9, B30."""

from benchframe.api import Protocol, Strategy, native, scenario
from benchframe.kernel import NULL, TASK, VMA, rcu_read_lock, rcu_read_unlock, read_unlock
from benchframe_plugins import pmdcache, pmdcache_rcu

Historic = scenario.Historic


# ---- B7: the version check of another task's mm ----------------------------------------------------------------------


@native
def get_in_any_mm(mm, task, addr):
    """pmdcache_rcu's lookup without mmap_lock for a reader of another task's mm, too, with the check of 2/4."""
    if TASK(mm, task).mm != mm.id:
        rcu_read_lock(mm, task)
        vma = cached_vma(mm, addr)
        if vma != NULL:
            vma_hold(mm, vma)
            v = VMA(mm, vma)
            if mm_version_check(mm, task) and v.vm_start <= addr and addr < v.vm_end:
                rcu_read_unlock(mm, task)
                TASK(mm, task).speculative = 1
                return vma
            vma_release(mm, vma)
        rcu_read_unlock(mm, task)
    return get_locked(mm, task, addr)


cached_vma, vma_hold, vma_release = pmdcache_rcu.cached_vma, pmdcache_rcu.vma_hold, pmdcache_rcu.vma_release
get_locked = pmdcache_rcu.get_locked


def reads_any_mm() -> Strategy:
    """pmdcache_rcu whose readers of other tasks' mms do not take mmap_lock either."""
    (twin,) = pmdcache_rcu.benchframe_strategies()
    if twin.protocol is None:
        raise TypeError("pmdcache_rcu has a protocol")
    hooks = {**twin.protocol.binding, "vma_get_locked": get_in_any_mm}
    return Strategy("b7", "the version check of 2/4 for any mm", twin.index, twin.cache, Protocol(**hooks))


OTHER, CHILD = 1, 5
"""The mm of a second process, and its task."""


def two_processes(space: scenario.Setup) -> None:
    """A process and its child, which has the same VMA and has written to it."""
    space.map(0, 4)
    space.touch(0)
    space.fork(CHILD).fault(scenario.BASE, 2)


B7 = scenario.Scenario(
    "peek-munmap",
    "a process looks up in another's mm, as ptrace and /proc do, while that one unmaps",
    two_processes,
    ((scenario.peek(1, OTHER),), (scenario.elsewhere(scenario.munmap(0, 4), OTHER, CHILD),)),
)


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
    foreign = Historic(
        "B7",
        "the RFC's version check succeeds for another mm than the task's own: its reader does not notice a writer",
        "RFC of December 2009, 2/4 (mm_version_check); 4/4 does not use it so",
        reads_any_mm(),
        "pmdcache_rcu",
        B7,
        "use after free: T0: add of VMA #2, which RCU for T1 freed, in vma_release",
        among=12,
    )
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
    return [foreign, lost, ends]
