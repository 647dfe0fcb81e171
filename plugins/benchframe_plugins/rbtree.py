"""The red-black tree, Linux 2.4.10 to 6.0: the plain index that every other strategy is measured against.

History: lib/rbtree.c is by Andrea Arcangeli (1999); the VMA tree moved to it from the AVL tree in 2.4.10 and away from
it, to the maple tree, in 6.1. Since 3.8 each node also knows the largest hole in its subtree (`rbtree_gap`).

Layout: three words in the VMA's first cache line (rb_parent_color, rb_right, rb_left); in `rbtree_gap` a fourth,
rb_subtree_gap. The line also holds vm_start and vm_end, so a visited node costs one line.

Lookup: from the root; `vm_end > addr` goes left and remembers, else right; a VMA that contains addr ends it early.
At most 2 log2(n + 1) nodes, about log2(n) - 1 on a random hit. No shared line is written.

Invariants, by number (what `benchframe` reports when a check fails):
  1. a node is red or black; the root is black
  2. a red node has black children
  3. every path from a node down to NULL has the same number of black nodes
  4. in-order traversal is the sorted list, each node's links agree (child's parent is the node)
  5. (`rbtree_gap`) rb_subtree_gap is the largest of the node's own gap and its children's

Concurrency: readers hold mmap_lock for read. Without a lock a walk terminates and what it finds is right, but
"not found" proves nothing: a rotation hides a subtree for an instant.
Text: search, linking and the check are here; rotations and colours, with drawings, in `_rbtree_balance`; gaps in
`_rbtree_gaps`.
Sources: Linux 2.6.32 lib/rbtree.c and mm/mmap.c; 3.8-6.0 mm/mmap.c unmapped_area_topdown; CLRS ch. 13.
"""

from benchframe.api import NULL, VMA, Index, Strategy, hook, hookimpl, native
from benchframe_plugins._rbtree_balance import (
    BLACK,
    RED,
    rb_erase_color,
    rb_insert_color,
    rb_is_black,
    rb_parent,
    rb_replace_child,
    rb_set_parent,
)
from benchframe_plugins._rbtree_gaps import gap_below, gap_changed, gap_propagate, gap_resize, gap_wrong


@hook("index")
def rb_propagate(mm, node):
    """``node``'s own gap or children changed: recompute from it to the root. Nothing in the plain tree."""
    return 0


@native
def rb_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none (find_vma without its cache). O(log n)."""
    node = mm.mm_rb
    found = NULL
    while node != NULL:
        v = VMA(mm, node)
        if addr < v.vm_end:
            found = node
            if v.vm_start <= addr:
                return found
            node = v.rb_left
        else:
            node = v.rb_right
    return found


@native
def rb_insert(mm, vma):
    """Link ``vma`` where a search for its start ends, as a red leaf, and rebalance (find_vma_links, rb_link_node)."""
    start = VMA(mm, vma).vm_start
    parent = NULL
    node = mm.mm_rb
    left = 0
    while node != NULL:
        parent = node
        left = start < VMA(mm, node).vm_end
        if left:
            node = VMA(mm, node).rb_left
        else:
            node = VMA(mm, node).rb_right
    v = VMA(mm, vma)
    v.rb_parent_color = (parent << 1) | RED
    v.rb_left = NULL
    v.rb_right = NULL
    if parent == NULL:
        mm.mm_rb = vma
    elif left:
        VMA(mm, parent).rb_left = vma
    else:
        VMA(mm, parent).rb_right = vma
    rb_propagate(mm, vma)
    if v.vm_next != NULL:
        rb_propagate(mm, v.vm_next)
    rb_insert_color(mm, vma)
    return 0


@native
def rb_erase(mm, vma):
    """Unlink ``vma``: with two children its successor takes its place and colour. At most three rotations."""
    v = VMA(mm, vma)
    if v.rb_left != NULL and v.rb_right != NULL:
        successor = v.rb_right
        while VMA(mm, successor).rb_left != NULL:
            successor = VMA(mm, successor).rb_left
        s = VMA(mm, successor)
        child = s.rb_right
        color = s.rb_parent_color & 1
        parent = rb_parent(mm, successor)
        rb_replace_child(mm, rb_parent(mm, vma), vma, successor)
        if parent == vma:
            parent = successor
        else:
            if child != NULL:
                rb_set_parent(mm, child, parent)
            VMA(mm, parent).rb_left = child
            s.rb_right = v.rb_right
            rb_set_parent(mm, v.rb_right, successor)
        s.rb_parent_color = v.rb_parent_color
        s.rb_left = v.rb_left
        rb_set_parent(mm, v.rb_left, successor)
    else:
        child = v.rb_left
        if child == NULL:
            child = v.rb_right
        parent = rb_parent(mm, vma)
        color = v.rb_parent_color & 1
        if child != NULL:
            rb_set_parent(mm, child, parent)
        rb_replace_child(mm, parent, vma, child)
    if parent != NULL:
        rb_propagate(mm, parent)
    if v.vm_next != NULL:
        rb_propagate(mm, v.vm_next)
    if color == BLACK:
        rb_erase_color(mm, child, parent)
    return 0


@hook("index")
def rb_gap_wrong(mm, node):
    """1 if ``node``'s rb_subtree_gap is not what it must be. The plain tree has none."""
    return 0


