"""Strategies with one mistake each, such as their authors make; the line that must be found is marked ``# WRONG``."""

from benchframe.api import Cache, Field, PrivateSlab, Protocol, Strategy, native
from benchframe.kernel import NULL, TASK, VMA, find_vma, mmap_read_lock, trace

MEMO = PrivateSlab(
    "memo",
    [
        Field("vma", "i8", "what the task found last", pointer=True),
        Field("seq", "i8", "mm.strategy0 when it did"),
        Field("mm", "i8", "in which mm"),
    ],
    per_task=1,
)
"""One record per task."""
SLOTS, MASK = 8, 7
SLOT = PrivateSlab("slot", [Field("vma", "i8", "a VMA found before", pointer=True)], 0, per_vma=0, fixed=SLOTS)
"""One table for all, by page number. Records are numbered from 1."""


@native
def changed(mm):
    """A VMA has gone: what was found before counts no more."""
    mm.strategy0 += 1
    return 0


@native
def merged(mm, vma, prev):
    """Likewise."""
    mm.strategy0 += 1
    return 0


@native
def memo_store(mm, task, addr, vma):
    """The task found ``vma``."""
    if TASK(mm, task).mm == mm.id:
        m = MEMO(mm, task)
        m.vma = vma
        m.seq = mm.strategy0
        m.mm = mm.id
    return 0


@native
def memo_find_after_exec(mm, task, addr):
    """Asks for mm and sequence number, but an exec begins with the same two."""
    m = MEMO(mm, task)
    trace(m.vma)
    if m.mm != mm.id or m.seq != mm.strategy0 or m.vma == NULL:
        return NULL
    v = VMA(mm, m.vma)
    if v.vm_start <= addr and addr < v.vm_end:  # WRONG: not reset on exec
        return m.vma
    return NULL


@native
def memo_find_anywhere(mm, task, addr):
    """Does not ask whose mm it is."""
    m = MEMO(mm, task)
    if m.vma == NULL or m.seq != mm.strategy0:
        return NULL
    v = VMA(mm, m.vma)
    if v.vm_start <= addr and addr < v.vm_end:
        return m.vma  # WRONG: foreign mm
    return NULL


@native
def forget_task(mm, task):
    """A new task has found nothing yet."""
    MEMO(mm, task).vma = NULL
    return 0


@native
def load_through_null(mm, task, addr):
    """mmap_cache without its test."""
    v = VMA(mm, mm.mmap_cache)
    if v.vm_start <= addr and addr < v.vm_end:  # WRONG: load through NULL
        return mm.mmap_cache
    return NULL


@native
def store_through_null(mm, task, addr):
    """Marks what it found, also where it found nothing."""
    mmap_read_lock(mm, task)
    vma = find_vma(mm, task, addr)
    VMA(mm, vma).vm_private_data = 1  # WRONG: store through NULL
    return vma


@native
def slot_find(mm, task, addr):
    """The table's VMA, if it is this mm's."""
    vma = SLOT(mm, 1 + ((addr >> 12) & MASK)).vma
    if vma == NULL or VMA(mm, vma).vm_mm != mm.id:  # WRONG: kept after exit
        return NULL
    v = VMA(mm, vma)
    if v.vm_start <= addr and addr < v.vm_end:
        return vma
    return NULL


@native
def slot_store(mm, task, addr, vma):
    """Enter it."""
    SLOT(mm, 1 + ((addr >> 12) & MASK)).vma = vma
    return 0


@native
def slots_clear(mm):
    """Empty the table."""
    slot = 1
    while slot <= SLOTS:
        SLOT(mm, slot).vma = NULL
        slot += 1
    return 0


@native
def slots_clear_merged(mm, vma, prev):
    """Likewise."""
    return slots_clear(mm)


@native
def slot_find_outside(mm, task, addr):
    """The mask is twice too wide."""
    vma = SLOT(mm, 1 + ((addr >> 12) & (2 * MASK + 1))).vma  # WRONG: outside
    if vma != NULL and VMA(mm, vma).vm_mm == mm.id and VMA(mm, vma).vm_start <= addr and addr < VMA(mm, vma).vm_end:
        return vma
    return NULL


def _memo(find, **more):  # type: ignore[no-untyped-def]
    return Cache(slabs=(MEMO,), find=find, store=memo_store, detached=changed, unlinked=merged, **more)


def _table(find, **more):  # type: ignore[no-untyped-def]
    return Cache(slabs=(SLOT,), find=find, store=slot_store, detached=slots_clear, unlinked=slots_clear_merged, **more)


MISTAKES = {
    "not reset on exec": (
        Strategy("forgets-exec", "a memo per task", "rbtree", _memo(memo_find_after_exec)),
        "exec-lookup",
        "use after free",
    ),
    "foreign mm": (
        Strategy("forgets-mm", "a memo per task", "rbtree", _memo(memo_find_anywhere, task_init=forget_task)),
        "foreign-lookup",
        "stale answer",
    ),
    "load through NULL": (
        Strategy("loads-null", "mmap_cache", "rbtree", Cache(find=load_through_null)),
        "lookup-munmap",
        "NULL dereference",
    ),
    "store through NULL": (
        Strategy("stores-null", "marks what it finds", "rbtree", protocol=Protocol(vma_get=store_through_null)),
        "exec-lookup",
        "NULL dereference",
    ),
    "kept after exit": (
        Strategy("forgets-exit", "one table for all", "rbtree", _table(slot_find)),
        "exit-lookup",
        "use after free",
    ),
    "outside": (
        Strategy("leaves-slab", "one table for all", "rbtree", _table(slot_find_outside, mm_exit=slots_clear)),
        "lookup-munmap",
        "wild reference",
    ),
}
"""What is wrong: the strategy, the scenario that shows it, the kind of failure."""
