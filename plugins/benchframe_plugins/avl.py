"""The AVL tree keyed by vm_end, Linux 1.1.83 to 2.4.9.

History: by Bruno Haible. Its comment expects about 6 VMAs per process, and 3 000 at most. 2.2 built no tree for fewer
than 32 VMAs (AVL_MIN_MAP_COUNT) and put mmap_cache in front: `avl_2_4` is that combination. 2.4.10 replaced it by the
red-black tree, whose nodes are smaller and whose updates rotate less.

Layout: vm_avl_left, vm_avl_right and vm_avl_height in the VMA; here they are in rb_left, rb_right, rb_subtree_gap of
the VMA's first line, so a visited node costs one line. The kernel's nodes had no parent pointer: insertion and removal
kept the path on their stack (avl_maxheight 41). Here rb_parent_color holds the parent instead, since the dialect has no
local arrays; lookups do not use it.

Lookup: from the root; `vm_end > addr` remembers the node and goes left, unless it contains addr; else right: the
red-black tree's search, rb_find. At most 1.44 log2(n) nodes, about log2(n) - 1 on a random hit. `avl_2_4` with fewer
than 32 VMAs: the list, from its start.

Update: at most two rotations to insert; to remove, up to two on each level. A change of bounds needs no update, since
the order stays the same. The tree of `avl_2_4` is built when the 32nd VMA is added, and kept until the last one is
removed.

Invariants, by number:
  1. a node's height is one more than the larger of its children's
  2. its children's heights differ by one at most
  3. in-order traversal is the sorted list
  4. a child's parent is its node
  5. (`avl_2_4`) there is a tree if there are 32 VMAs

Concurrency: 1.2 the big kernel lock; 2.2 to 2.4.2 mmap_sem, a mutex, for both faults and calls; from 2.4.3 on readers
hold it (mmap_lock) for read, as here. `linux-2.4.0` has the mutex. `avl_2_4` differs from 2.4.0, which merged only a
growing brk, and from 2.2, whose merge_segments set the cache to NULL. If a merge in the model frees the cached VMA, its
predecessor is cached instead, as in 2.4.10 (`mmap_cache`).
Sources: Linux 1.2.13 and 2.4.0 mm/mmap.c and mm/mmap_avl.c (avl_insert, avl_remove, avl_rebalance, build_mmap_avl);
Knuth, TAOCP vol. 3, 6.2.3.
"""

from benchframe.api import Cache, Index, Strategy, hookimpl, native
from benchframe.kernel import NULL, VMA
from benchframe_plugins.linked_list import list_find
from benchframe_plugins.mmap_cache import detached, find_cached, mm_exit, store, unlinked
from benchframe_plugins.rbtree import rb_find, rb_leftmost

AVL_MIN_MAP_COUNT = 32


@native
def avl_parent(mm, node):
    """The parent of ``node``, NULL for the root."""
    return VMA(mm, node).rb_parent_color


@native
def heightof(mm, node):
    """The height of a subtree; 0 if it is empty."""
    if node == NULL:
        return 0
    return VMA(mm, node).rb_subtree_gap


@native
def avl_set_height(mm, node):
    """Recompute ``node``'s height from its children's."""
    n = VMA(mm, node)
    n.rb_subtree_gap = max(heightof(mm, n.rb_left), heightof(mm, n.rb_right)) + 1
    return n.rb_subtree_gap


@native
def avl_set_parent(mm, node, parent):
    """Set ``node``'s parent, if there is a node."""
    if node != NULL:
        VMA(mm, node).rb_parent_color = parent
    return 0


@native
def avl_replace(mm, parent, old, new):
    """``parent`` (NULL: the root pointer) points to ``new`` where it pointed to ``old``."""
    if parent == NULL:
        mm.mm_rb = new
    elif VMA(mm, parent).rb_left == old:
        VMA(mm, parent).rb_left = new
    else:
        VMA(mm, parent).rb_right = new
    return avl_set_parent(mm, new, parent)


