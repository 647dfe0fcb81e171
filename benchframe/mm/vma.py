"""Allocate, link, split, merge and grow VMAs: mm/vma.c."""

from benchframe.dialect import NULL, READ_ONCE, native
from benchframe.mm.flags import (
    ENOMEM,
    FILE_CLOSES,
    RULE_ANON_VMA_616,
    VM_ACCESS,
    VM_GROWSDOWN,
    VM_GUARD,
    VM_IGNORE_MERGE,
    VM_SPECIAL,
)
from benchframe.mm.hooks import (
    SITE_MAPS,
    cache_linked,
    cache_merge,
    cache_unlinked,
    find_vma,
    get_next_vma,
    index_erase,
    index_insert,
    index_prepare,
    index_resize,
    lock_vma_range,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    show_map,
    unlock_vma_range,
    vma_attach,
    vma_detach,
    vma_free,
    vma_start_write,
    vma_valid,
)
from benchframe.mm.layout import ARENA_VMA, FILE, MM, PAGE_SHIFT, PAGE_SIZE, VMA, arena_alloc, arena_free
from benchframe.mm.pagetable import spin_lock, spin_unlock

# ----------------------------------------------------------------------------------------------------------------------
# VMA records: allocation, the sorted list, linking into and unlinking from the index (mm/mmap.c, 2.6.32 to 6.0).


@native
def page_align(length):
    """Round up to whole pages."""
    return (length + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1)


@native
def vma_alloc(mm, start, end):
    """A new VMA of ``mm`` for [start, end), with every other field zero except vm_mm, and the index prepared to store
    it; NULL if there is no memory for either."""
    vma = arena_alloc(mm, ARENA_VMA)
    if int(vma == NULL) | index_prepare(mm, start, end):  # one branch: a strategy without prepare pays nothing
        arena_free(mm, ARENA_VMA, vma)  # NULL, too: a full slab makes the run void
        return NULL
    v = VMA(mm, vma)
    v.vm_start = start
    v.vm_end = end
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
    """Free the record at once (kmem_cache_free)."""
    VMA(mm, vma).vm_mm = 0
    return arena_free(mm, ARENA_VMA, vma)


@native
def vma_prev_of(mm, vma):
    """The VMA before ``vma``; for NULL the last one."""
    if vma == NULL:
        return mm.last_vma
    return VMA(mm, vma).vm_prev


@native
def vma_next_of(mm, prev):
    """The VMA after ``prev``; for NULL the first one."""
    if prev == NULL:
        return mm.mmap
    return VMA(mm, prev).vm_next


@native
def list_insert(mm, vma, prev):
    """Insert ``vma`` into the list after ``prev`` (NULL: first)."""
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
    """Remove ``vma`` from the list; its own links keep their values."""
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
    return vma_linked(mm, vma)


@native
def vma_linked(mm, vma):
    """``vma`` is on the list and in the index: count it, and tell the search for holes and the cache."""
    mm.map_count += 1
    following = VMA(mm, vma).vm_next
    if following != NULL and VMA(mm, following).vm_flags & VM_GROWSDOWN:
        note_hole(mm, vma)  # a VMA inside a guard gap: the hole below it now extends further up
    cache_linked(mm, vma)
    return 0


@native
def vma_resize(mm, vma, start, end):
    """Change ``vma``'s bounds; vm_pgoff follows vm_start. Neighbours and order do not change."""
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
    """A merge has extended another VMA over ``vma``: remove it (remove_next in __vma_adjust)."""
    v = VMA(mm, vma)
    prev = v.vm_prev
    list_remove(mm, vma)
    index_erase(mm, vma)
    v.detached = 1
    vma_detach(mm, vma)
    mm.map_count -= 1
    cache_unlinked(mm, vma, prev)
    unlink_anon_vmas(mm, vma)
    vma_free(mm, vma)
    return 0


@native
def start_gap(mm, vma):
    """The start of the space that ``vma`` needs: a stack keeps its guard gap free (vm_start_gap)."""
    v = VMA(mm, vma)
    start = v.vm_start
    if v.vm_flags & VM_GROWSDOWN:
        start -= mm.stack_guard_gap
        if start < 0:
            start = 0
    return start


