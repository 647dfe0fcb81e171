"""Races that Linux once had, put back: each as a small change to a plugin, and the scenario that shows it.

``HISTORIC`` maps a bug's number in the reference list to (with the bug, with the mend, scenario, what is found).
"""

from benchframe.api import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    TASK,
    VM_ACCESS,
    VMA,
    WRITE_ONCE,
    Cache,
    Protocol,
    Strategy,
    count,
    grow_as_held,
    grow_under_write_lock,
    index_find,
    native,
    rcu_read_lock,
    rcu_read_unlock,
)
from benchframe.check.command import scenario
from benchframe.mm.machine import Parameters
from benchframe.scenario import (
    Scenario,
    Setup,
    elsewhere,
    fault,
    fork,
    leave,
    lookup,
    mmap,
    munmap,
    store,
)
from benchframe_plugins import per_vma_refcnt, per_vma_rwsem

NO_GAP = Parameters(stack_guard_gap=0)


# ---- B9: the lost wake-up of the RFC's third version -----------------------------------------------------------------


def two(space: Setup) -> None:
    """Two VMAs in one region, both touched."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(8, 0)


B9 = Scenario("b9", "a fault ends while its VMA's unmapping waits for it", two, ((fault(1),), (munmap(0, 4),)))


# ---- B17, B18: a stack grows beside a reader of the maple tree -------------------------------------------------------


def stack_above(space: Setup) -> None:
    """A VMA, a hole of four pages, a stack that has been used."""
    space.map(0, 4)
    space.stack(8, 4)
    space.touch(9, 0)


GROWS = scenario("stack-fills-hole")


def over_maple(name: str, index: str, grow: object) -> Strategy:
    """mmap_lock around every fault, the maple tree of that time, and a way to grow a stack."""
    return Strategy(name, "a stack grows", index, protocol=Protocol(vma_grow=grow))


# ---- B19: fork does not lock the VMAs it copies ----------------------------------------------------------------------


@native
def dup_unlocked(mm, vma):
    """dup_mmap of 6.4.0: mmap_lock for write is thought to be enough."""
    return 0


def written(space: Setup) -> None:
    """One VMA, one page written."""
    space.map(0, 1)
    space.touch(0)


B19 = Scenario(
    "b19",
    "fork write-protects a page; one thread's write fault copies it, another still has it writable in its TLB",
    written,
    ((store(0),), (store(0), store(0)), (fork(),)),
    hardware=True,
)


# ---- B20: a stack grows without its VMA's lock -----------------------------------------------------------------------


@native
def start_write_by_writers(mm, vma):
    """vma_start_write, but not where a stack grows under mmap_lock for read."""
    if mm.owner == 0:
        return 0
    return per_vma_rwsem.start_write(mm, vma)


start_write = per_vma_rwsem.start_write
B20 = Scenario(
    "b20",
    "a fault in a stack takes its page's index from the VMA's bounds while the stack grows",
    stack_above,
    ((fault(10),), (fault(6),)),
    parameters=NO_GAP,
    hardware=True,
)


# ---- B21: a VMA is in the tree before it is complete -----------------------------------------------------------------


@native
def attach_unlocked(mm, vma):
    """6.4 before 33313a747e81: not locked when it becomes visible."""
    WRITE_ONCE(VMA(mm, vma), "vm_lock_seq", -1)
    return set_release(VMA(mm, vma), 1)


@native
def attach_incomplete(mm, vma):
    """Attached as in 6.15, but its rights come after it is in the tree, as mmap_region did it."""
    stash(mm, vma)
    return per_attach(mm, vma)


@native
def attach_incomplete_unlocked(mm, vma):
    """The same, not locked."""
    stash(mm, vma)
    return attach_unlocked(mm, vma)


@native
def stash(mm, vma):
    """The rights go, to come back after vma_iter_store."""
    v = VMA(mm, vma)
    v.vm_private_data = v.vm_flags
    v.vm_flags = v.vm_flags & ~VM_ACCESS
    return 0


@native
def complete(mm, vma):
    """What mmap_region still did after vma_iter_store."""
    v = VMA(mm, vma)
    v.vm_flags = v.vm_private_data
    return 0


per_attach, set_release = per_vma_refcnt.attach, per_vma_refcnt.set_release
LATE = Cache(linked=complete)
B21 = Scenario("b21", "a fault in a mapping that is just being made", two, ((fault(5, 1),), (mmap(5, 2, 1),)))


# ---- B23: the anon_vma is looked at before the lock is held ----------------------------------------------------------


@native
def lock_without_looking_again(mm, task, addr):
    """lock_vma_under_rcu of 6.4 to 6.4.9: the anon_vma first, then the lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    found = NULL
    if vma != NULL and VMA(mm, vma).vm_start <= addr and VMA(mm, vma).anon_vma != 0 and vma_start_read(mm, vma):
        v = VMA(mm, vma)
        if v.vm_start <= addr and addr < v.vm_end and not v.detached:
            found = vma
        else:
            vma_end_read(mm, task, vma)
    rcu_read_unlock(mm, task)
    return found