@native
def avl_rotate_left(mm, node):
    """``node``'s right child takes its place; the new top.

    ```
        node                 right
       /    \\               /     \\
      a    right     ->   node     c
          /     \\        /    \\
         b       c      a      b
    ```
    """
    n = VMA(mm, node)
    right = n.rb_right
    r = VMA(mm, right)
    avl_replace(mm, n.rb_parent_color, node, right)
    n.rb_right = r.rb_left
    avl_set_parent(mm, r.rb_left, node)
    r.rb_left = node
    n.rb_parent_color = right
    avl_set_height(mm, node)
    avl_set_height(mm, right)
    return right


@native
def avl_rotate_right(mm, node):
    """``node``'s left child takes its place (the mirror image); the new top."""
    n = VMA(mm, node)
    left = n.rb_left
    l = VMA(mm, left)  # noqa: E741
    avl_replace(mm, n.rb_parent_color, node, left)
    n.rb_left = l.rb_right
    avl_set_parent(mm, l.rb_right, node)
    l.rb_right = node
    n.rb_parent_color = left
    avl_set_height(mm, node)
    avl_set_height(mm, left)
    return left


@native
def avl_rebalance(mm, node):
    """Rebalance from ``node`` up, until a subtree's height is unchanged."""
    while node != NULL:
        n = VMA(mm, node)
        before = n.rb_subtree_gap
        lean = heightof(mm, n.rb_left) - heightof(mm, n.rb_right)
        top = node
        if lean > 1:
            left = n.rb_left
            if heightof(mm, VMA(mm, left).rb_left) < heightof(mm, VMA(mm, left).rb_right):
                avl_rotate_left(mm, left)
            top = avl_rotate_right(mm, node)
        elif lean < -1:
            right = n.rb_right
            if heightof(mm, VMA(mm, right).rb_right) < heightof(mm, VMA(mm, right).rb_left):
                avl_rotate_right(mm, right)
            top = avl_rotate_left(mm, node)
        if avl_set_height(mm, top) == before:
            return 0
        node = avl_parent(mm, top)
    return 0


@native
def avl_insert(mm, vma):
    """Link ``vma`` as a leaf where a search for its end ends, and rebalance."""
    v = VMA(mm, vma)
    parent = NULL
    node = mm.mm_rb
    left = 0
    while node != NULL:
        parent = node
        left = v.vm_end < VMA(mm, node).vm_end
        if left:
            node = VMA(mm, node).rb_left
        else:
            node = VMA(mm, node).rb_right
    v.rb_left = NULL
    v.rb_right = NULL
    v.rb_parent_color = parent
    v.rb_subtree_gap = 1
    if parent == NULL:
        mm.mm_rb = vma
    elif left:
        VMA(mm, parent).rb_left = vma
    else:
        VMA(mm, parent).rb_right = vma
    return avl_rebalance(mm, parent)


@native
def avl_erase(mm, vma):
    """Unlink ``vma``: the last node of its left subtree takes its place, as in avl_remove."""
    v = VMA(mm, vma)
    parent = v.rb_parent_color
    if v.rb_left == NULL:
        avl_replace(mm, parent, vma, v.rb_right)
        return avl_rebalance(mm, parent)
    heir = v.rb_left
    while VMA(mm, heir).rb_right != NULL:
        heir = VMA(mm, heir).rb_right
    h = VMA(mm, heir)
    below = h.rb_parent_color
    if below == vma:
        below = heir
    else:
        VMA(mm, below).rb_right = h.rb_left
        avl_set_parent(mm, h.rb_left, below)
        h.rb_left = v.rb_left
        avl_set_parent(mm, h.rb_left, heir)
    h.rb_right = v.rb_right
    avl_set_parent(mm, h.rb_right, heir)
    h.rb_subtree_gap = v.rb_subtree_gap
    avl_replace(mm, parent, vma, heir)
    return avl_rebalance(mm, below)