@native
def note_hole(mm, following):
    """Space below ``following`` (NULL: below mmap_base) became free: the hole search must look there again."""
    top = mm.mmap_base
    if following != NULL:
        top = min(top, start_gap(mm, following))
    if top > mm.hole_hint:
        mm.hole_hint = top
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# The part of anon_vma that merges depend on: identities, singular chains, reuse from a neighbour (mm/rmap.c, mm/vma.c).
#
# The model gives each anon_vma a number and keeps the length of a VMA's chain: 1 is singular, more means that the
# VMA came through fork and inherits its parent's anon_vmas.


@native
def anon_vma_new(mm):
    """A number that no VMA of any mm has."""
    root = MM(mm, 1)
    root.nr_anon_vmas += 1
    return root.nr_anon_vmas


@native
def anon_vma_clone(mm, target, source):
    """``target`` has been given the anon_vma of ``source``. Here the numbers above say it all; with an allocator there
    are records (:mod:`benchframe.mm.kmem`)."""
    return 0


@native
def anon_vma_fork(mm, copy, vma):
    """``copy``, a child's VMA, has been given an anon_vma of its own. Likewise."""
    return 0


@native
def unlink_anon_vmas(mm, vma):
    """``vma`` leaves its anon_vmas: it is about to be freed, or mremap has taken its pages. Likewise."""
    return 0


@native
def anon_vma_compatible(mm, a, b):
    """Whether a later mprotect could merge ``a`` with the ``b`` above it (anon_vma_compatible)."""
    va = VMA(mm, a)
    vb = VMA(mm, b)
    if va.vm_end != vb.vm_start or va.vm_file != vb.vm_file:
        return 0
    if (va.vm_flags ^ vb.vm_flags) & ~(VM_ACCESS | VM_IGNORE_MERGE):
        return 0
    if vb.vm_pgoff != va.vm_pgoff + ((vb.vm_start - va.vm_start) >> PAGE_SHIFT):
        return 0
    return 1


@native
def anon_vma_prepare(mm, task, vma):
    """First anonymous page of a private VMA: use a neighbour's anon_vma if a merge may follow, the next VMA's first
    (find_mergeable_anon_vma), else a new one. Caller holds mmap_lock for read. ``task`` 0: nobody in particular."""
    if VMA(mm, vma).anon_vma != 0:
        return 0
    spin_lock(mm, mm.pgd)
    if VMA(mm, vma).anon_vma == 0:
        anon_vma_choose(mm, vma)
    spin_unlock(mm, mm.pgd)
    return 0


@native
def anon_vma_choose(mm, vma):
    """The part of anon_vma_prepare under page_table_lock (which is the top table's own lock)."""
    v = VMA(mm, vma)
    v.anon_vma_chain = 1
    above = v.vm_next
    if above != NULL:
        n = VMA(mm, above)
        if n.anon_vma != 0 and n.anon_vma_chain == 1 and anon_vma_compatible(mm, vma, above):
            v.anon_vma = n.anon_vma
            return 0
    below = v.vm_prev
    if below != NULL:
        p = VMA(mm, below)
        if p.anon_vma != 0 and p.anon_vma_chain == 1 and anon_vma_compatible(mm, below, vma):
            v.anon_vma = p.anon_vma
            return 0
    v.anon_vma = anon_vma_new(mm)
    return 0


@native
def anon_vma_dup(mm, target, source):
    """``target`` takes over pages of ``source``, so it needs its anon_vma (dup_anon_vma)."""
    t = VMA(mm, target)
    s = VMA(mm, source)
    if s.anon_vma != 0 and t.anon_vma == 0:
        t.anon_vma = s.anon_vma
        t.anon_vma_chain = s.anon_vma_chain
        anon_vma_clone(mm, target, source)
    return 0


@native
def anon_vma_mergeable(mm, target, anon_vma, chain):
    """Whether ``target`` may absorb a range with ``anon_vma`` and a chain of that length (is_mergeable_anon_vma).

    6.16 lets an unfaulted VMA absorb a faulted one; before, the chain of ``target`` had to be singular, which that of
    an unfaulted VMA is not.
    """
    t = VMA(mm, target)
    if t.anon_vma == anon_vma:
        return 1
    if t.anon_vma != 0 and anon_vma != 0:
        return 0
    if mm.rules & RULE_ANON_VMA_616:
        if t.anon_vma == 0:
            return chain <= 1
        return t.anon_vma_chain <= 1
    return t.anon_vma_chain == 1


