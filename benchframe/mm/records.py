"""VMA records: allocation, the sorted list, linking into the index and out of it (mm/mmap.c, 2.6.32 to 6.0)."""

from benchframe.dialect import NULL, native
from benchframe.mm.arena import arena_alloc, arena_free
from benchframe.mm.flags import VM_GROWSDOWN
from benchframe.mm.hooks import (
    cache_linked,
    cache_unlinked,
    index_erase,
    index_insert,
    index_resize,
    vma_attach,
    vma_detach,
    vma_free,
)
from benchframe.mm.layout import ARENA_VMA, PAGE_SHIFT, VMA


@native
def vma_alloc(mm):
    """A fresh VMA of ``mm`` with every field zero but vm_mm; NULL if the slab is full."""
    vma = arena_alloc(mm, ARENA_VMA)
    if vma == NULL:
        return NULL
    v = VMA(mm, vma)
    v.vm_mm = mm.id
    v.vm_next = NULL
    v.vm_prev = NULL
    v.rb_parent_color = 0
    v.rb_right = NULL
    v.rb_left = NULL
    v.rb_subtree_gap = 0
    v.anon_vma = 0
    v.anon_vma_chain = 0
    v.vm_private_data = 0
    v.cache_access = 0
    v.cache_wait = 0
    v.vm_lock_seq = 0
    v.vm_refcnt = 0
    v.vm_sequence = 0
    v.detached = 0
    v.strategy0 = 0
    v.strategy1 = 0
    return vma


@native
def vma_free_now(mm, vma):
    """Give the record back at once (kmem_cache_free)."""
    VMA(mm, vma).vm_mm = 0
    return arena_free(mm, ARENA_VMA, vma)


@native
def vma_prev_of(mm, vma):
    """The VMA before ``vma``; before NULL stands the last one."""
    if vma == NULL:
        return mm.last_vma
    return VMA(mm, vma).vm_prev


@native
def vma_next_of(mm, prev):
    """The VMA after ``prev``; after NULL stands the first one."""
    if prev == NULL:
        return mm.mmap
    return VMA(mm, prev).vm_next


@native
def list_insert(mm, vma, prev):
    """Put ``vma`` on the list after ``prev`` (NULL: first)."""
    v = VMA(mm, vma)
    following = vma_next_of(mm, prev)
    v.vm_prev = prev
    v.vm_next = following
    if prev == NULL:
        mm.mmap = vma
    else:
        VMA(mm, prev).vm_next = vma
    if following == NULL:
        mm.last_vma = vma
    else:
        VMA(mm, following).vm_prev = vma
    return 0


@native
def list_remove(mm, vma):
    """Take ``vma`` off the list; its own links keep their values."""
    v = VMA(mm, vma)
    if v.vm_prev == NULL:
        mm.mmap = v.vm_next
    else:
        VMA(mm, v.vm_prev).vm_next = v.vm_next
    if v.vm_next == NULL:
        mm.last_vma = v.vm_prev
    else:
        VMA(mm, v.vm_next).vm_prev = v.vm_prev
    return 0


@native
def vma_link(mm, vma, prev):
    """Make a complete ``vma`` visible: list, index, count (vma_link). Caller holds mmap_lock for write."""
    vma_attach(mm, vma)
    list_insert(mm, vma, prev)
    index_insert(mm, vma)
    mm.map_count += 1
    following = VMA(mm, vma).vm_next
    if following != NULL and VMA(mm, following).vm_flags & VM_GROWSDOWN:
        note_hole(mm, vma)  # a VMA inside a guard gap: the hole below it now reaches further up
    cache_linked(mm, vma)
    return 0


@native
def vma_resize(mm, vma, start, end):
    """Move ``vma``'s bounds; vm_pgoff moves with vm_start. Neighbours and order stay."""
    v = VMA(mm, vma)
    old_start = v.vm_start
    old_end = v.vm_end
    v.vm_pgoff += (start - old_start) >> PAGE_SHIFT
    v.vm_start = start
    v.vm_end = end
    index_resize(mm, vma, old_start, old_end)
    return 0


@native
def vma_remove_merged(mm, vma):
    """A merge has grown another VMA over ``vma``: it goes (remove_next in __vma_adjust)."""
    v = VMA(mm, vma)
    prev = v.vm_prev
    list_remove(mm, vma)
    index_erase(mm, vma)
    v.detached = 1
    vma_detach(mm, vma)
    mm.map_count -= 1
    cache_unlinked(mm, vma, prev)
    vma_free(mm, vma)
    return 0


@native
def start_gap(mm, vma):
    """Where the space that ``vma`` needs begins: a stack keeps its guard gap free (vm_start_gap)."""
    v = VMA(mm, vma)
    start = v.vm_start
    if v.vm_flags & VM_GROWSDOWN:
        start -= mm.stack_guard_gap
        if start < 0:
            start = 0
    return start


@native
def note_hole(mm, following):
    """Space below ``following`` (NULL: below mmap_base) was given up: the hole search must look there again."""
    top = mm.mmap_base
    if following != NULL:
        top = min(top, start_gap(mm, following))
    if top > mm.hole_hint:
        mm.hole_hint = top
    return 0
