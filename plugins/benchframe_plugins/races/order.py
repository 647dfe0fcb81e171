"""Races that x86 hides: a missing order of memory accesses, found under the kernel's memory model (W1 ..., B24).

The code of each is that of the fixed version; in the version with the bug, one or more orderings are weaker than the
text says. ``weaker`` lists them: function, operation, field, ordering.
"""

from benchframe.api import Protocol, Strategy, native, scenario
from benchframe.kernel import kfree_rcu, smp_wmb
from benchframe_plugins import maple, speculation
from benchframe_plugins.maple.node import ARENA_NODE, PIVOTS, WORD
from benchframe_plugins.races.tree import free_rcu, get_lockless, put_lockless
from benchframe_plugins.speculation import CUT, two_written

Historic = scenario.Historic


def above(space: scenario.Setup) -> None:
    """A hole, and a VMA above it."""
    space.map(16, 4)
    space.touch(16)


NEW = scenario.Scenario(
    "fault-mmap", "a fault where a VMA is being mapped", above, ((scenario.fault(1),), (scenario.mmap(0, 4),))
)


REUSE = scenario.Scenario(
    "fault-reuse",
    "a fault in a VMA that is mapped over, and whose memory becomes the new VMA",
    two_written,
    ((scenario.fault(1),), (scenario.mmap(0, 4, 1),)),
)


SECOND = scenario.Scenario(
    "fault-munmap-second",
    "a fault in a VMA that a second writer unmaps; the first, which finds a hole, only raises the mm's number",
    two_written,
    ((scenario.munmap(16, 1),), (scenario.fault(1),), (scenario.munmap(0, 4),)),
)

# ---- W2, W3: pivots of dead nodes ------------------------------------------------------------------------------------

LINK = 1 << 61
"""A value above all addresses marks a pointer."""


@native
def ma_free_listed(mm, node):
    """6.1: a store puts the nodes that it frees on a list, whose links overwrite the pivots of dead nodes."""
    smp_wmb()
    WORD(mm, (node << 5) + PIVOTS).word = LINK | node
    return kfree_rcu(mm, ARENA_NODE, node)


def listed() -> Strategy:
    """The maple tree with such a list, walked under RCU alone; the result of the walk is trusted."""
    index = maple.maple(rcu=True, free=ma_free_listed)
    protocol = Protocol(vma_get=get_lockless, vma_get_locked=get_lockless, vma_put=put_lockless, vma_free=free_rcu)
    return Strategy("w2", "dead nodes on a list", index, protocol=protocol, check_messages=maple.MESSAGES)


def two(space: scenario.Setup) -> None:
    """Two VMAs in one leaf."""
    space.map(0, 4)
    space.map(8, 4)


WALK = scenario.Scenario(
    "walk-munmap",
    "a walk to a VMA while its leaf is replaced, since another VMA goes",
    two,
    ((scenario.lookup(9),), (scenario.munmap(0, 4),)),
)


def order(
    number: str,
    summary: str,
    sources: str,
    strategy: object,
    shows: str,
    *weaker: tuple[str, str, str, str],
    where: object = CUT,
    whole: bool = False,
) -> Historic:
    """One of them: the orderings that are weaker than in the strategy's text, and the scenario."""
    return Historic(
        number, summary, sources, strategy, strategy, where, shows, memory="lkmm", weaker=weaker, whole=whole
    )


def unseen(number: str, summary: str, because: str) -> Historic:
    """A race that the model does not show."""
    return Historic(number, summary, because=because)


LEFT = "broken invariant: an entry for"
REFUSED = "stale answer: T0: write fault, page 1 gave"