@native
def avl_node_wrong(mm, node):
    """Invariants 1, 2 and 4 at one node."""
    n = VMA(mm, node)
    left = heightof(mm, n.rb_left)
    right = heightof(mm, n.rb_right)
    if n.rb_left != NULL and avl_parent(mm, n.rb_left) != node:
        return 4
    if n.rb_right != NULL and avl_parent(mm, n.rb_right) != node:
        return 4
    if n.rb_subtree_gap != max(left, right) + 1:
        return 1
    if left - right > 1 or right - left > 1:
        return 2
    return 0


@native
def avl_check(mm):
    """0, or the number of the first broken invariant. O(n)."""
    expected = mm.mmap
    node = mm.mm_rb
    if node != NULL:
        if avl_parent(mm, node) != NULL:
            return 4
        node = rb_leftmost(mm, node)
    while node != NULL:
        broken = avl_node_wrong(mm, node)
        if broken != 0:
            return broken
        if node != expected:
            return 3
        expected = VMA(mm, node).vm_next
        if VMA(mm, node).rb_right != NULL:
            node = rb_leftmost(mm, VMA(mm, node).rb_right)
        else:
            child = node
            node = avl_parent(mm, node)
            while node != NULL and VMA(mm, node).rb_right == child:
                child = node
                node = avl_parent(mm, node)
    if expected != NULL:
        return 3
    return 0


# ---- 2.2 to 2.4.9: no tree below 32 VMAs -----------------------------------------------------------------------------


@native
def hybrid_find(mm, addr):
    """The part of find_vma behind its cache: the tree if there is one, else the list."""
    if mm.mm_rb == NULL:
        return list_find(mm, addr)
    return rb_find(mm, addr)


@native
def build_mmap_avl(mm):
    """Build the tree from the whole list."""
    vma = mm.mmap
    while vma != NULL:
        avl_insert(mm, vma)
        vma = VMA(mm, vma).vm_next
    return 0


@native
def hybrid_insert(mm, vma):
    """Insert into the tree if there is one; the 32nd VMA makes it be built. map_count does not count ``vma`` yet."""
    if mm.mm_rb != NULL:
        return avl_insert(mm, vma)
    if mm.map_count + 1 >= AVL_MIN_MAP_COUNT:
        return build_mmap_avl(mm)
    return 0


@native
def hybrid_erase(mm, vma):
    """Remove from the tree if there is one."""
    if mm.mm_rb != NULL:
        return avl_erase(mm, vma)
    return 0


@native
def hybrid_check(mm):
    """Invariant 5, then those of the tree."""
    if mm.mm_rb != NULL:
        return avl_check(mm)
    if mm.map_count >= AVL_MIN_MAP_COUNT:
        return 5
    return 0


plain = Index(find=rb_find, insert=avl_insert, erase=avl_erase, check=avl_check)
hybrid = Index(find=hybrid_find, insert=hybrid_insert, erase=hybrid_erase, check=hybrid_check)
MESSAGES = {
    1: "a node's height is not one more than its higher child's",
    2: "a node's children differ by more than one in height",
    3: "in-order traversal is not the list",
    4: "a child does not name its parent",
    5: "there is no tree, with 32 VMAs or more",
}


@hookimpl
def benchframe_strategies():
    """The tree alone, and the combination of 2.2 to 2.4.9."""
    cache = Cache(find=find_cached, store=store, detached=detached, unlinked=unlinked, mm_exit=mm_exit)
    return [
        Strategy("avl", "AVL tree alone, 1.1.83 to 2.0", plain, check_messages=MESSAGES),
        Strategy(
            "avl_2_4",
            "AVL tree from 32 VMAs on, behind mmap_cache, 2.2 to 2.4.9",
            hybrid,
            cache,
            check_messages=MESSAGES,
        ),
    ]
