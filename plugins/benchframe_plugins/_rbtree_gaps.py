"""The largest hole of each subtree, Linux 3.8 to 6.0: rb_subtree_gap kept true (invariant 5), and the search it serves.

What it is for: :mod:`benchframe_plugins.rbtree`. A node's own gap is the hole below it: from the end of the VMA before
it to its start, less a stack's guard gap as since 4.12 (1be7107fbe18; from 3.8 to 4.11 a guard page belonged to the
stack). Insertions, erasures, moved bounds and rotations recompute what they touch.
Source: Linux 3.8 and 4.12 mm/mmap.c vma_compute_subtree_gap, vma_gap_update, unmapped_area_topdown.
"""

from benchframe.api import NULL, VMA, native, start_gap
from benchframe_plugins._rbtree_balance import rb_parent


@native
def gap_floor(mm, vma):
    """Where the hole below ``vma`` begins."""
    prev = VMA(mm, vma).vm_prev
    if prev == NULL:
        return 0
    return VMA(mm, prev).vm_end


@native
def gap_compute(mm, node):
    """vma_compute_subtree_gap: the largest of the node's own gap and its children's."""
    v = VMA(mm, node)
    gap = max(start_gap(mm, node) - gap_floor(mm, node), 0)
    if v.rb_left != NULL:
        gap = max(gap, VMA(mm, v.rb_left).rb_subtree_gap)
    if v.rb_right != NULL:
        gap = max(gap, VMA(mm, v.rb_right).rb_subtree_gap)
    return gap


@native
def gap_changed(mm, node):
    """One node again, after a rotation."""
    VMA(mm, node).rb_subtree_gap = gap_compute(mm, node)
    return 0


@native
def gap_propagate(mm, node):
    """From ``node`` to the root, all the way: after an erase an ancestor may be stale above a node that is not."""
    while node != NULL:
        VMA(mm, node).rb_subtree_gap = gap_compute(mm, node)
        node = rb_parent(mm, node)
    return 0


@native
def gap_resize(mm, vma, old_start, old_end):
    """vma_gap_update of the VMA and of the one above it."""
    gap_propagate(mm, vma)
    if VMA(mm, vma).vm_next != NULL:
        gap_propagate(mm, VMA(mm, vma).vm_next)
    return 0


@native
def gap_wrong(mm, node):
    """Invariant 5."""
    return VMA(mm, node).rb_subtree_gap != gap_compute(mm, node)


@native
def gap_below(mm, length, low, high):
    """unmapped_area_topdown: the highest hole that fits, by descending only where the subtree has one. O(log n)."""
    top_limit = high - length
    if low > top_limit:
        return -1
    last = mm.last_vma
    if last == NULL or VMA(mm, last).vm_end <= top_limit:
        return top_limit
    node = mm.mm_rb
    if VMA(mm, node).rb_subtree_gap < length:
        return -1
    descend = 1
    while node != NULL:
        v = VMA(mm, node)
        floor = max(gap_floor(mm, node), low)
        if descend and floor <= top_limit and v.rb_right != NULL and VMA(mm, v.rb_right).rb_subtree_gap >= length:
            node = v.rb_right
            continue
        top = min(start_gap(mm, node), high)
        if top - low < length:
            return -1
        if top - floor >= length:
            return top - length
        if v.rb_left != NULL and VMA(mm, v.rb_left).rb_subtree_gap >= length:
            node = v.rb_left
            descend = 1
            continue
        child = node
        node = rb_parent(mm, node)
        while node != NULL and VMA(mm, node).rb_left == child:
            child = node
            node = rb_parent(mm, node)
        descend = 0
    return -1
