"""Races of the per-VMA locks, reintroduced into per_vma_rwsem and per_vma_refcnt: B19, B20, B21, B23, B26."""

from benchframe.api import Cache, Strategy, native, scenario
from benchframe.kernel import (
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    TASK,
    VM_ACCESS,
    VMA,
    WRITE_ONCE,
    count,
    grow_as_held,
    index_find,
    rcu_read_lock,
    rcu_read_unlock,
)
from benchframe_plugins import per_vma_refcnt, per_vma_rwsem
from benchframe_plugins.speculation import get_locked

Historic = scenario.Historic


def rwsem(name: str, **changed: object) -> Strategy:
    """per_vma_rwsem with some hooks replaced."""
    return Strategy(name, "restored", "maple_rcu", protocol=per_vma_rwsem.protocol(**changed))


def refcnt(name: str, cache: Cache | None = None, bind: object = None, **changed: object) -> Strategy:
    """per_vma_refcnt with some hooks replaced."""
    return Strategy(name, "restored", "maple_rcu", cache, per_vma_refcnt.protocol(bind, **changed))


# ---- B19: fork does not lock the VMAs it copies ----------------------------------------------------------------------


@native
def dup_unlocked(mm, vma):
    """dup_mmap as first released in 6.4: it takes only mmap_lock for write."""
    return 0


def written(space: scenario.Setup) -> None:
    """One VMA, one page written."""
    space.map(0, 1)
    space.touch(0)


B19 = scenario.Scenario(
    "fork-stale-tlb",
    "fork write-protects a page; one thread's write fault copies it, another still has it writable in its TLB",
    written,
    ((scenario.store(0),), (scenario.store(0), scenario.store(0)), (scenario.fork(),)),
    hardware=True,
)


# ---- B20: a stack grows without its VMA's lock -----------------------------------------------------------------------


@native
def start_write_by_writers(mm, vma):
    """vma_start_write, but not where a stack grows under mmap_lock for read."""
    if mm.owner == 0:
        return 0
    return start_write(mm, vma)


def stack_above(space: scenario.Setup) -> None:
    """A VMA, a hole of four pages, a stack that has been used."""
    space.map(0, 4)
    space.stack(8, 4)
    space.touch(9, 0)


