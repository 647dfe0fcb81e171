"""Speculative page faults under a sequence count per mm, with a copied VMA: the series of 2021 and 2022.

History: Michel Lespinasse, 29 patches in April 2021, 35 in January 2022; shipped out of tree, then superseded by the
per-VMA locks of 6.4. It is coarse on purpose: a writer anywhere in the mm invalidates every speculation, so that no
finer argument is needed. "Adding a single atomic variable per VMA would decrease the 48-thread throughput by 62 %":
readers write nothing shared.

Layout: one number in the mm, odd while mmap_lock is held for write; a copy of the VMA on the faulting task's stack,
here a private record per task.
```
  mm_seq  6 nobody writes    7 somebody does      task: { vm_start, vm_end, vm_flags, vm_file, anon_vma, vm_pgoff }
```
Lookup: note the number (odd: give up); walk the rb-tree under RCU with no lock, copy what was found, then look at the
number again. A walk through a tree during a rotation may miss a VMA, or see one that is just changing; its result
counts only if the number has not changed, which means that there was no writer. Only faults that give up read the tree
again: they take mmap_lock.

Commit: with the page table's lock held, before an entry is set, check the number again: if it is unchanged, no writer
has begun since the walk. A writer that begins now must take that lock to clear the entry. At the end of the fault there
is nothing left to check.

Not speculated: where a page table is missing (B11: tables for a VMA that is gone), where an anon_vma is, and kernel
mode.

Differences from the series: there a process with one thread did not speculate at all (mm_users == 1), so a run without
threads shows what speculation costs and not what those kernels did; the section ended with the copy, page tables were
walked in one of their own (speculative_page_walk_begin), and the fault worked on the copy, where here it reads the VMA.

Cost: the walk, a copy of one VMA line, three loads of the number; nothing shared is written. Each write section makes
every fault in flight start again.

Concurrency: VMAs and page tables are freed after a grace period, and the section lasts to the end of the fault. The
walk always ends: it gives up after 64 levels. Text: the code that all such faults share is in `speculation`.
Sources: v1 and v2, cover letters and the patches to arch/x86/mm/fault.c (20210430195232.30491-1-michel@lespinasse.org,
20220128131006.67712-1-michel@lespinasse.org).
"""

from benchframe.api import Field, PrivateSlab, Protocol, Strategy, hookimpl, native
from benchframe.kernel import (
    NULL,
    SITE_END,
    SITE_TABLE,
    TASK,
    VMA,
    rcu_read_lock,
    rcu_read_unlock,
    seqcount,
    write_downgrade,
    write_lock,
    write_unlock,
)
from benchframe_plugins import speculation
from benchframe_plugins.speculation import exchanged, free_vma, release_table, section_end, usable, walk

COPY = PrivateSlab(
    "spf_vma",
    [
        Field("vm_start", "i8", "of the VMA copied last", lock="the task"),
        ("vm_end", "i8", "likewise"),
        ("vm_flags", "i8", "likewise"),
        ("vm_file", "i8", "likewise"),
        ("anon_vma", "i8", "likewise"),
        ("vm_pgoff", "i8", "likewise"),
        Field("seq", "i8", "the number before the walk", lock="the task"),
        Field("spare", "i8", "fills the line", lock="none"),
    ],
    per_vma=0,
    fixed=4096,
)
"""Record i is task i's: the pvma on its stack."""
TASKS = 4096
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
    """mmap_write_lock, then make the number odd, before any change."""
    write_lock(mm, task)
    write_begin(mm)
    return 0


@native
def mm_write_unlock(mm, task):
    """Make the number even after all changes, then mmap_write_unlock."""
    write_end(mm)
    return write_unlock(mm, task)


@native
def mm_write_downgrade(mm, task):
    """Make the number even after all changes, then mmap_write_downgrade."""
    write_end(mm)
    return write_downgrade(mm, task)


# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def copy_vma(mm, task, vma):
    """Copy the VMA as it is now to the task's own record."""
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
def find_vma_speculative(mm, task, addr):
    """A VMA found without a lock, inside the RCU section in which it is valid; NULL, outside any section, if the fault
    needs the lock."""
    if task >= TASKS:
        return NULL
    rcu_read_lock(mm, task)
    seq = raw_read(mm)
    vma = NULL
    if not seq & 1:
        vma = walk(mm, addr)
    if vma != NULL:
        copy_vma(mm, task, vma)
        if not retry(mm, seq) and usable(mm, COPY(mm, task), addr):
            COPY(mm, task).seq = seq
            return vma
    rcu_read_unlock(mm, task)
    return NULL


@native
def valid(mm, task, vma, site):
    """Whether a speculation may commit here. Never where a table is missing; at the end it has already committed."""
    if not TASK(mm, task).speculative or site == SITE_END:
        return 1
    if site == SITE_TABLE:
        return 0
    return 1 - retry(mm, COPY(mm, task).seq)


HOOKS = {
    **speculation.HOOKS,
    "mmap_write_lock": mm_write_lock,
    "mmap_write_unlock": mm_write_unlock,
    "mmap_write_downgrade": mm_write_downgrade,
    "vma_valid": valid,
    "vma_free": free_vma,
    "table_release": release_table,
}


def protocol(**changed):
    """The protocol, with some hooks replaced (None: the default)."""
    bind = {"speculate": find_vma_speculative, "speculation_end": section_end}
    return Protocol((COPY,), bind, **exchanged(HOOKS, changed))


@hookimpl
def benchframe_strategies():
    """The strategy over the tree with gaps, as in 5.10 and 5.17."""
    return [
        Strategy(
            "spf_mmseq",
            "speculative faults: a sequence count per mm, VMA copied, over rb-tree, 2021",
            "rbtree_gap",
            protocol=protocol(),
            scenarios=(speculation.PART,),
        )
    ]