@native
def rb_leftmost(mm, node):
    """The first node of a subtree."""
    while VMA(mm, node).rb_left != NULL:
        node = VMA(mm, node).rb_left
    return node


@native
def rb_blacks_to_root(mm, node):
    """Black nodes from ``node`` up to the root, both included."""
    blacks = 0
    while node != NULL:
        blacks += rb_is_black(mm, node)
        node = rb_parent(mm, node)
    return blacks


@native
def rb_check(mm):
    """The number of the first broken invariant, 0 if all hold. O(n log n)."""
    if mm.mm_rb == NULL:
        if mm.mmap != NULL:
            return 4
        return 0
    if not rb_is_black(mm, mm.mm_rb) or rb_parent(mm, mm.mm_rb) != NULL:
        return 1
    height = rb_blacks_to_root(mm, rb_leftmost(mm, mm.mm_rb))
    node = rb_leftmost(mm, mm.mm_rb)
    expected = mm.mmap
    while node != NULL:
        v = VMA(mm, node)
        if node != expected:
            return 4
        if v.rb_left != NULL and rb_parent(mm, v.rb_left) != node:
            return 4
        if v.rb_right != NULL and rb_parent(mm, v.rb_right) != node:
            return 4
        if not rb_is_black(mm, node) and not (rb_is_black(mm, v.rb_left) and rb_is_black(mm, v.rb_right)):
            return 2
        if (v.rb_left == NULL or v.rb_right == NULL) and rb_blacks_to_root(mm, node) != height:
            return 3
        if rb_gap_wrong(mm, node):
            return 5
        expected = v.vm_next
        if v.rb_right != NULL:
            node = rb_leftmost(mm, v.rb_right)
        else:
            child = node
            node = rb_parent(mm, node)
            while node != NULL and VMA(mm, node).rb_right == child:
                child = node
                node = rb_parent(mm, node)
    if expected != NULL:
        return 4
    return 0


plain = Index(find=rb_find, insert=rb_insert, erase=rb_erase, check=rb_check)
augmented = Index(
    find=rb_find,
    insert=rb_insert,
    erase=rb_erase,
    check=rb_check,
    resize=gap_resize,
    gap_below=gap_below,
    bind={"rb_changed": gap_changed, "rb_propagate": gap_propagate, "rb_gap_wrong": gap_wrong},
)
MESSAGES = {
    1: "the root is not black",
    2: "a red node has a red child",
    3: "paths have different numbers of black nodes",
    4: "in-order traversal is not the list",
    5: "rb_subtree_gap is wrong",
}


@hookimpl
def benchframe_strategies():
    """The plain tree and the one with gaps."""
    return [
        Strategy("rbtree", "red-black tree alone, 2.4.10 to 3.7: the baseline", plain, check_messages=MESSAGES),
        Strategy("rbtree_gap", "red-black tree with subtree gaps, 3.8 to 6.0", augmented, check_messages=MESSAGES),
    ]
