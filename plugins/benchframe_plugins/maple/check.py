"""The maple tree's invariants, in the kernel's terms (lib/maple_tree.c mt_validate).

:mod:`benchframe_plugins.maple` lists them with their numbers.
"""

from benchframe.api import native
from benchframe.kernel import NULL, VMA
from benchframe_plugins.maple.node import (
    ARANGE,
    INNER_GAPS,
    INNER_META,
    INNER_MIN,
    INNER_SLOTS,
    LEAF_LAST,
    LEAF_MIN,
    MT_MAX,
    PIVOTS,
    ROOT,
    WORD,
    ma_data_end,
    ma_gap,
    mas_leaf,
    mas_next_node,
    mas_node_min,
    mas_pivot,
    mt_base,
    mt_leaf,
    mt_slots,
)


@native
def mt_parent_wrong(mm, enode):
    """Invariant 4 at one node."""
    parent = WORD(mm, mt_base(enode)).word
    if parent == ROOT:
        return int(enode != mm.mm_rb)
    slot = (parent >> 3) & 31
    if slot > WORD(mm, mt_base(parent) + INNER_META).word:
        return 1
    return int(WORD(mm, mt_base(parent) + INNER_SLOTS + slot).word != enode)


@native
def mt_rightmost(mm, enode):
    """Whether a node ends where the address space ends."""
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        base = mt_base(parent)
        if (parent >> 3) & 31 < WORD(mm, base + INNER_META).word:
            return 0
        parent = WORD(mm, base).word
    return 1


@native
def mt_check_up(mm, enode, low):
    """Invariants 4, 5 and 6 for a node and for the ancestors in which it is leftmost."""
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        base = mt_base(parent)
        slot = (parent >> 3) & 31
        if mt_parent_wrong(mm, enode):
            return 4
        if WORD(mm, base + INNER_GAPS + slot).word != ma_gap(mm, enode, low):
            return 5
        least = INNER_MIN
        if mt_leaf(enode):
            least = LEAF_MIN
        if ma_data_end(mm, enode) + 1 < least and not mt_rightmost(mm, enode):  # mt_validate lets the last one off
            return 6
        if slot > 0:
            return 0
        enode = (parent >> 8) << 8 | ARANGE
        parent = WORD(mm, base).word
    return 4 * mt_parent_wrong(mm, enode)


@native
def mt_check_leaf(mm, leaf, low):
    """Invariants 2 and 3 within a leaf that begins at ``low``."""
    slots = mt_slots(leaf)
    end = ma_data_end(mm, leaf)
    slot = 0
    while slot <= end:
        pivot = mas_pivot(mm, leaf, slot, end)
        if pivot < low or (slot == end and slot < LEAF_LAST and WORD(mm, mt_base(leaf) + PIVOTS + slot).word != pivot):
            return 2
        low = pivot + 1
        if WORD(mm, slots + slot).word == NULL:
            if slot == end and pivot != MT_MAX:
                return 3
            if slot < end and WORD(mm, slots + slot + 1).word == NULL:
                return 3
        slot += 1
    return 0


@native
def mt_check(mm):
    """0, or the number of the first broken invariant. O(n log n)."""
    if mm.mm_rb == NULL:
        return int(mm.mmap != NULL)
    leaf = mas_leaf(mm, 0)
    vma = mm.mmap
    low = 0
    while leaf != NULL:
        if mt_parent_wrong(mm, leaf):
            return 4
        if mas_node_min(mm, leaf) != low or mas_leaf(mm, low) != leaf:
            return 2
        broken = mt_check_leaf(mm, leaf, low)
        if broken == 0:
            broken = mt_check_up(mm, leaf, low)
        if broken != 0:
            return broken
        end = ma_data_end(mm, leaf)
        slot = 0
        while slot <= end:
            pivot = mas_pivot(mm, leaf, slot, end)
            entry = WORD(mm, mt_slots(leaf) + slot).word
            if entry != NULL:
                if entry != vma or VMA(mm, vma).vm_start != low or VMA(mm, vma).vm_end != pivot + 1:
                    return 1
                vma = VMA(mm, vma).vm_next
            low = pivot + 1
            slot += 1
        leaf = mas_next_node(mm, leaf)
    return int(vma != NULL)


MESSAGES = {
    1: "the leaves do not give the list",
    2: "pivots do not ascend, or a node does not end where its parent says",
    3: "two holes in a row, or a leaf that ends in a hole",
    4: "a child's parent word does not name its parent and slot",
    5: "gap is not the largest hole in the child",
    6: "a node has too few ranges",
}
