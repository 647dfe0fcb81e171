"""Races that x86 hides: a missing order of memory accesses, found under the kernel's memory model (W1 ..., B24).

Each is its strategy with one or two orderings weaker than its text says: the code is that of the mended side. What the
side with the bug had instead is in ``weaker``: function, operation, field, ordering.
"""

from benchframe.api import scenario

Historic = scenario.Historic


def written(space: scenario.Setup) -> None:
    """Two VMAs in one region, both used; the lower one was written."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(0)
    space.touch(8, 0)


PART = scenario.Scenario(
    "fault-munmap-part",
    "a fault in the part of a VMA that is being unmapped, while the other part stays",
    written,
    ((scenario.fault(1),), (scenario.munmap(1, 3),)),
)


def order(
    number: str,
    summary: str,
    sources: str,
    strategy: str,
    shows: str,
    *weaker: tuple[str, str, str, str],
    where: object = PART,
) -> Historic:
    """One of them: what is weaker than in the strategy's text, and the scenario."""
    return Historic(
        number, summary, sources, strategy, strategy, where, shows, memory="lkmm", weaker=weaker, whole=False
    )


def unseen(number: str, summary: str, because: str) -> Historic:
    """One that the model does not show."""
    return Historic(number, summary, because=because)


LEFT = "broken invariant: an entry for"
SPLIT = "stale answer: T0: write fault, page 1 gave VMA"


def races() -> list[Historic]:
    """All, by number."""
    return [
        order(
            "W1",
            "the reader's reference is taken without acquire: it looks at vm_lock_seq before, and holds a locked VMA",
            "v9 of the series (20250111042604.3230628-12); mended in v10 by an acquire (20250213224655.1680278-12)",
            "per_vma_refcnt",
            LEFT,
            ("vma_start_read", "rmw", "vm_refcnt", "relaxed"),
        ),
        unseen(
            "W2",
            "maple: a dead node's pivots are reused before it is seen to be dead (c13af03de46b)",
            "here nothing is stored to a dead node until its grace period is over",
        ),
        unseen(
            "W3",
            "maple: a node is found dead before its data are read (20230227173632.3292573-7)",
            "as W2: the data of a dead node stay what they were",
        ),
        unseen("W4", "mm_lock_seq without release and acquire", "it is B24"),
        unseen(
            "W5",
            "type-safe reuse: a VMA is attached without release, its vm_mm and bounds are seen as they were",
            "its writer's lock, released after it is attached, orders the same here: nothing was found without it",
        ),
        order(
            "W6",
            "speculative faults: the VMA's sequence count is odd after the first change is seen (no smp_wmb)",
            "what the barriers of SPF v5 to v11 are for (write_seqlock_begin, vma_rb_erase)",
            "spf_seqcount",
            SPLIT,
            ("write_seqcount_begin", "wmb", "", "none"),
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
        unseen(
            "W8",
            "the RFC of 2009 as posted: `int version` without barriers, atomic_inc without an order",
            "its races show without them (B1 to B6); pmdcache_rcu fails too if vma_hold is relaxed as posted",
        ),
        order(
            "W9",
            "mmap_lock_speculate: the mm's number is odd after the first change is seen (no smp_wmb)",
            "what mm_lock_seqcount_begin's barrier is for (eb449bd96954, 6.13)",
            "spf_mmseq",
            SPLIT,
            ("write_seqcount_begin", "wmb", "", "none"),
        ),
        order(
            "W10",
            "a new VMA is linked into a tree that is walked under RCU, and nothing orders its fields before the link",
            "found by this check in the series of January 2010; Dufour's v11 has a lock around the tree",
            "spf_seqcount",
            "stale answer: T0: write fault, page 1 gave",
            ("attach", "wmb", "", "none"),
            where="fault-mprotect",
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
