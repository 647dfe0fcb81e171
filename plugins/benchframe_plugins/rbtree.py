"""The red-black tree, Linux 2.4.10 to 6.0: the plain index to which every other strategy is compared.

History: lib/rbtree.c is by Andrea Arcangeli (1999); the VMA tree moved to it from the AVL tree in 2.4.10 and away from
it, to the maple tree, in 6.1. Since 3.8 each node also knows the largest hole in its subtree (`rbtree_gap`).

Layout: three words in the VMA's first cache line (rb_parent_color, rb_right, rb_left); in `rbtree_gap` a fourth,
rb_subtree_gap. The line also holds vm_start and vm_end, so a visited node costs one line.

Lookup: from the root; where `vm_end > addr` the search remembers the node and goes left, else right; it ends early at a
VMA that contains addr. At most 2 log2(n + 1) nodes, about log2(n) - 1 on a random hit. No shared line is written.

Invariants, by number (`benchframe` reports the number when a check fails):
  1. a node is red or black; the root is black
  2. a red node has black children
  3. every path from a node down to NULL has the same number of black nodes
  4. in-order traversal is the sorted list, each node's links agree (child's parent is the node)
  5. (`rbtree_gap`) rb_subtree_gap is the largest of the node's own gap and its children's

Concurrency: readers hold mmap_lock for read. Without a lock a walk terminates and a VMA that it finds is right, but
"not found" proves nothing: a rotation hides a subtree for a moment.
Sources: Linux 2.6.32 lib/rbtree.c and mm/mmap.c; 3.8-6.0 mm/mmap.c vma_compute_subtree_gap, vma_gap_update,
unmapped_area_topdown; CLRS ch. 13.
"""

from benchframe.api import Index, Strategy, hook, hookimpl, native
from benchframe.kernel import NULL, VMA, start_gap

RED, BLACK = 0, 1


# ---- nodes -----------------------------------------------------------------------------------------------------------


@native
def rb_parent(mm, node):
    """The parent of ``node``, NULL for the root."""
    return VMA(mm, node).rb_parent_color >> 1


@native
def rb_is_black(mm, node):
    """NULL counts as black."""
    return node == NULL or VMA(mm, node).rb_parent_color & 1


@native
def rb_set_parent(mm, node, parent):
    """Change the parent, keep the colour."""
    n = VMA(mm, node)
    n.rb_parent_color = (parent << 1) | (n.rb_parent_color & 1)
    return 0


@native
def rb_set_color(mm, node, color):
    """Change the colour, keep the parent."""
    n = VMA(mm, node)
    n.rb_parent_color = (n.rb_parent_color & ~1) | color
    return 0


@hook("index")
def rb_changed(mm, node):
    """``node``'s children changed: recompute the data about its subtree. Nothing to do in the plain tree."""
    return 0


@native
def rb_replace_child(mm, parent, old, new):
    """``parent`` (NULL: the root pointer) points to ``new`` where it pointed to ``old``."""
    if parent == NULL:
        mm.mm_rb = new
    elif VMA(mm, parent).rb_left == old:
        VMA(mm, parent).rb_left = new
    else:
        VMA(mm, parent).rb_right = new
    return 0


# ---- balance: rotations and colours keep invariants 1 to 3 -----------------------------------------------------------


@native
def rb_rotate_left(mm, node):
    r"""Rotate ``node`` down to the left; ``right`` takes its place.

    ```
          parent                parent
            |                     |
           node                 right
          /    \      ->        /     \
         a    right           node     c
             /     \         /    \
            b       c       a      b
    ```
    """
    n = VMA(mm, node)
    right = n.rb_right
    r = VMA(mm, right)
    parent = rb_parent(mm, node)
    n.rb_right = r.rb_left
    if r.rb_left != NULL:
        rb_set_parent(mm, r.rb_left, node)
    r.rb_left = node
    rb_set_parent(mm, right, parent)
    rb_replace_child(mm, parent, node, right)
    rb_set_parent(mm, node, right)
    rb_changed(mm, node)
    rb_changed(mm, right)
    return right


@native
def rb_rotate_right(mm, node):
    r"""Rotate ``node`` down to the right; ``left`` takes its place.

    ```
            parent            parent
              |                 |
             node              left
            /    \     ->     /    \
          left    c          a     node
         /    \                   /    \
        a      b                 b      c
    ```
    """
    n = VMA(mm, node)
    left = n.rb_left
    l = VMA(mm, left)  # noqa: E741
    parent = rb_parent(mm, node)
    n.rb_left = l.rb_right
    if l.rb_right != NULL:
        rb_set_parent(mm, l.rb_right, node)
    l.rb_right = node
    rb_set_parent(mm, left, parent)
    rb_replace_child(mm, parent, node, left)
    rb_set_parent(mm, node, left)
    rb_changed(mm, node)
    rb_changed(mm, left)
    return left


@native
def rb_insert_color(mm, node):
    r"""Restore invariant 2 after the red ``node`` was linked: colours up, at most two rotations.

    ```
    uncle red: recolour, go on at G      uncle black: straighten, then rotate G
          G              g                    G             G            P
         / \            / \                  / \           / \          / \
        p   u    ->    P   U                p   U   ->    n   U   ->   n   g
        |              |                     \           /                  \
        n              n                      n         p                    U
    ```
    (upper case is black; the mirror images likewise)
    """
    parent = rb_parent(mm, node)
    while parent != NULL and not rb_is_black(mm, parent):
        grand = rb_parent(mm, parent)
        on_left = VMA(mm, grand).rb_left == parent
        uncle = VMA(mm, grand).rb_left
        if on_left:
            uncle = VMA(mm, grand).rb_right
        if not rb_is_black(mm, uncle):
            rb_set_color(mm, uncle, BLACK)
            rb_set_color(mm, parent, BLACK)
            rb_set_color(mm, grand, RED)
            node = grand
        else:
            if on_left:
                if VMA(mm, parent).rb_right == node:
                    node = parent
                    parent = rb_rotate_left(mm, parent)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, grand, RED)
                rb_rotate_right(mm, grand)
            else:
                if VMA(mm, parent).rb_left == node:
                    node = parent
                    parent = rb_rotate_right(mm, parent)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, grand, RED)
                rb_rotate_left(mm, grand)
        parent = rb_parent(mm, node)
    rb_set_color(mm, mm.mm_rb, BLACK)
    return 0


