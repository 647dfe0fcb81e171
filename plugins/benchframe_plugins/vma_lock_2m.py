"""A count of readers per VMA and 2 MiB: the granule of the RFC of 2009 turned into a lock. Not in any kernel.

History: Linux locks a VMA by one count (`per_vma_refcnt`). Wilcox and Zijlstra objected in 2020 and 2021 that threads
which fault in one huge VMA then share that count as they shared mmap_lock. DragonFly BSD had met this earlier: it cuts
large anonymous map entries at every 32 MiB, so that faults in different parts lock different entries. Here the VMA
stays whole and its lock is cut, at the granule of `pmdcache`: what one page of page-table entries maps.

Layout: page.private of a PTE page counts the readers below it, if its whole 2 MiB lie in one VMA. Readers elsewhere
(the ends of a VMA, small VMAs, where there is no PTE page yet) are counted in a record beside the VMA, on a line of its
own: inside, each of them would take away the line that all others read. So one count never serves two VMAs.
`vm_lock_seq` and the mm's `mm_lock_seq` as in 6.4.
```
  VMA      |..|=====|=====|=====|.|      . vma_readers.count     = page.private of that PTE page
  2 MiB  |-----|-----|-----|-----|-----|
```
Lookup: walk the maple tree under RCU; equal numbers: a writer, take mmap_lock. Else choose the count, add 1, and check
again: numbers, detached, range, anon_vma; for a PTE page also that it is still the one, and its 2 MiB in the VMA.

Writers (vma_start_write): store the mm's number in the VMA, then wait until each of its counts was seen at 0: the
VMA's own first, then those of its PTE pages. A new reader sees the number and backs out. The VMA's own count comes
first because its readers may still install PTE pages. mmap_write_unlock raises the mm's number, which ends all marks.

Cost: the walk, a page-table walk, two atomics. The PTE page's count lies in the line of its ptl, which the fault takes
anyway: readers of different 2 MiB share no line that is written. The price is the writer's: a load per PTE page of the
VMA's range, while `per_vma_refcnt` looks at one word.

Concurrency: VMAs and page tables are freed after a grace period, and a count that turns out wrong is given back in
the same section. Ordering: a reader's add is a full barrier between its count and its look at the number, the writer's
smp_mb one between its number and its look at the counts; so one of the two sees the other. A held VMA does not change.
Text: the code that all such faults share is in `speculation`; writing ends as in 6.4, in `per_vma_rwsem`.
Sources: linux-mm, January 2020 (spinics msg202441) and April 2021 (msg252369); DragonFly BSD sys/vm/vm_map.c,
MAP_ENTRY_PARTITION_SIZE; RFC 3/4 of December 2009 for the granule. No patch was posted: the protocol is this file's.
"""

from benchframe.api import Field, PrivateSlab, Protocol, Strategy, hookimpl, native, scenario
from benchframe.kernel import (
    E_PSE,
    NULL,
    PAGE,
    PMD_SIZE,
    PTE,
    READ_ONCE,
    TASK,
    VMA,
    WRITE_ONCE,
    fetch_add,
    fetch_add_release,
    grow_under_write_lock,
    index_find,
    load_acquire,
    lock_acquired,
    lock_contended,
    next_step,
    pmd_slot,
    rcu_read_lock,
    rcu_read_unlock,
    smp_mb,
    wait_until,
)
from benchframe_plugins import speculation
from benchframe_plugins.per_vma_rwsem import mm_write_downgrade, mm_write_unlock
from benchframe_plugins.speculation import exchanged, free_vma, release_table, usable

REGION = 512
"""Pages of 2 MiB."""


def two_regions(space: scenario.Setup) -> None:
    """One VMA of 4 MiB; only its lower half has a PTE page."""
    space.map(0, 2 * REGION)
    space.touch(1)


CUT = scenario.Scenario(
    "granule-cut",
    "a fault while its VMA loses the page, and its 2 MiB are then no longer in one VMA",
    two_regions,
    ((scenario.fault(3),), (scenario.munmap(3, 1),)),
)
GONE = scenario.Scenario(
    "granule-munmap",
    "a fault while its 2 MiB are unmapped, and their PTE page with them",
    two_regions,
    ((scenario.fault(3),), (scenario.munmap(0, REGION),)),
)
ANEW = scenario.Scenario(
    "granule-remap",
    "as granule-munmap; then they are mapped again, get another PTE page, and lose a page",
    two_regions,
    (
        (scenario.fault(3),),
        (scenario.munmap(0, REGION), scenario.mmap(0, REGION), scenario.fault(4), scenario.munmap(3, 1)),
    ),
)
FIRST = scenario.Scenario(
    "granule-first",
    "a fault that installs the PTE page of its 2 MiB, while the VMA is unmapped",
    two_regions,
    ((scenario.fault(REGION + 3),), (scenario.munmap(REGION, REGION),)),
)
"""The common scenarios are smaller than 2 MiB: there every reader is counted beside the VMA."""

VMA_READERS = PrivateSlab(
    "vma_readers",
    [Field("count", "i8", "readers that no PTE page counts", lock="atomic", align=64)],
    number=4,
    at_rest=("count",),
)
"""Record i belongs to VMA i."""