# ----------------------------------------------------------------------------------------------------------------------
# vma_merge: the eight cases (mm/mmap.c up to 6.9, mm/vma.c since; P prev, A range, C the VMA covering A, N next).
#
# ```
#       AAAA            A is new (mmap, brk, mremap's target)      CCCC   A is C's new attributes (mprotect, ...)
#   PPPP    NNNN  1  P grows over A and N, N goes             PPPPCCCCNNNN  6  A == C: P grows over C, N; both go
#   PPPPAAAA..    2  P grows over A                           PPPPCCCC      7  A == C: P grows over C; C goes
#     ..AAAANNNN  3  N grows down over A                          CCCCNNNN  8  A == C: N grows down over C; C goes
#                                                             CCCCAAAANNNN  4  A is C's tail: N grows down, C shrinks
#                                                             PPPPAAAACCCC  5  A is C's head: P grows, C shrinks
# ```
#
# What must fit: touching bounds, equal flags (but VM_IGNORE_MERGE), the same file object, linear offsets, compatible
# anon_vmas, and no VM_SPECIAL. The VMA that grows is told to the index before the one that gives way, so that no
# lookup ever falls between them.


@native
def can_merge(mm, other, vm_flags, vm_file):
    """Whether the attributes that do not depend on the position are equal (is_mergeable_vma)."""
    o = VMA(mm, other)
    if (o.vm_flags ^ vm_flags) & ~VM_IGNORE_MERGE:
        return 0
    return o.vm_file == vm_file


@native
def can_merge_after(mm, prev, start, vm_flags, anon_vma, chain, vm_file, pgoff):
    """Whether [start, ...) can be appended to ``prev`` (can_vma_merge_after)."""
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
    """Whether [start, end) can be put in front of ``following`` (can_vma_merge_before)."""
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
    """Whether the two neighbours of A, which both fit A, fit each other (are_anon_vmas_compatible)."""
    p = VMA(mm, prev).anon_vma
    n = VMA(mm, following).anon_vma
    return p == n or p == 0 or n == 0


@native
def has_close(mm, vma):
    """Whether ``vma`` has vm_ops->close: then a merge must not free it (can_merge_remove_vma)."""
    file = VMA(mm, vma).vm_file
    return file != NULL and FILE(mm, file).flags & FILE_CLOSES != 0


@native
def announce(mm, area, start, end):
    """Call the hook at the head of vma_merge, as the RFC does: from the VMA after the one that ends where A ends."""
    following = area
    if area != NULL and VMA(mm, area).vm_end == end:
        following = VMA(mm, area).vm_next
    cache_merge(mm, start, end, following)
    return 0


@native
def grow(mm, vma, start, end, vm_flags):
    """The surviving VMA takes over [start, end) and keeps sticky flags (vma_expand)."""
    vma_start_write(mm, vma)
    v = VMA(mm, vma)
    v.vm_flags |= vm_flags & VM_GUARD
    vma_resize(mm, vma, start, end)
    mm.nr_merges += 1
    return vma


@native
def vma_merge_new(mm, prev, start, end, vm_flags, anon_vma, chain, vm_file, pgoff, just_expand):
    """Cases 1, 2, 3: a new range in the hole after ``prev``. The surviving VMA, NULL if none can merge, or if there is
    no memory for it.

    ``anon_vma`` and ``chain`` are 0 except for copy_vma. ``just_expand``: only ``prev`` may grow (brk).
    """
    if vm_flags & VM_SPECIAL:
        return NULL
    following = vma_next_of(mm, prev)
    announce(mm, following, start, end)
    left = can_merge_after(mm, prev, start, vm_flags, anon_vma, chain, vm_file, pgoff)
    right = 0
    if not just_expand:
        right = can_merge_before(mm, following, start, end, vm_flags, anon_vma, chain, vm_file, pgoff)
        if left and right and (not sides_compatible(mm, prev, following) or has_close(mm, following)):
            right = 0
    if not (left | right) or index_prepare(mm, start, end):
        return NULL
    if left and right:  # case 1
        vma_start_write(mm, following)
        anon_vma_dup(mm, prev, following)
        grow(mm, prev, VMA(mm, prev).vm_start, VMA(mm, following).vm_end, vm_flags | VMA(mm, following).vm_flags)
        vma_remove_merged(mm, following)
        return prev
    if left:  # case 2
        return grow(mm, prev, VMA(mm, prev).vm_start, end, vm_flags)
    return grow(mm, following, start, VMA(mm, following).vm_end, vm_flags)  # case 3


