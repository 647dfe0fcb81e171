"""Splitting a VMA, and giving a part of one new flags (mm/mmap.c __split_vma; mm/vma.c vma_modify)."""

from benchframe.dialect import NULL, native
from benchframe.mm.flags import ENOMEM
from benchframe.mm.hooks import vma_start_write
from benchframe.mm.layout import PAGE_SHIFT, VMA
from benchframe.mm.merge import vma_merge_changed
from benchframe.mm.records import vma_alloc, vma_link, vma_resize


@native
def split_vma_unchecked(mm, vma, addr, new_below):
    """Cut ``vma`` at ``addr``; the new VMA takes the lower part if ``new_below``, else the upper one.

    ```
    new_below:  [ new      |vma       ]        else:  [ vma      |new       ]
                start     addr      end               start     addr      end
    ```
    0, or -ENOMEM if the slab is full. The count may exceed the limit by this one (munmap relies on it).
    """
    new = vma_alloc(mm)
    if new == NULL:
        return -ENOMEM
    v = VMA(mm, vma)
    n = VMA(mm, new)
    n.vm_flags = v.vm_flags
    n.vm_file = v.vm_file
    n.anon_vma = v.anon_vma
    n.anon_vma_chain = v.anon_vma_chain
    vma_start_write(mm, vma)
    start = v.vm_start
    end = v.vm_end
    if new_below:
        n.vm_start = start
        n.vm_end = addr
        n.vm_pgoff = v.vm_pgoff
        prev = v.vm_prev
        vma_resize(mm, vma, addr, end)
        vma_link(mm, new, prev)
    else:
        n.vm_start = addr
        n.vm_end = end
        n.vm_pgoff = v.vm_pgoff + ((addr - start) >> PAGE_SHIFT)
        vma_resize(mm, vma, start, addr)
        vma_link(mm, new, vma)
    mm.nr_splits += 1
    return 0


@native
def split_vma(mm, vma, addr, new_below):
    """As above, refused with -ENOMEM at the map_count limit (split_vma)."""
    if mm.map_count >= mm.max_map_count:
        return -ENOMEM
    return split_vma_unchecked(mm, vma, addr, new_below)


@native
def vma_set_flags(mm, vma, start, end, vm_flags):
    """Give [start, end) of ``vma`` the flags ``vm_flags``: merge if it fits, else split (vma_modify_flags).

    The VMA that now covers exactly that range or more, or -ENOMEM; then nothing but a first split may have
    happened, as in the kernel.
    """
    v = VMA(mm, vma)
    pgoff = v.vm_pgoff + ((start - v.vm_start) >> PAGE_SHIFT)
    merged = vma_merge_changed(mm, vma, start, end, vm_flags, pgoff)
    if merged != NULL:
        return merged
    if start > v.vm_start:
        error = split_vma(mm, vma, start, 1)
        if error != 0:
            return error
    if end < v.vm_end:
        error = split_vma(mm, vma, end, 0)
        if error != 0:
            return error
    vma_start_write(mm, vma)
    v.vm_flags = vm_flags
    return vma