def races() -> list[Historic]:
    """All races, by number."""
    return [
        order(
            "W1",
            "the reader's reference is taken without acquire: it looks at vm_lock_seq before, and holds a locked VMA",
            "v9 of the series (20250111042604.3230628-12); mended in v10 by an acquire (20250213224655.1680278-12)",
            "per_vma_refcnt",
            LEFT,
            ("vma_start_read", "rmw", "vm_refcnt", "relaxed"),
        ),
        order(
            "W2",
            "maple: a dead node's pivots become pointers of a list, which is seen before the node is seen to be dead",
            "6.1; mended by c13af03de46b (20230227173632.3292573-6), an smp_wmb after the node is marked dead",
            listed(),
            "stale answer: T0: lookup, page 9 gave VMA",
            ("ma_free_listed", "wmb", "", "none"),
            where=WALK,
            whole=True,
        ),
        order(
            "W3",
            "maple: a node is found alive before its pivots are read, which it is no more",
            "6.1; mended by 20230227173632.3292573-7, an smp_rmb before the node's parent is looked at",
            listed(),
            "stale answer: T0: lookup, page 9 gave VMA",
            ("mt_find", "rmb", "", "none"),
            where=WALK,
            whole=True,
        ),
        unseen("W4", "mm_lock_seq without release and acquire", "it is B24"),
        order(
            "W5",
            "type-safe reuse: a VMA is attached without release, and who takes a reference sees the one that it was",
            "lkml 2412.1/02207, case 3; refcount_set_release of v10 of the series (20250213224655.1680278)",
            "per_vma_refcnt",
            "broken invariant: VMA #1: anon_vma",
            ("refcount_set_release", "store", "vm_refcnt", "once"),
            where=REUSE,
        ),
        order(
            "W6",
            "speculative faults: the VMA's sequence count is odd after the first change is seen (no smp_wmb)",
            "what vma_has_changed's smp_rmb is paired with (Dufour, v5 to v11; write_seqlock_begin)",
            "spf_seqcount",
            REFUSED,
            ("write_seqcount_begin", "wmb", "", "none"),
            where=speculation.PART,
            whole=True,
        ),
        order(
            "W7",
            "the last reader puts its reference and does not see the writer that waits: a lost wake-up",
            "what rcuwait_wake_up's barrier is for (kernel/exit.c)",
            "per_vma_refcnt",
            "deadlock: T1 waits",
            ("wake_up", "mb", "", "none"),
            where="lookup-munmap",
        ),
        order(
            "W8",
            "the RFC of 2009: `int version` without barriers, and a holder counts itself in without an order",
            "patches 2/4 and 3/4, 18 December 2009: version++, atomic_inc, a wait; put back into what mends B1 to B6",
            "pmdcache_rcu",
            "use after free: T0: add of VMA",
            ("vma_hold", "rmw", "cache_access", "relaxed"),
            ("mm_write_lock", "rmw", "version", "relaxed"),
            ("mm_write_unlock", "rmw", "version", "relaxed"),
            ("start_write", "mb", "", "none"),
            where="fault-munmap",
            whole=True,
        ),
        order(
            "W9",
            "mmap_lock_speculate: the mm's number is odd after the first change is seen (no smp_wmb)",
            "what mm_lock_seqcount_begin's barrier is for (eb449bd96954, 6.13)",
            "spf_mmseq",
            REFUSED,
            ("write_seqcount_begin", "wmb", "", "none"),
            where=speculation.PART,
        ),
        order(
            "W10",
            "a new VMA is linked into a tree that is walked under RCU, and nothing orders its fields before the link",
            "found by this check in the series of January 2010; Dufour's v11 has a lock around the tree",
            "spf_seqcount",
            "broken invariant: VMA #",
            ("attach", "wmb", "", "none"),
            where=NEW,
        ),
        order(
            "W11",
            "a holder takes its reference without acquire: it sees the anon_vma from before an mremap that is over",
            "found by this check in what mends the author's third version; refcount_inc_not_zero_acquire is of 6.15",
            "rcu_rbtree",
            "use after free: T0: load of VMA",
            ("find_vma_speculative", "rmw", "vm_refcnt", "relaxed"),
            where="fault-mremap-neighbour",
            whole=True,
        ),
        order(
            "W12",
            "a VMA's new number is seen, and the mm's from before the last writer: it passes for unlocked",
            "found by this check in the fault after Wilcox, 2021; 6.4 has a release there, the up_write of vm_lock",
            "rcu_fault",
            LEFT,
            ("start_write", "store", "vm_lock_seq", "once"),
            where=SECOND,
        ),
        order(
            "B24",
            "mm_lock_seq is stored and loaded without release and acquire: the VMA is seen as it was before",
            "6.4; mended by b1f02b95758d (6.5)",
            "per_vma_rwsem",
            LEFT,
            ("end_write_all", "store", "mm_lock_seq", "once"),
            ("vma_start_read", "load", "mm_lock_seq", "once"),
        ),
    ]