@native
def rb_erase_color(mm, node, parent):
    """Restore invariant 3: ``node`` (maybe NULL), a child of ``parent``, is one black short.

    The cases are those of lib/rbtree.c, ____rb_erase_color. In the drawings upper case is black, lower case red, and a
    name in brackets either; N is ``node``, S its sibling ``other``, Sl and Sr the sibling's children.
    """
    while parent != NULL and rb_is_black(mm, node):
        if VMA(mm, parent).rb_left == node:
            other = VMA(mm, parent).rb_right
            if not rb_is_black(mm, other):
                # Case 1 - left rotate at parent: the new sibling is black, so one of the cases below follows
                #      P                S
                #     / \              / \
                #    N   s      ->    p   Sr
                #       / \          / \
                #      Sl  Sr       N   Sl
                rb_set_color(mm, other, BLACK)
                rb_set_color(mm, parent, RED)
                rb_rotate_left(mm, parent)
                other = VMA(mm, parent).rb_right
            if rb_is_black(mm, VMA(mm, other).rb_left) and rb_is_black(mm, VMA(mm, other).rb_right):
                # Case 2 - sibling color flip: the parent's subtree is one black short now; a red parent ends it
                #     (p)              (p)
                #     / \              / \
                #    N   S      ->    N   s
                #       / \              / \
                #      Sl  Sr           Sl  Sr
                rb_set_color(mm, other, RED)
                node = parent
                parent = rb_parent(mm, node)
            else:
                if rb_is_black(mm, VMA(mm, other).rb_right):
                    # Case 3 - right rotate at sibling: its far child is red then, which is case 4
                    #     (p)              (p)
                    #     / \              / \
                    #    N   S      ->    N   Sl
                    #       / \                \
                    #      sl  Sr               s
                    #                            \
                    #                             Sr
                    rb_set_color(mm, VMA(mm, other).rb_left, BLACK)
                    rb_set_color(mm, other, RED)
                    other = rb_rotate_right(mm, other)
                # Case 4 - left rotate at parent and color flips: done
                #     (p)              (s)
                #     / \              / \
                #    N   S      ->    P   Sr
                #       / \          / \
                #     (sl) sr       N  (sl)
                rb_set_color(mm, other, VMA(mm, parent).rb_parent_color & 1)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, VMA(mm, other).rb_right, BLACK)
                rb_rotate_left(mm, parent)
                node = mm.mm_rb
                parent = NULL
        else:  # the mirror image
            other = VMA(mm, parent).rb_left
            if not rb_is_black(mm, other):
                # Case 1 - right rotate at parent
                rb_set_color(mm, other, BLACK)
                rb_set_color(mm, parent, RED)
                rb_rotate_right(mm, parent)
                other = VMA(mm, parent).rb_left
            if rb_is_black(mm, VMA(mm, other).rb_left) and rb_is_black(mm, VMA(mm, other).rb_right):
                # Case 2 - sibling color flip
                rb_set_color(mm, other, RED)
                node = parent
                parent = rb_parent(mm, node)
            else:
                if rb_is_black(mm, VMA(mm, other).rb_left):
                    # Case 3 - left rotate at sibling
                    rb_set_color(mm, VMA(mm, other).rb_right, BLACK)
                    rb_set_color(mm, other, RED)
                    other = rb_rotate_left(mm, other)
                # Case 4 - right rotate at parent and color flips
                rb_set_color(mm, other, VMA(mm, parent).rb_parent_color & 1)
                rb_set_color(mm, parent, BLACK)
                rb_set_color(mm, VMA(mm, other).rb_left, BLACK)
                rb_rotate_right(mm, parent)
                node = mm.mm_rb
                parent = NULL
    if node != NULL:
        rb_set_color(mm, node, BLACK)
    return 0


# ---- find, insert, erase ---------------------------------------------------------------------------------------------


@hook("index")
def rb_propagate(mm, node):
    """The gap or children of ``node`` changed: recompute from it to the root. Nothing to do in the plain tree."""
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


# ---- gaps: the largest hole of each subtree, Linux 3.8 to 6.0 --------------------------------------------------------

# A node's own gap is the hole below it: from the end of the VMA before it to its start, less a stack's guard gap as
# since 4.12 (1be7107fbe18; from 3.8 to 4.11 a guard page belonged to the stack). Insertions, erasures, moved bounds and
# rotations recompute what they touch.


@native
def gap_floor(mm, vma):
    """The start of the hole below ``vma``."""
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
    """Recompute one node, after a rotation."""
    VMA(mm, node).rb_subtree_gap = gap_compute(mm, node)
    return 0


@native
def gap_propagate(mm, node):
    """Recompute from ``node`` to the root, without stopping early: after an erase an ancestor may be stale above a node
    that is not."""
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
    """unmapped_area_topdown: the highest hole that fits, descending only where the subtree has one. O(log n)."""
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


# ---- the check -------------------------------------------------------------------------------------------------------


@hook("index")
def rb_gap_wrong(mm, node):
    """1 if ``node``'s rb_subtree_gap is wrong. The plain tree has none."""
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