# ---- which count -----------------------------------------------------------------------------------------------------


@native
def whole(v, addr):
    """Whether the 2 MiB around ``addr`` lie in ``v``."""
    start = addr & ~(PMD_SIZE - 1)
    return READ_ONCE(v, "vm_start") <= start and start + PMD_SIZE <= READ_ONCE(v, "vm_end")


@native
def table_behind(mm, pmd):
    """The PTE page behind pmd slot ``pmd``; NULL if there is none."""
    if pmd == 0:
        return NULL
    entry = READ_ONCE(PTE(mm, pmd), "entry")
    if entry & E_PSE:
        return NULL
    return entry >> 12


# ---- readers ---------------------------------------------------------------------------------------------------------


@native
def granule_put(mm, vma, table):
    """Give back what was counted in ``table``, or beside the VMA if that is NULL."""
    if table != NULL:
        fetch_add_release(PAGE(mm, table), "private", -1)
    else:
        fetch_add_release(VMA_READERS(mm, vma), "count", -1)
    return 0


@native
def granule_start_read(mm, task, vma, addr):
    """1: the VMA is held, by the count that the task notes. 0: the fault needs mmap_lock."""
    v = VMA(mm, vma)
    if READ_ONCE(v, "vm_lock_seq") == READ_ONCE(mm, "mm_lock_seq"):
        return 0
    pmd = 0
    if whole(v, addr):
        pmd = pmd_slot(mm, addr)
    table = table_behind(mm, pmd)
    if table != NULL:
        fetch_add(PAGE(mm, table), "private", 1)
    else:
        fetch_add(VMA_READERS(mm, vma), "count", 1)
    good = READ_ONCE(v, "vm_lock_seq") != load_acquire(mm, "mm_lock_seq") and READ_ONCE(v, "detached") == 0
    if good and table != NULL:  # bounds and tables may have changed before the add
        good = whole(v, addr) and table_behind(mm, pmd) == table
    if good and usable(mm, v, addr):
        TASK(mm, task).strategy0 = table
        return 1
    granule_put(mm, vma, table)
    return 0


@native
def granule_end_read(mm, task, vma):
    """The fault is over, as ``speculation_end``."""
    return granule_put(mm, vma, TASK(mm, task).strategy0)


@native
def lock_granule_under_rcu(mm, task, addr):
    """The VMA that contains ``addr``, held; NULL if the lookup needs mmap_lock."""
    rcu_read_lock(mm, task)
    vma = index_find(mm, addr)
    if vma != NULL and not granule_start_read(mm, task, vma, addr):
        vma = NULL
    rcu_read_unlock(mm, task)
    return vma


# ---- writers ---------------------------------------------------------------------------------------------------------


@native
def wait_for_vma(mm, vma):
    """Until no reader is counted beside the VMA."""
    readers = VMA_READERS(mm, vma)
    if load_acquire(readers, "count") != 0:
        since = lock_contended(mm)
        wait_until(readers, "count", -1, 0)
        lock_acquired(mm, since)
    return 0


@native
def wait_for_table(mm, table):
    """Until no reader is counted in the PTE page."""
    p = PAGE(mm, table)
    if load_acquire(p, "private") != 0:
        since = lock_contended(mm)
        wait_until(p, "private", -1, 0)
        lock_acquired(mm, since)
    return 0


@native
def start_write(mm, vma):
    """vma_start_write: mark the VMA, then wait for the readers of all its counts. Nothing to do if it is marked."""
    v = VMA(mm, vma)
    if v.vm_lock_seq == mm.mm_lock_seq:
        return 0
    WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    smp_mb()
    wait_for_vma(mm, vma)
    address = (v.vm_start + PMD_SIZE - 1) & ~(PMD_SIZE - 1)
    end = v.vm_end & ~(PMD_SIZE - 1)
    while address < end:
        table = table_behind(mm, pmd_slot(mm, address))
        if table != NULL:
            wait_for_table(mm, table)
        address = next_step(mm, address, end)
    return 0


@native
def attach(mm, vma):
    """A new VMA is not marked; but in an mm that is being written it is marked before any reader can find it. Nobody
    holds it: what it covers was a hole, or belongs to a VMA whose readers have been waited for."""
    v = VMA(mm, vma)
    WRITE_ONCE(v, "vm_lock_seq", -1)
    if mm.owner != 0:
        WRITE_ONCE(v, "vm_lock_seq", mm.mm_lock_seq)
    return 0


HOOKS = {
    **speculation.HOOKS,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_grow": grow_under_write_lock,
    "vma_start_write": start_write,
    "vma_attach": attach,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks replaced (None: the default)."""
    bind = {"speculate": lock_granule_under_rcu, "speculation_end": granule_end_read}
    return Protocol((VMA_READERS,), bind, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the maple tree in RCU mode, as `per_vma_refcnt`."""
    return [
        Strategy(
            "vma_lock_2m",
            "a reader count per VMA and 2 MiB as its lock, over maple, the RFC's granule",
            "maple_rcu",
            protocol=protocol(),
            scenarios=(CUT, GONE, ANEW, FIRST),
        )
    ]