start_write = per_vma_rwsem.start_write
B20 = scenario.Scenario(
    "stack-page-index",
    "a fault in a stack takes its page's index from the VMA's bounds while the stack grows",
    stack_above,
    ((scenario.fault(10),), (scenario.fault(6),)),
    parameters=scenario.Parameters(stack_guard_gap=0),
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
    """Attached as in 6.15, but its permissions are set after it is in the tree, as in mmap_region."""
    stash(mm, vma)
    return per_attach(mm, vma)


@native
def attach_incomplete_unlocked(mm, vma):
    """The same, not locked."""
    stash(mm, vma)
    return attach_unlocked(mm, vma)


@native
def stash(mm, vma):
    """Take the permissions away; they are restored after vma_iter_store."""
    v = VMA(mm, vma)
    v.vm_private_data = v.vm_flags
    v.vm_flags = v.vm_flags & ~VM_ACCESS
    return 0


@native
def complete(mm, vma):
    """What mmap_region did after vma_iter_store."""
    v = VMA(mm, vma)
    v.vm_flags = v.vm_private_data
    return 0


def two(space: scenario.Setup) -> None:
    """Two VMAs in one region, both touched."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(8, 0)


per_attach, set_release = per_vma_refcnt.attach, per_vma_refcnt.set_release
LATE = Cache(linked=complete)
B21 = scenario.Scenario(
    "fault-mmap",
    "a fault in a mapping that is just being made",
    two,
    ((scenario.fault(5, 1),), (scenario.mmap(5, 2, 1),)),
)


# ---- B23: the anon_vma is read before the lock is held ---------------------------------------------------------------


@native
def lock_without_looking_again(mm, task, addr):
    """lock_vma_under_rcu of 6.4 to 6.4.9: reads the anon_vma first, then takes the lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    found = NULL
    early = vma != NULL and VMA(mm, vma).vm_start <= addr and VMA(mm, vma).vm_file == 0 and VMA(mm, vma).anon_vma != 0
    if early and vma_start_read(mm, vma):
        v = VMA(mm, vma)
        if v.vm_start <= addr and addr < v.vm_end and not v.detached:
            found = vma
        else:
            vma_end_read(mm, task, vma)
    rcu_read_unlock(mm, task)
    return found


@native
def get_b23(mm, task, addr):
    """vma_get with lock_without_looking_again."""
    vma = lock_without_looking_again(mm, task, addr)
    if vma != NULL:
        TASK(mm, task).speculative = 1
        count(mm, task, COUNT_LOOKUP)
        count(mm, task, COUNT_HIT)
        return vma
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


vma_start_read, vma_end_read = per_vma_rwsem.vma_start_read, per_vma_rwsem.vma_end_read


# ---- B26: the mm of a reused VMA is freed before its writer is woken -------------------------------------------------


@native
def put_foreign_unkept(mm, vma):
    """6.15 before 9bbffee67ffd: nothing keeps the other mm alive."""
    return vma_refcount_put(mm, vma)


vma_refcount_put = per_vma_refcnt.vma_refcount_put


def two_spaces(space: scenario.Setup) -> None:
    """One VMA with a page; another address space, forked before the VMA existed."""
    space.fork(4)
    space.map(0, 4)
    space.touch(0)


def _there(call: scenario.Call) -> scenario.Call:
    return scenario.elsewhere(call, 1, 4)


B26 = scenario.Scenario(
    "reuse-exit",
    "a lookup holds a VMA that was freed and became another mm's, which ends",
    two_spaces,
    (
        (scenario.lookup(1),),
        (
            scenario.munmap(0, 4),
            _there(scenario.mmap(0, 4)),
            _there(scenario.munmap(0, 4)),
            _there(scenario.leave()),
        ),
    ),
)


def races() -> list[Historic]:
    """The races, with the bug and fixed."""
    return [
        Historic(
            "B19",
            "fork does not lock the VMAs it copies: a store through a stale TLB entry is lost",
            "6.4; fixed by fb49c455323f",
            rwsem("b19", vma_dup=dup_unlocked),
            "per_vma_rwsem",
            B19,
            "lost store: 3 stores",
        ),
        Historic(
            "B20",
            "a stack grows without its VMA's lock: the index of a new page is computed from inconsistent bounds",
            "6.4; fixed by c137381f71ae",
            rwsem("b20", vma_grow=grow_as_held, vma_start_write=start_write_by_writers),
            "per_vma_rwsem",
            B20,
            "wrong index: the page",
        ),
        Historic(
            "B21",
            "a VMA is in the tree before it is complete",
            "6.4; fixed by 33313a747e81",
            refcnt("b21", LATE, vma_attach=attach_incomplete_unlocked),
            refcnt("b21-mended", LATE, vma_attach=attach_incomplete),
            B21,
            "stale answer: T0: read fault, page 5 gave access refused",
        ),
        Historic(
            "B23",
            "the anon_vma is read before the VMA's lock is held",
            "6.4; fixed by 657b5146955e (6.4.10)",
            rwsem("b23", vma_get=get_b23),
            "per_vma_rwsem",
            "fault-mremap-neighbour",
            "use after free: T0: load of VMA",
        ),
        Historic(
            "B26",
            "a VMA's memory becomes another mm's, which ends before its writer is woken",
            "6.15; fixed by 9bbffee67ffd",
            refcnt("b26", bind={"put_foreign": put_foreign_unkept}),
            "per_vma_refcnt",
            B26,
            "use after free: T0: add of mm_struct",
            whole=False,
        ),
    ]