@native
def vma_merge_changed(mm, vma, start, end, vm_flags, pgoff):
    """Cases 4 to 8: [start, end) of ``vma`` is to get ``vm_flags``. The surviving VMA, which now covers the range; NULL
    if none can merge (then the caller splits); -ENOMEM without memory for it. ``vma`` still has its old flags."""
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
    if at_left and at_right and has_close(mm, vma):  # nor could it free the next one, which has the same file
        return NULL
    if index_prepare(mm, start, end):
        return -ENOMEM
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


# ----------------------------------------------------------------------------------------------------------------------
# Split a VMA; change the flags of a part of one (mm/mmap.c __split_vma; mm/vma.c vma_modify).


@native
def split_vma_unchecked(mm, vma, addr, new_below):
    """Cut ``vma`` at ``addr``; the new VMA takes the lower part if ``new_below``, else the upper one.

    ```
    new_below:  [ new      |vma       ]        else:  [ vma      |new       ]
                start     addr      end               start     addr      end
    ```
    0, or -ENOMEM without memory: then nothing has changed. The count may exceed the limit by this one (munmap relies on
    it).
    """
    v = VMA(mm, vma)
    start = v.vm_start
    end = v.vm_end
    below = int(new_below != 0)  # 1 or 0, to choose without a branch: the kernel copies both bounds and changes one
    low = addr + (start - addr) * below
    new = vma_alloc(mm, low, end + (addr - end) * below)
    if new == NULL:
        return -ENOMEM
    n = VMA(mm, new)
    n.vm_flags = v.vm_flags
    n.vm_file = v.vm_file
    n.anon_vma = v.anon_vma
    n.anon_vma_chain = v.anon_vma_chain
    anon_vma_clone(mm, new, vma)
    n.vm_pgoff = v.vm_pgoff + ((low - start) >> PAGE_SHIFT)
    vma_start_write(mm, vma)
    if new_below:
        prev = v.vm_prev
        vma_resize(mm, vma, addr, end)
        vma_link(mm, new, prev)
    else:
        vma_resize(mm, vma, start, addr)
        vma_link(mm, new, vma)
    mm.nr_splits += 1
    return 0


@native
def split_vma(mm, vma, addr, new_below):
    """As split_vma_unchecked, but refused with -ENOMEM at the map_count limit (split_vma)."""
    if mm.map_count >= mm.max_map_count:
        return -ENOMEM
    return split_vma_unchecked(mm, vma, addr, new_below)