@native
def get_b23(mm, task, addr):
    """get with that."""
    vma = lock_without_looking_again(mm, task, addr)
    if vma != NULL:
        TASK(mm, task).speculative = 1
        count(mm, task, COUNT_LOOKUP)
        count(mm, task, COUNT_HIT)
        return vma
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


vma_start_read, vma_end_read, get_locked = (
    per_vma_rwsem.vma_start_read,
    per_vma_rwsem.vma_end_read,
    per_vma_rwsem.get_locked,
)


B23 = scenario("fault-mremap-neighbour")


# ---- B26: the mm of a reused VMA goes before its writer is woken -----------------------------------------------------


@native
def put_foreign_unkept(mm, vma):
    """6.15 before 9bbffee67ffd: nothing keeps the other mm."""
    return vma_refcount_put(mm, vma)


vma_refcount_put = per_vma_refcnt.vma_refcount_put


def two_spaces(space: Setup) -> None:
    """One VMA with a page; another address space, forked before it was there."""
    space.fork(4)
    space.map(0, 4)
    space.touch(0)


B26 = Scenario(
    "b26",
    "a lookup holds a VMA that was freed and became another mm's, which ends",
    two_spaces,
    (
        (lookup(1),),
        (munmap(0, 4), elsewhere(mmap(0, 4), 1, 4), elsewhere(munmap(0, 4), 1, 4), elsewhere(leave(), 1, 4)),
    ),
)


def rwsem(name: str, **changed: object) -> Strategy:
    """per_vma_rwsem with some hooks exchanged."""
    return Strategy(name, "restored", "maple_rcu", protocol=per_vma_rwsem.protocol(**changed))


def refcnt(name: str, cache: Cache | None = None, bind: object = None, **changed: object) -> Strategy:
    """per_vma_refcnt likewise."""
    return Strategy(name, "restored", "maple_rcu", cache, per_vma_refcnt.protocol(bind, **changed))


HISTORIC = {
    # number: (with the bug, with the mend, scenario, kind and words of what is found)
    "B9": ("rcu_rbtree_v3", "rcu_rbtree", B9, "deadlock: lost wake-up"),
    "B17": (
        over_maple("b17", "maple", grow_as_held),
        over_maple("m17", "maple", grow_under_write_lock),
        GROWS, "stale answer: T1: lookup",
    ),
    "B18": (
        over_maple("b18", "maple_rcu", grow_as_held),
        over_maple("m18", "maple_rcu", grow_under_write_lock),
        GROWS, "use after free: T1: load of private1 record",
    ),
    "B19": (rwsem("b19", vma_dup=dup_unlocked), rwsem("m19"), B19, "lost store: 3 stores"),
    "B20": (
        rwsem("b20", vma_grow=grow_as_held, vma_start_write=start_write_by_writers), rwsem("m20"),
        B20, "wrong index: the page",
    ),
    "B21": (
        refcnt("b21", LATE, vma_attach=attach_incomplete_unlocked), refcnt("m21", LATE, vma_attach=attach_incomplete),
        B21, "stale answer: T0: read fault, page 5 gave access refused",
    ),
    "B23": (rwsem("b23", vma_get=get_b23), rwsem("m23"), B23, "use after free: T0: load of VMA"),
    "B26": (
        refcnt("b26", bind={"put_foreign": put_foreign_unkept}), refcnt("m26"),
        B26, "use after free: T0: add of mm_struct",
    ),
}  # fmt: skip
