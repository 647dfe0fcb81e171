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
    number: str, summary: str, sources: str, strategy: str, shows: str, *weaker: tuple[str, str, str, str]
) -> Historic:
    """One of them, in scenario PART."""
    return Historic(number, summary, sources, strategy, strategy, PART, shows, memory="lkmm", weaker=weaker)


LEFT = "broken invariant: an entry for"


def races() -> list[Historic]:
    """Those that are shown."""
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
            "B24",
            "mm_lock_seq is stored and loaded without release and acquire: the VMA is seen as it was before",
            "6.4; mended by b1f02b95758d (6.5)",
            "per_vma_rwsem",
            LEFT,
            ("end_write_all", "store", "mm_lock_seq", "once"),
            ("vma_start_read", "load", "mm_lock_seq", "once"),
        ),
    ]
