"""The scenarios that every strategy must survive.

Pages count from the start of a 2 MiB region; the last page touched in a set-up is what a cache of the last fault holds
for its region. B numbers are the historic races that a scenario was written for (docs/checking.md).
"""

from __future__ import annotations

from benchframe.mm.machine import Parameters
from benchframe.scenario import Scenario, Setup, fault, fork, lookup, mmap, mprotect, mremap, munmap

REGION = 512
"""Pages of one page-table page."""


def _two(space: Setup) -> None:
    """Two VMAs in one region; the lower one was used last."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(8, 0)


def _lone(space: Setup) -> None:
    """A VMA alone in its region, another far away."""
    space.map(0, 4)
    space.map(4 * REGION, 4)
    space.touch(4 * REGION, 0)


def _gap(space: Setup) -> None:
    """Two VMAs that will merge when the gap between them is filled; the upper one was used last."""
    space.map(0, 4)
    space.map(8, 4)
    space.touch(0, access=1)
    space.touch(8)


def _long_gap(space: Setup) -> None:
    """As _gap, but the upper VMA reaches into the next region, where it was used."""
    space.map(0, 4)
    space.map(8, REGION)
    space.touch(0, access=1)
    space.touch(REGION + 2)


def _unused_neighbour(space: Setup) -> None:
    """The lower VMA was only read: its first write needs an anon_vma and looks at its neighbour, which lies in another
    region, for one."""
    space.map(REGION - 4, 4)
    space.map(REGION, 4, prot=1)
    space.touch(REGION - 4, access=1)


def _stack(space: Setup) -> None:
    space.map(0, 4)
    space.stack(REGION - 8, 4)
    space.touch(REGION - 6)


def _stack_above_hole(space: Setup) -> None:
    """A VMA, a hole of four pages, a stack in use; no guard gap, so that it may fill the hole."""
    space.map(0, 4)
    space.stack(8, 4)
    space.touch(9, 0)


def _two_regions(space: Setup) -> None:
    """Two VMAs side by side in two regions, so that no table's lock keeps them apart; the lower one was written."""
    space.map(REGION - 2, 2)
    space.map(REGION, 2, prot=1)
    space.touch(REGION - 2)


def _fresh(space: Setup) -> None:
    """Nothing touched yet: the first faults make tables and the anon_vma."""
    space.map(0, 4)


COMMON = (
    Scenario("lookup-munmap", "a lookup while its VMA is unmapped (B1)", _two, ((lookup(1),), (munmap(0, 4),))),
    Scenario("lookup-merge", "a lookup while a merge removes its VMA (B1)", _gap, ((lookup(9),), (mmap(4, 4),))),
    Scenario(
        "merge-then-lookup",
        "a merge removes a VMA that is cached in another region, then it is looked up (B2)",
        _long_gap,
        ((lookup(2), lookup(REGION + 2)), (mmap(4, 4),)),
    ),
    Scenario("fault-merge", "a fault while a merge removes its VMA (B3)", _gap, ((fault(9),), (mmap(4, 4),))),
    Scenario(
        "fault-munmap-signal",
        "a fault while its VMA is unmapped; a signal may end the wait (B4)",
        _two,
        ((fault(1),), (munmap(0, 4),)),
        signals=(1,),
    ),
    Scenario(
        "lookup-munmap-table",
        "a lookup while the page-table page that it reads is freed (B5)",
        _lone,
        ((lookup(1),), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-munmap",
        "a fault while its VMA is unmapped, then lookups of a neighbour and of the unmapped range (B6)",
        _two,
        ((fault(1), lookup(9), lookup(1)), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-munmap-neighbour",
        "a first write fault while the VMA next to it is unmapped",
        _unused_neighbour,
        ((fault(REGION - 3),), (munmap(REGION, 4),)),
    ),
    Scenario(
        "fault-munmap-region",
        "a fault while another VMA of the same 2 MiB is unmapped",
        _two,
        ((fault(1),), (munmap(8, 4),)),
    ),
    Scenario(
        "two-lookups-munmap",
        "two lookups while their VMA is unmapped",
        _two,
        ((lookup(1),), (lookup(2),), (munmap(0, 4),)),
    ),
    Scenario(
        "fault-two-writers",
        "a fault between two mapping calls",
        _two,
        ((fault(1),), (munmap(0, 4),), (mprotect(8, 2, 1),)),
    ),
    Scenario(
        "fault-mprotect",
        "a write fault while mprotect removes write permission",
        _two,
        ((fault(1),), (mprotect(0, 2, 1),)),
    ),
    Scenario("fault-mremap", "a fault while its VMA moves", _two, ((fault(1),), (mremap(0, 4, 16),))),
    Scenario("fault-fork", "a write fault while fork copies the tables", _two, ((fault(0),), (fork(),))),
    Scenario(
        "faults-fork", "two write faults while fork copies the tables", _two, ((fault(0),), (fault(1),), (fork(),))
    ),
    Scenario("faults-first", "two first faults: tables, anon_vma", _fresh, ((fault(0),), (fault(1),))),
    Scenario(
        "fault-remap",
        "a fault while its VMA is unmapped and another mapped in its place",
        _two,
        ((fault(1),), (munmap(0, 4), mmap(0, 4, 1))),
    ),
    Scenario(
        "stack-lookup", "a stack grows while it is looked up", _stack, ((fault(REGION - 9),), (lookup(REGION - 7),))
    ),
    Scenario(
        "stack-fills-hole",
        "a stack grows over the whole hole below it during a walk of the index (B17, B18)",
        _stack_above_hole,
        ((fault(4),), (lookup(9),)),
        parameters=Parameters(stack_guard_gap=0),
    ),
    Scenario(
        "fault-mremap-neighbour",
        "a fault in a VMA whose anon_vma mremap moves away, while its neighbour is unmapped (B23)",
        _two_regions,
        ((fault(REGION - 1),), (mremap(REGION - 2, 2, 16, keep=True), munmap(REGION, 2))),
    ),
    Scenario("stack-stack", "two faults grow the same stack", _stack, ((fault(REGION - 9),), (fault(REGION - 10),))),
)
