"""vma_merge: the eight cases (mm/mmap.c up to 6.9, mm/vma.c since; P prev, A range, C the VMA covering A, N next).

```
      AAAA            A is new (mmap, brk, mremap's target)      CCCC   A is C's new attributes (mprotect, ...)
  PPPP    NNNN  1  P grows over A and N, N goes             PPPPCCCCNNNN  6  A == C: P grows over C, N; both go
  PPPPAAAA..    2  P grows over A                           PPPPCCCC      7  A == C: P grows over C; C goes
    ..AAAANNNN  3  N grows down over A                          CCCCNNNN  8  A == C: N grows down over C; C goes
                                                            CCCCAAAANNNN  4  A is C's tail: N grows down, C shrinks
                                                            PPPPAAAACCCC  5  A is C's head: P grows, C shrinks
```

What must fit: touching bounds, equal flags (but VM_IGNORE_MERGE), the same file object, linear offsets, compatible
anon_vmas, and no VM_SPECIAL. The VMA that grows is told to the index before the one that gives way, so that no
lookup ever falls between them.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.anon import anon_vma_dup, anon_vma_mergeable
from benchframe.mm.flags import VM_GUARD, VM_IGNORE_MERGE, VM_SPECIAL
from benchframe.mm.hooks import cache_merge, vma_start_write
from benchframe.mm.layout import PAGE_SHIFT, VMA
from benchframe.mm.records import vma_next_of, vma_remove_merged, vma_resize


@native
def can_merge(mm, other, vm_flags, vm_file):
    """Do the attributes that have nothing to do with place fit? (is_mergeable_vma)"""
    o = VMA(mm, other)
    if (o.vm_flags ^ vm_flags) & ~VM_IGNORE_MERGE:
        return 0
    return o.vm_file == vm_file


@native
def can_merge_after(mm, prev, start, vm_flags, anon_vma, chain, vm_file, pgoff):
    """May [start, ...) be appended to ``prev``? (can_vma_merge_after)"""
    if prev == NULL:
        return 0
    p = VMA(mm, prev)
    if p.vm_end != start or p.vm_pgoff + ((p.vm_end - p.vm_start) >> PAGE_SHIFT) != pgoff:
        return 0
    if not can_merge(mm, prev, vm_flags, vm_file):
        return 0
    return anon_vma_mergeable(mm, prev, anon_vma, chain)


@native
def can_merge_before(mm, following, start, end, vm_flags, anon_vma, chain, vm_file, pgoff):
    """May [start, end) be put in front of ``following``? (can_vma_merge_before)"""
    if following == NULL:
        return 0
    n = VMA(mm, following)
    if n.vm_start != end or n.vm_pgoff != pgoff + ((end - start) >> PAGE_SHIFT):
        return 0
    if not can_merge(mm, following, vm_flags, vm_file):
        return 0
    return anon_vma_mergeable(mm, following, anon_vma, chain)


@native
def sides_compatible(mm, prev, following):
    """Both sides fit A; do they fit each other? (are_anon_vmas_compatible)"""
    p = VMA(mm, prev).anon_vma
    n = VMA(mm, following).anon_vma
    return p == n or p == 0 or n == 0


@native
def announce(mm, area, start, end):
    """The seed's hook at the head of vma_merge: it waits from the VMA after the one that ends where A ends."""
    following = area
    if area != NULL and VMA(mm, area).vm_end == end:
        following = VMA(mm, area).vm_next
    cache_merge(mm, start, end, following)
    return 0


@native
def grow(mm, vma, start, end, vm_flags):
    """The survivor takes [start, end); sticky flags stick (vma_expand)."""
    vma_start_write(mm, vma)
    v = VMA(mm, vma)
    v.vm_flags |= vm_flags & VM_GUARD
    vma_resize(mm, vma, start, end)
    mm.nr_merges += 1
    return vma


@native
def vma_merge_new(mm, prev, start, end, vm_flags, anon_vma, chain, vm_file, pgoff, just_expand):
    """Cases 1, 2, 3: a new range in the hole after ``prev``. The survivor, NULL if nothing fits.

    ``anon_vma`` and ``chain`` are 0 but for copy_vma. ``just_expand``: only ``prev`` may grow (brk).
    """
    if vm_flags & VM_SPECIAL:
        return NULL
    following = vma_next_of(mm, prev)
    announce(mm, following, start, end)
    left = can_merge_after(mm, prev, start, vm_flags, anon_vma, chain, vm_file, pgoff)
    right = 0
    if not just_expand:
        right = can_merge_before(mm, following, start, end, vm_flags, anon_vma, chain, vm_file, pgoff)
        if left and right and not sides_compatible(mm, prev, following):
            right = 0
    if left and right:  # case 1
        vma_start_write(mm, following)
        anon_vma_dup(mm, prev, following)
        grow(mm, prev, VMA(mm, prev).vm_start, VMA(mm, following).vm_end, vm_flags | VMA(mm, following).vm_flags)
        vma_remove_merged(mm, following)
        return prev
    if left:  # case 2
        return grow(mm, prev, VMA(mm, prev).vm_start, end, vm_flags)
    if right:  # case 3
        return grow(mm, following, start, VMA(mm, following).vm_end, vm_flags)
    return NULL


@native
def vma_merge_changed(mm, vma, start, end, vm_flags, pgoff):
    """Cases 4 to 8: [start, end) of ``vma`` is to get ``vm_flags``. The survivor that now covers the range, NULL
    if nothing fits (then the caller splits). ``vma`` still has its old flags."""
    c = VMA(mm, vma)
    at_left = start == c.vm_start
    at_right = end == c.vm_end
    area = vma
    if not at_left:
        area = c.vm_next
    if vm_flags & VM_SPECIAL:
        return NULL
    announce(mm, area, start, end)
    prev = c.vm_prev
    following = c.vm_next
    left = 0
    right = 0
    if at_left:
        left = can_merge_after(mm, prev, start, vm_flags, c.anon_vma, c.anon_vma_chain, c.vm_file, pgoff)
    if at_right:
        right = can_merge_before(mm, following, start, end, vm_flags, c.anon_vma, c.anon_vma_chain, c.vm_file, pgoff)
        if left and right and not sides_compatible(mm, prev, following):
            right = 0
    if not left and not right:
        return NULL
    vma_start_write(mm, vma)
    sticky = vm_flags | c.vm_flags
    if left and right:  # case 6
        vma_start_write(mm, following)
        if VMA(mm, following).anon_vma != 0:
            anon_vma_dup(mm, prev, following)
        else:
            anon_vma_dup(mm, prev, vma)
        grow(mm, prev, VMA(mm, prev).vm_start, VMA(mm, following).vm_end, sticky | VMA(mm, following).vm_flags)
        vma_remove_merged(mm, vma)
        vma_remove_merged(mm, following)
        return prev
    if left:
        anon_vma_dup(mm, prev, vma)
        grow(mm, prev, VMA(mm, prev).vm_start, end, sticky)
        if at_right:  # case 7
            vma_remove_merged(mm, vma)
        else:  # case 5
            vma_resize(mm, vma, end, c.vm_end)
        return prev
    anon_vma_dup(mm, following, vma)
    grow(mm, following, start, VMA(mm, following).vm_end, sticky)
    if at_left:  # case 8
        vma_remove_merged(mm, vma)
    else:  # case 4
        vma_resize(mm, vma, c.vm_start, start)
    return following
