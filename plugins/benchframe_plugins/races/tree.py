"""Races of trees and caches, reintroduced: B10, B15, B17, B18; and B29, for which one task is enough."""

from benchframe.api import Cache, Protocol, Strategy, native, scenario
from benchframe.kernel import (
    ARENA_VMA,
    TASK,
    grow_as_held,
    grow_under_write_lock,
    index_find,
    kfree_rcu,
    rcu_read_lock,
    rcu_read_unlock,
)
from benchframe.workloads import Kind
from benchframe_plugins import vmacache

Historic = scenario.Historic


# ---- B10: an rb-tree walked during a rotation ------------------------------------------------------------------------


@native
def get_lockless(mm, task, addr):
    """The rb-tree walked under RCU alone, and "not found" is trusted."""
    rcu_read_lock(mm, task)
    return index_find(mm, addr)


@native
def put_lockless(mm, task, vma):
    """The end of get_lockless."""
    rcu_read_unlock(mm, task)
    return 0


@native
def free_rcu(mm, vma):
    """Free it after a grace period."""
    return kfree_rcu(mm, ARENA_VMA, vma)


def _many(space: scenario.Setup) -> None:
    """Eight VMAs: enough for an erase to rotate."""
    for number in range(8):
        space.map(4 * number, 2)


LOCKLESS = Protocol(vma_get=get_lockless, vma_get_locked=get_lockless, vma_put=put_lockless, vma_free=free_rcu)
B10 = scenario.Scenario(
    "walk-rotation", "a walk beside an erase", _many, ((scenario.lookup(28),), (scenario.munmap(12, 2),))
)


# ---- B15: a cache's sequence number that wraps -----------------------------------------------------------------------


@native
def users_of(mm):
    """How many tasks run in this mm."""
    users = 0
    task = 1
    while task <= mm.strategy3:
        if TASK(mm, task).mm == mm.id:
            users += 1
        task += 1
    return users


@native
def flushes_all(mm):
    """A counter of two bits that, at 0, empties the slots of every task."""
    mm.vmacache_seqnum &= 3
    if mm.vmacache_seqnum == 0:
        task = 1
        while task <= mm.strategy3:
            vmacache_flush(mm, task)
            task += 1
    return 0


@native
def skips_one_user(mm):
    """3.16: with one user the flush is omitted, because the user's next lookup would find the numbers unequal."""
    if (mm.vmacache_seqnum & 3) == 0 and users_of(mm) == 1:
        mm.vmacache_seqnum = 0
        return 0
    return flushes_all(mm)


vmacache_flush = vmacache.vmacache_flush


def with_overflow(name: str, overflow: object) -> Strategy:
    """vmacache with another way to handle the overflow."""
    cache = Cache(
        find=vmacache.vmacache_find,
        store=vmacache.vmacache_update,
        detached=vmacache.vmacache_invalidate,
        unlinked=vmacache.unlinked,
        mm_init=vmacache.mm_init,
        task_init=vmacache.task_init,
        bind={"vmacache_overflow": overflow},
    )
    return Strategy(name, "vmacache, counter of two bits", "rbtree_gap", cache)


def _many_small(space: scenario.Setup) -> None:
    """Y at page 0; six more, in other slots of the cache than Y."""
    for number in range(7):
        space.map(8 * number + (1 if number else 0), 1)


def _gone(number: int, task: int) -> scenario.Call:
    call = scenario.munmap(8 * number + 1, 1)
    return scenario.Call(f"{call.label} by task {task}", {**call.columns, "task": task})


WRAP = (
    *(_gone(number, 0) for number in (1, 2, 3)),  # the number is 3, the last value before it wraps
    scenario.lookup(0),  # Y is in a slot, number 3
    _gone(4, 0),  # the number becomes 0; with one user nothing is flushed
    scenario.Call("a second task joins", {"kind": Kind.THREAD, "len": 1}),
    _gone(5, 1),
    _gone(6, 1),
    scenario.Call("munmap of Y by task 1", {**scenario.munmap(0, 1).columns, "task": 1}),  # the number is 3 again
    scenario.lookup(0),
)
B15 = scenario.Scenario("number-wraps", "a sequence number of two bits wraps, then a task joins", _many_small, (WRAP,))


# ---- B17, B18: a stack grows while another task reads the maple tree -------------------------------------------------


def over_maple(name: str, index: str, grow: object) -> Strategy:
    """mmap_lock around every fault, the maple tree of that kernel, and a way to grow a stack."""
    return Strategy(name, "a stack grows", index, protocol=Protocol(vma_grow=grow))


# ---- B29: MAP_FIXED_NOREPLACE asks find_vma about one address --------------------------------------------------------


def _second_half(space: scenario.Setup) -> None:
    """A VMA in the second half of the range that will be requested."""
    space.map(2, 2)


ANON_NOREPLACE, EEXIST = 0x100022, 17
"""MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE."""
REFUSED = scenario.Call(
    "mmap of pages 0-3 with MAP_FIXED_NOREPLACE",
    {**scenario.mmap(0, 4).columns, "flags": ANON_NOREPLACE},
    answer=-EEXIST,
)
B29 = scenario.Scenario(
    "noreplace", "a mapping that must not replace another, which begins inside it", _second_half, ((REFUSED,),)
)
B29_OLD = scenario.Scenario(B29.name, B29.summary, _second_half, B29.tasks, parameters=scenario.OLD_NOREPLACE)


def races() -> list[Historic]:
    """The races, with the bug and fixed."""
    return [
        Historic(
            "B10",
            'an rb-tree walked beside a rotation: "not found" may be wrong',
            "the RFC's third version believes a VMA that it finds, and takes mmap_sem else",
            Strategy("b10", "a walk that is believed", "rbtree", protocol=LOCKLESS),
            "rcu_rbtree",
            B10,
            "stale answer: T0: lookup, page 28 gave no VMA",
            among=12,
        ),
        Historic(
            "B15",
            "vmacache's sequence number wraps and a flush is left out (CVE-2018-17182); here it has two bits",
            "3.16 to 4.18; fixed by a counter of 64 bits, here by the flush",
            with_overflow("b15", skips_one_user),
            with_overflow("b15-mended", flushes_all),
            B15,
            "use after free: T0: load of VMA",
        ),
        Historic(
            "B17",
            "maple tree without RCU: a stack that grows rewrites a node under a reader",
            "6.1, 6.2; fixed by 3dd443254941, here by growing under mmap_lock for write",
            over_maple("b17", "maple", grow_as_held),
            over_maple("b17-mended", "maple", grow_under_write_lock),
            "stack-fills-hole",
            "stale answer: T1: lookup",
        ),
        Historic(
            "B18",
            "StackRot (CVE-2023-3269): a node is freed under a reader that is in no RCU section",
            "6.1 to 6.4; fixed by 9471f1f2f502: stacks grow under mmap_lock for write",
            over_maple("b18", "maple_rcu", grow_as_held),
            over_maple("b18-mended", "maple_rcu", grow_under_write_lock),
            "stack-fills-hole",
            "use after free: T1: load of maple_node",
        ),
        Historic(
            "B29",
            "MAP_FIXED_NOREPLACE asks find_vma about the first address only, and replaces what lies behind it",
            "4.17",
            "rbtree",
            "rbtree",
            B29_OLD,
            "wrong answer: T0: mmap of pages 0-3",
            mended_scenario=B29,
        ),
    ]