@native
def vma_set_flags(mm, vma, start, end, vm_flags):
    """Give [start, end) of ``vma`` the flags ``vm_flags``: merge if possible, else split (vma_modify_flags).

    The VMA that now covers exactly that range or more, or -ENOMEM; then at most a first split has happened, as in the
    kernel.
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


# ----------------------------------------------------------------------------------------------------------------------
# Stack growth: a fault below a VM_GROWSDOWN VMA (mm/mmap.c expand_downwards, acct_stack_growth; 4.12 guard gap).


@native
def expand_stack(mm, vma, addr):
    """Grow ``vma`` down to ``addr``'s page: 1 if it now covers it, 0 if that is forbidden (the fault gets a SIGSEGV).

    Refused: not VM_GROWSDOWN, below mmap_min_addr, within stack_guard_gap of an accessible VMA that is not itself a
    stack, more than RLIMIT_STACK, or more than vm_pgoff pages. The anon_vma is allocated before the limits are checked,
    so a refused growth leaves one behind.
    """
    v = VMA(mm, vma)
    addr &= ~(PAGE_SIZE - 1)
    if not v.vm_flags & VM_GROWSDOWN or addr < mm.mmap_min_addr:
        return 0
    prev = v.vm_prev
    if prev != NULL:
        p = VMA(mm, prev)
        if not p.vm_flags & VM_GROWSDOWN and p.vm_flags & VM_ACCESS and addr - p.vm_end < mm.stack_guard_gap:
            return 0
        if p.vm_end > addr:
            return 0
    anon_vma_prepare(mm, 0, vma)
    vma_start_write(mm, vma)
    spin_lock(mm, mm.pgd)
    grown = 1
    if addr < v.vm_start:  # no other fault was faster
        grown = grow_down(mm, vma, addr)
    spin_unlock(mm, mm.pgd)
    return grown


@native
def grow_down(mm, vma, addr):
    """The part of expand_stack under page_table_lock, which keeps two faults from growing one stack at once."""
    v = VMA(mm, vma)
    if v.vm_end - addr > mm.stack_limit or (
        int((v.vm_start - addr) >> PAGE_SHIFT > v.vm_pgoff) | index_prepare(mm, addr, v.vm_end)
    ):
        return 0
    vma_resize(mm, vma, addr, v.vm_end)
    return 1


@native
def grow_as_held(mm, task, vma, addr):
    """vma_grow up to 6.4: under whatever the fault holds, mmap_lock for read."""
    if expand_stack(mm, vma, addr):
        return vma
    return NULL


@native
def grow_under_write_lock(mm, task, vma, addr):
    """vma_grow since 6.5 (lock_mm_and_find_vma): release mmap_lock, take it for write, look again, grow, downgrade.

    The lock cannot be upgraded: anything found under it may be gone, so ``vma`` is not used.
    """
    mmap_read_unlock(mm, task)
    mmap_write_lock(mm, task)
    vma = find_vma(mm, task, addr)
    if vma != NULL and VMA(mm, vma).vm_start > addr and not expand_stack(mm, vma, addr):
        vma = NULL
    mmap_write_downgrade(mm, task)
    return vma


# ----------------------------------------------------------------------------------------------------------------------
# Reading all VMAs of an mm, as /proc/PID/maps and PROCMAP_QUERY do (fs/proc/task_mmu.c).

COUNT_SHIFT = 32
"""The answer of a walk: the number of VMAs from this bit on, below it the checksum of their ranges."""
CHECKSUM = (1 << COUNT_SHIFT) - 1
PRIME = 16777619
"""The multiplier of FNV-1, which the checksum follows with words of pages in the place of bytes."""


@native
def checksum_of(seen, start, end):
    """The checksum ``seen`` of the VMAs before, with one more."""
    seen = ((seen ^ (start >> PAGE_SHIFT)) * PRIME) & CHECKSUM
    return ((seen ^ (end >> PAGE_SHIFT)) * PRIME) & CHECKSUM


@native
def read_maps(mm, task, low, length, lines):
    """Read every VMA in the order of addresses; ``lines`` VMAs with each read(2), all with one if 0.

    Returns the number of VMAs and the checksum of their ranges (COUNT_SHIFT) without those inside [low, low + length),
    which other tasks may change meanwhile; -1 if the addresses went backwards. Between two reads nothing is held. The
    kernel's promise (Documentation/filesystems/proc.rst): addresses never go backwards, and what is mapped all the time
    is shown. O(VMAs) under mmap_lock, O(VMAs log VMAs) if each is looked up.
    """
    addr = 0
    count = 0
    seen = 0
    backwards = 0
    vma = 1
    while vma != NULL:
        left = lines
        lock_vma_range(mm, task)
        vma = get_next_vma(mm, task, NULL, addr)
        while vma != NULL:
            v = VMA(mm, vma)
            start = READ_ONCE(v, "vm_start")
            end = READ_ONCE(v, "vm_end")
            if vma_valid(mm, task, vma, SITE_MAPS):
                show_map(mm, task, start, end)
                if end <= addr:
                    backwards = 1
                if start < low or end > low + length:
                    count += 1
                    seen = checksum_of(seen, start, end)
                addr = end
                left -= 1
                if left == 0:
                    break
            vma = get_next_vma(mm, task, vma, addr)
        unlock_vma_range(mm, task, vma)
    if backwards:
        return -1
    return count << COUNT_SHIFT | seen
