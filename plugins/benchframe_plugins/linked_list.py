"""The sorted linked list, Linux 1.0 to 1.1.82: no index at all.

History: in 1.0 a fault walked the task's VMAs in address order (do_no_page, mm/memory.c). The list survived as a second
structure beside every tree, until 6.1.

Layout: vm_next in the VMA; the head is mm->mmap. A VMA of 1.0 had 36 bytes; here it is the model's, whose first line
holds vm_end and vm_next, so a visited VMA costs one line.

Lookup: from the lowest VMA on, the first with `addr < vm_end`: n / 2 VMAs for a random one, each load waiting for the
one before. Nothing shared is written. Below some 10 VMAs it keeps up with a tree.

Update: the model maintains the list itself; nothing more to do, and no points of invalidation.

Concurrency: one CPU, no preemption in the kernel, so there was no lock; here it is mmap_lock, the model's default.
1.0's own rule for the stack (grow if nearer to it than to the VMA below) and its whole-list merge_segments are not
modelled: the address space follows today's rules for every strategy.
Sources: Linux 1.0 mm/memory.c do_no_page, mm/mmap.c insert_vm_struct, include/linux/mm.h.
"""

from benchframe.api import Index, Strategy, hookimpl, native
from benchframe.kernel import NULL, VMA


@native
def list_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(n)."""
    vma = mm.mmap
    while vma != NULL and VMA(mm, vma).vm_end <= addr:
        vma = VMA(mm, vma).vm_next
    return vma


@native
def list_insert(mm, vma):
    """Nothing to do: the model has already put it on the list."""
    return 0


@native
def list_erase(mm, vma):
    """Nothing to do: the model has already taken it off the list."""
    return 0


@native
def list_check(mm):
    """0, or the number of the first broken invariant: 1 addresses ascend, 2 links agree. O(n)."""
    vma = mm.mmap
    prev = NULL
    while vma != NULL:
        v = VMA(mm, vma)
        if v.vm_prev != prev:
            return 2
        if v.vm_start >= v.vm_end or (prev != NULL and VMA(mm, prev).vm_end > v.vm_start):
            return 1
        prev = vma
        vma = v.vm_next
    return 0


MESSAGES = {1: "the list is not in order of address", 2: "vm_prev does not name the VMA before"}


@hookimpl
def benchframe_strategies():
    """The list alone."""
    index = Index(find=list_find, insert=list_insert, erase=list_erase, check=list_check)
    return [Strategy("linked_list", "walk of the sorted list, 1.0 to 1.1.82", index, check_messages=MESSAGES)]
