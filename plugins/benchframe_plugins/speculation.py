"""A page fault that first tries without mmap_lock: the common part of speculation, reference counts and locks per VMA.

Each strategy binds two hooks: `speculate` finds a VMA and makes sure that it stays valid, `speculation_end` releases
it; the strategy's file says why this is right. A fault that gets no VMA takes mmap_lock for read and calls find_vma.
Used by :mod:`~benchframe_plugins.spf_seqcount`, :mod:`~benchframe_plugins.spf_mmseq`,
:mod:`~benchframe_plugins.rcu_rbtree`, :mod:`~benchframe_plugins.rcu_fault`, :mod:`~benchframe_plugins.per_vma_rwsem`,
:mod:`~benchframe_plugins.per_vma_refcnt` and :mod:`~benchframe_plugins.vma_lock_2m`.
"""

from benchframe.api import hook, native, scenario
from benchframe.kernel import (
    ARENA_TABLE,
    ARENA_VMA,
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    READ_ONCE,
    TASK,
    VM_SHARED,
    VM_WRITE,
    VMA,
    count,
    find_vma,
    kfree_rcu,
    rcu_read_unlock,
    read_lock,
    read_unlock,
)

STEPS = 64
"""More levels than an rb-tree of this many VMAs can have."""


def one_vma(space: scenario.Setup) -> None:
    """One VMA of four pages, whose page 1 was written."""
    space.map(0, 4)
    space.touch(1)


PART = scenario.Scenario(
    "fault-mprotect-part",
    "a write fault while another part of its VMA loses write permission: it must not be refused",
    one_vma,
    ((scenario.fault(1),), (scenario.mprotect(2, 2, 1),)),
)
"""What a fault reads of a VMA that it does not hold is from before the split or from after: mixed, it is refused."""

TWICE = scenario.Scenario(
    "fault-changed-twice",
    "a fault while its VMA is changed and then unmapped: the second call waits for it, too",
    one_vma,
    ((scenario.fault(1),), (scenario.mprotect(0, 4, 1), scenario.munmap(0, 4))),
)
"""What a writer leaves behind in a VMA, such as its mark, must not keep the next one from waiting."""


def two_written(space: scenario.Setup) -> None:
    """Two VMAs in one region, both used; the lower one was written."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(0)
    space.touch(8, 0)


CUT = scenario.Scenario(
    "fault-munmap-part",
    "a fault in the part of a VMA that is being unmapped, while the other part stays (B24, W1)",
    two_written,
    ((scenario.fault(1),), (scenario.munmap(1, 3),)),
)
"""The VMA is cut, and not freed: only its numbers say that it was write-locked. Who holds it all the same puts a page
where none may be."""

# ---- the fault -------------------------------------------------------------------------------------------------------


@hook("protocol")
def speculate(mm, task, addr):
    """A VMA that contains ``addr``, valid until ``speculation_end``, found without mmap_lock; NULL if the fault needs
    the lock."""
    return NULL


@hook("protocol")
def speculation_end(mm, task, vma):
    """The fault is over: release what ``speculate`` returned."""
    return 0


@native
def get(mm, task, addr):
    """The VMA without mmap_lock if possible, else mmap_lock for read and find_vma."""
    vma = speculate(mm, task, addr)
    if vma != NULL:
        TASK(mm, task).speculative = 1
        count(mm, task, COUNT_LOOKUP)
        count(mm, task, COUNT_HIT)
        return vma
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def get_locked(mm, task, addr):
    """mmap_lock for read, then find_vma (lock_mm_and_find_vma)."""
    TASK(mm, task).speculative = 0
    read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put(mm, task, vma):
    """``speculation_end``, or mmap_read_unlock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return speculation_end(mm, task, vma)
    return read_unlock(mm, task)


# ---- which faults may speculate --------------------------------------------------------------------------------------


@native
def walk(mm, addr):
    """find_vma in an rb-tree without a lock: a VMA that contained ``addr`` when it was read, NULL if unknown. The
    tree's height bounds the walk only if no rotation happens, so it gives up after 64 levels."""
    node = READ_ONCE(mm, "mm_rb")
    steps = 0
    while node != NULL and steps < STEPS:
        v = VMA(mm, node)
        if addr < READ_ONCE(v, "vm_end"):
            if READ_ONCE(v, "vm_start") <= addr:
                return node
            node = READ_ONCE(v, "rb_left")
        else:
            node = READ_ONCE(v, "rb_right")
        steps += 1
    return NULL


@native
def usable(mm, v, addr):
    """Whether ``v``, a VMA or a copy, covers ``addr``, and the fault will not need its neighbours for an anon_vma."""
    if v.vm_start > addr or addr >= v.vm_end:
        return 0
    if v.anon_vma != 0:
        return 1
    return (v.vm_file != 0 or mm.thp == 0) and (v.vm_flags & (VM_WRITE | VM_SHARED)) != VM_WRITE


# ---- release ---------------------------------------------------------------------------------------------------------


@native
def section_end(mm, task, vma):
    """``speculation_end`` if only an RCU section was held."""
    return rcu_read_unlock(mm, task)


@native
def free_vma(mm, vma):
    """Free the VMA after a grace period: a walker under RCU may still look at it."""
    return kfree_rcu(mm, ARENA_VMA, vma)


@native
def release_table(mm, table):
    """Free the table after a grace period: a fault may be about to take its lock."""
    return kfree_rcu(mm, ARENA_TABLE, table)


HOOKS = {"vma_get": get, "vma_get_locked": get_locked, "vma_put": put}


def exchanged(hooks, changed):
    """``hooks`` with those in ``changed`` replaced; None removes one, so that the model's default applies."""
    return {name: function for name, function in {**hooks, **changed}.items() if function is not None}
