"""Speculative page faults under a sequence count per mm, with a copied VMA: the series of 2021 and 2022.

History: Michel Lespinasse, 29 patches in April 2021, 35 in January 2022; shipped out of tree, then superseded by the
per-VMA locks of 6.4. Made coarse on purpose: any writer anywhere in the mm undoes every speculation, so that nothing
finer has to be argued about. "Adding a single atomic variable per VMA would decrease the 48-thread throughput by 62 %":
readers write nothing shared.

Layout: one number in the mm, odd while mmap_lock is held for write; a copy of the VMA on the faulting task's stack,
here a private record per task.
```
  mm_seq  6 nobody writes    7 somebody does      task: { vm_start, vm_end, vm_flags, vm_file, anon_vma, vm_pgoff }
```
Lookup: note the number (odd: give up); walk the rb-tree under RCU with no lock, copy what was found, then look at the
number again. A walk through a tree that is being rotated may miss, or see a VMA that is just changing; whatever it saw
counts only if the number has stood still, which means that nobody changed anything. The tree is read once more only
by those that give up: they take mmap_lock.

Commit: with the page table's lock held, before an entry is set, the number again: unchanged, and nobody has begun to
write since the walk. A writer that begins now must take that lock to clear the entry. At the end of the fault nothing
is left to check.

Not speculated: where a page table is missing (B11: tables for a VMA that is gone), where an anon_vma is, and kernel
mode.

Cost: the walk, a copy of one VMA line, three loads of the number; nothing shared is written. Each write section costs
every fault under way a second one.

Concurrency: VMAs and page tables are freed after a grace period, and the section lasts to the end of the fault. The
walk ends: the tree's height bounds it only if nobody rotates, so it gives up after 64 steps down. Sources: cover
letters of v1 and v2 (20210430195232.30491-1-michel@lespinasse.org, 20220128131006.67712-1-...).
"""

from benchframe.api import (
    ARENA_TABLE,
    ARENA_VMA,
    COUNT_FALLBACK,
    COUNT_HIT,
    COUNT_LOOKUP,
    NULL,
    READ_ONCE,
    SITE_END,
    SITE_TABLE,
    TASK,
    VM_SHARED,
    VM_WRITE,
    VMA,
    PrivateSlab,
    Protocol,
    Strategy,
    count,
    find_vma,
    hookimpl,
    kfree_rcu,
    native,
    rcu_read_lock,
    rcu_read_unlock,
    read_lock,
    read_unlock,
    seqcount,
    write_downgrade,
    write_lock,
    write_unlock,
)

COPY = PrivateSlab(
    "spf_vma",
    [
        ("vm_start", "i8", "of the VMA copied last [the task]"),
        ("vm_end", "i8", "likewise"),
        ("vm_flags", "i8", "likewise"),
        ("vm_file", "i8", "likewise"),
        ("anon_vma", "i8", "likewise"),
        ("vm_pgoff", "i8", "likewise"),
        ("seq", "i8", "the number before the walk [the task]"),
        ("spare", "i8", "fills the line [none]"),
    ],
    per_vma=0,
    fixed=4096,
)
"""Record i is task i's: the pvma on its stack."""
TASKS = 4096
STEPS = 64
"""More steps down than any rb-tree of this many VMAs has."""
SEQ = seqcount("strategy0")
raw_read, retry, write_begin, write_end = (
    SEQ.raw_read_seqcount,
    SEQ.read_seqcount_retry,
    SEQ.write_seqcount_begin,
    SEQ.write_seqcount_end,
)


# ---- the number ------------------------------------------------------------------------------------------------------


@native
def mm_write_lock(mm, task):
    """mmap_write_lock; odd before anything is changed."""
    write_lock(mm, task)
    write_begin(mm)
    return 0


@native
def mm_write_unlock(mm, task):
    """Even after everything was changed; mmap_write_unlock."""
    write_end(mm)
    return write_unlock(mm, task)


@native
def mm_write_downgrade(mm, task):
    """Likewise; mmap_write_downgrade."""
    write_end(mm)
    return write_downgrade(mm, task)


# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def walk(mm, addr):
    """find_vma_from_tree without a lock: a VMA that contained ``addr`` when it was looked at, NULL for "do not
    know"."""
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
def copy_vma(mm, task, vma):
    """The VMA as it is now, to the task's own record."""
    v = VMA(mm, vma)
    c = COPY(mm, task)
    c.vm_start = v.vm_start
    c.vm_end = v.vm_end
    c.vm_flags = v.vm_flags
    c.vm_file = v.vm_file
    c.anon_vma = v.anon_vma
    c.vm_pgoff = v.vm_pgoff
    return 0


@native
def usable(mm, task, addr):
    """Does the copy cover ``addr``, and will the fault not need its neighbours for an anon_vma?"""
    c = COPY(mm, task)
    if c.vm_start > addr or addr >= c.vm_end:
        return 0
    if c.anon_vma != 0:
        return 1
    return (c.vm_file != 0 or mm.thp == 0) and c.vm_flags & (VM_WRITE | VM_SHARED) != VM_WRITE


@native
def get_speculative(mm, task, addr):
    """A VMA found without a lock, inside a section that ``put`` ends; else mmap_lock and find_vma."""
    if task < TASKS:
        rcu_read_lock(mm, task)
        seq = raw_read(mm)
        vma = NULL
        if not seq & 1:
            vma = walk(mm, addr)
        if vma != NULL:
            copy_vma(mm, task, vma)
            if not retry(mm, seq) and usable(mm, task, addr):
                COPY(mm, task).seq = seq
                TASK(mm, task).speculative = 1
                count(mm, task, COUNT_LOOKUP)
                count(mm, task, COUNT_HIT)
                return vma
        rcu_read_unlock(mm, task)
    count(mm, task, COUNT_FALLBACK)
    return get_locked(mm, task, addr)


@native
def get_locked(mm, task, addr):
    """mmap_lock for read, then find_vma."""
    TASK(mm, task).speculative = 0
    read_lock(mm, task)
    return find_vma(mm, task, addr)


@native
def put(mm, task, vma):
    """The section ends, or mmap_read_unlock."""
    t = TASK(mm, task)
    if t.speculative:
        t.speculative = 0
        return rcu_read_unlock(mm, task)
    return read_unlock(mm, task)


@native
def valid(mm, task, vma, site):
    """May a speculation commit here? Never where a table is missing; at the end it has committed already."""
    if not TASK(mm, task).speculative or site == SITE_END:
        return 1
    if site == SITE_TABLE:
        return 0
    return 1 - retry(mm, COPY(mm, task).seq)


# ---- freeing ---------------------------------------------------------------------------------------------------------


@native
def free_vma(mm, vma):
    """A walker may still be at it."""
    return kfree_rcu(mm, ARENA_VMA, vma)


@native
def release_table(mm, table):
    """A fault may be on its way to the table's lock."""
    return kfree_rcu(mm, ARENA_TABLE, table)


HOOKS = {
    "mmap_write_lock": mm_write_lock,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_get": get_speculative,
    "vma_get_locked": get_locked,
    "vma_put": put,
    "vma_valid": valid,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks exchanged (None: the default)."""
    hooks = {name: function for name, function in {**HOOKS, **changed}.items() if function is not None}
    return Protocol(slabs=(COPY,), **hooks)


@hookimpl
def benchframe_strategies():
    """Over the tree with gaps, as 5.10 and 5.17 had it."""
    return [
        Strategy(
            "spf_mmseq",
            "speculative faults: a sequence count per mm, VMA copied, over rb-tree, 2021",
            "rbtree_gap",
            protocol=protocol(),
        )
    ]
