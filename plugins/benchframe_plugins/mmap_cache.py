"""One pointer per mm to the last VMA found: `mm->mmap_cache`, Linux 2.1/2.2 to 3.14, in front of the rb-tree.

Set: find_vma stores every result of the tree, including a VMA above a hole; a hit stores nothing. It is used only for
an address inside the cached VMA: for one in the hole below it the tree must answer, since another VMA may lie in
between.

Invalidated: munmap clears it (do_munmap, detach_vmas_to_be_unmapped); a VMA that a merge removes is replaced by its
predecessor (__vma_unlink; 2.2's merge_segments cleared it); exit_mmap cleared it up to 2.6.14 (later no lookup could
follow); a forked child starts with an empty cache. Not when bounds move, flags change or the stack grows: the object
stays valid, and the test re-reads its bounds.

Cost: a hit is one load of the mm's line and one of the VMA's. A miss adds one store to a line that every thread of the
process reads, which is why it was replaced: with many threads the line bounces between CPUs, and ebizzy hits under 2 %.
Published hit rates: 35 % by the comment in find_vma, 45-50 % on desktops (2013), 75 % on a kernel build, 1 % on ebizzy
(commit 615d6e8756c8, which replaced it in 3.15).

Concurrency: readers under mmap_lock race to store; it is a hint, and each reader tests the value that it loaded.
Sources: Linux 2.4.0, 2.4.17 and 2.6.32 mm/mmap.c (find_vma, __vma_unlink, do_munmap, detach_vmas_to_be_unmapped,
exit_mmap); "mm: exit_mmap need not reset", 25 Sep 2005 (2.6.15).
"""

from benchframe.api import Cache, Strategy, hookimpl, native
from benchframe.kernel import NULL, READ_ONCE, VMA, WRITE_ONCE


@native
def find_cached(mm, task, addr):
    """The first part of find_vma: the last VMA found, if it contains ``addr``."""
    vma = READ_ONCE(mm, "mmap_cache")
    if vma != NULL and VMA(mm, vma).vm_start <= addr and addr < VMA(mm, vma).vm_end:
        return vma
    return NULL


@native
def store(mm, task, addr, vma):
    """The last part of find_vma: remember the VMA."""
    WRITE_ONCE(mm, "mmap_cache", vma)
    return 0


@native
def detached(mm):
    """detach_vmas_to_be_unmapped: "Kill the cache"."""
    mm.mmap_cache = NULL
    mm.nr_invalidations += 1
    return 0


@native
def unlinked(mm, vma, prev):
    """__vma_unlink: cache the predecessor instead."""
    if mm.mmap_cache == vma:
        mm.mmap_cache = prev
        mm.nr_invalidations += 1
    return 0


@native
def mm_exit(mm):
    """exit_mmap."""
    mm.mmap_cache = NULL
    return 0


@hookimpl
def benchframe_strategies():
    """The cache in front of the plain rb-tree."""
    cache = Cache(find=find_cached, store=store, detached=detached, unlinked=unlinked, mm_exit=mm_exit)
    return [Strategy("mmap_cache", "last VMA found, one per mm, 2.2 to 3.14", index="rbtree", cache=cache)]
