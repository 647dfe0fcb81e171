"""The maple tree, Linux 6.1 on: a B-tree of address ranges in 256-byte nodes.

History: by Liam Howlett and Matthew Wilcox. In 6.1 it replaced three things at once: the augmented rb-tree, the list
and vmacache. It is dense and shallow, and made so that one day nobody needs a lock to read it.

Layout: nodes of 256 bytes, aligned, in the words of a private slab. Pivots are inclusive upper ends; slot i covers
(pivot[i-1], pivot[i]]; a node's own bounds come from its parent. A hole takes a slot: NULL.
```
  leaf_64    | parent | pivot 0..14 | slot 0..15         |  range_64: slot 15 overlaps meta {end} when it is free
  arange_64  | parent | pivot 0..8  | slot 0..9 | gap 0..9 | meta {end} |    gap: the largest hole below each child
  reference  node << 8 | type << 3      parent word  node << 8 | slot << 3 | 2, 1 in the root, itself in a dead node
```
Lookup: per level the parent's line, the scan of pivots (one or two lines), the slot's line; no VMA until the leaf says
which. Up to 16 ranges in a leaf and 10 children above: 1 000 VMAs with holes between are 4 levels. A hole's answer is
the slot after it.

Update: a store of a range. In place if no range appears or vanishes (a pivot moves, a slot changes); else the leaf's
content passes through a big node and is written back (mas_wr_node_store), split, or joined with a neighbour; nodes
that are left are dead and freed. `maple_rcu` (6.3 on, 3dd443254941) never rewrites a leaf in place: a new node takes
its slot, the old one dies. Splits and joins exchange every node between the two ends of the range, level by level.

Hole search: down only where gap says that there is room; from the top for mmap's search (mas_empty_area_rev). A
stack's guard gap is looked at afterwards, with the search continued below it, as in unmapped_area_topdown. The search
from the bottom, a fallback, walks the list.

Invariants, by number (mt_validate's):
  1. the leaves give the list: each VMA once, over exactly its range
  2. pivots ascend and a node ends where its parent says
  3. no two holes in a row, and no leaf but the last ends in a hole
  4. a child's parent word names its parent and slot
  5. gap is the largest hole in the child
  6. a leaf holds at least 6 ranges, an inner node 5, where there is a neighbour

Differences to the kernel's: the list stays, other parts of the model use it. One VMA alone still takes a node. Below
its minimum a node is joined with its neighbour even if that has another parent. A VMA that is cut is stored shorter
before the new one is stored; 6.1 does this in one store. Nodes are not preallocated: the slab has room or the run is
void. With one thread no reader is inside, so dead nodes are free at once; a change of several leaves is made visible
in one store only where they share a parent.

Sources: Linux 6.1 lib/maple_tree.c, include/linux/maple_tree.h, mm/mmap.c; Documentation/core-api/maple_tree.rst.
"""

from benchframe.api import (
    ARENA_PRIVATE0,
    NULL,
    VMA,
    Index,
    PrivateSlab,
    Strategy,
    arena_alloc,
    arena_free,
    hook,
    hookimpl,
    native,
    start_gap,
)

SPARE = 62
WORD = PrivateSlab("maple_word", [("word", "i8", "32 to a node [mmap_lock]")], 0, per_vma=32, fixed=32 * (SPARE + 2))
NODE = PrivateSlab("maple_node", [("state", "i8", "slot of the allocator: node i is words 32 i on")], 1, 1, SPARE)
BIG = PrivateSlab("maple_big", [("word", "i8", "a big node is 128 words [mmap_lock]")], 2, per_vma=0, fixed=128 * 6)
BIG_NODE = PrivateSlab("maple_big_node", [("state", "i8", "slot of the allocator")], 3, per_vma=0, fixed=4)
ARENA_NODE, ARENA_BIG = ARENA_PRIVATE0 + 1, ARENA_PRIVATE0 + 3

LEAF, ARANGE = 1 << 3, 3 << 3
"""maple_leaf_64 and maple_arange_64 in bits 3 to 6 of a reference."""
TYPE_MASK = 15 << 3
ROOT = 1
"""MA_ROOT_PARENT."""
PIVOTS, LEAF_SLOTS, LEAF_META, INNER_SLOTS, INNER_GAPS, INNER_META = 1, 16, 31, 10, 20, 30
"""Word offsets in a node."""
LEAF_LAST, INNER_LAST = 15, 9
"""The highest slot of each type; it has no pivot."""
LEAF_MIN, INNER_MIN = 6, 5
MT_MAX = (1 << 62) - 1
"""ULONG_MAX, with room above for signed sums."""
BIG_SLOTS, BIG_GAPS, BIG_NEW = 40, 80, 36
"""In a big node: pivots from 0, slots, gaps; entries 36 to 38 are the children being made."""


@hook("index")
def mt_in_rcu(mm):
    """1: readers may be inside, a leaf is replaced and not rewritten."""
    return 0


# ---- nodes -----------------------------------------------------------------------------------------------------------


@native
def mt_base(enode):
    """The first word of a node."""
    return (enode >> 8) << 5


@native
def mt_leaf(enode):
    """1 for a leaf."""
    return int(enode & TYPE_MASK == LEAF)


@native
def mt_slots(enode):
    """The word of slot 0."""
    if mt_leaf(enode):
        return mt_base(enode) + LEAF_SLOTS
    return mt_base(enode) + INNER_SLOTS


@native
def mas_node_min(mm, enode):
    """The lowest address that a node covers: from the nearest ancestor where it is not leftmost."""
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        slot = (parent >> 3) & 31
        if slot > 0:
            return WORD(mm, mt_base(parent) + PIVOTS + slot - 1).word + 1
        parent = WORD(mm, mt_base(parent)).word
    return 0


@native
def mas_node_max(mm, enode):
    """The highest address that a node covers."""
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        slot = (parent >> 3) & 31
        if slot < INNER_LAST:
            return WORD(mm, mt_base(parent) + PIVOTS + slot).word
        parent = WORD(mm, mt_base(parent)).word
    return MT_MAX


@native
def leaf_end(mm, base, top):
    """ma_data_end of a leaf that ends at ``top``: its last slot in use."""
    pivot = WORD(mm, base + PIVOTS + LEAF_LAST - 1).word
    if pivot == 0:
        return WORD(mm, base + LEAF_META).word
    if pivot == top:
        return LEAF_LAST - 1
    return LEAF_LAST


@native
def ma_data_end(mm, enode):
    """The last slot in use."""
    base = mt_base(enode)
    if not mt_leaf(enode):
        return WORD(mm, base + INNER_META).word
    if WORD(mm, base + PIVOTS + LEAF_LAST - 1).word == 0:
        return WORD(mm, base + LEAF_META).word
    return leaf_end(mm, base, mas_node_max(mm, enode))


@native
def mas_pivot(mm, enode, slot, end):
    """Where slot ``slot`` of a node with last slot ``end`` ends."""
    if slot == end:
        return mas_node_max(mm, enode)
    return WORD(mm, mt_base(enode) + PIVOTS + slot).word


@native
def mas_offset(mm, enode, addr):
    """The slot that covers ``addr``."""
    base = mt_base(enode) + PIVOTS
    end = ma_data_end(mm, enode)
    slot = 0
    while slot < end and WORD(mm, base + slot).word < addr:
        slot += 1
    return slot


@native
def mas_leaf(mm, addr):
    """The leaf that covers ``addr``. There is a root."""
    enode = mm.mm_rb
    while not mt_leaf(enode):
        enode = WORD(mm, mt_slots(enode) + mas_offset(mm, enode, addr)).word
    return enode


@native
def mas_next_node(mm, enode):
    """The node after it on its level, NULL if it is the last."""
    depth = 0
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        depth += 1
        slot = (parent >> 3) & 31
        base = mt_base(parent)
        if slot < WORD(mm, base + INNER_META).word:
            enode = WORD(mm, base + INNER_SLOTS + slot + 1).word
            while depth > 1:
                enode = WORD(mm, mt_base(enode) + INNER_SLOTS).word
                depth -= 1
            return enode
        parent = WORD(mm, base).word
    return NULL


@native
def mas_prev_node(mm, enode):
    """The node before it on its level, NULL if it is the first."""
    depth = 0
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        depth += 1
        slot = (parent >> 3) & 31
        base = mt_base(parent)
        if slot > 0:
            enode = WORD(mm, base + INNER_SLOTS + slot - 1).word
            while depth > 1:
                enode = WORD(mm, mt_slots(enode) + ma_data_end(mm, enode)).word
                depth -= 1
            return enode
        parent = WORD(mm, base).word
    return NULL


@native
def ma_free(mm, enode):
    """The node is dead (its parent is itself) and its memory free."""
    WORD(mm, mt_base(enode)).word = (enode >> 8) << 8
    return arena_free(mm, ARENA_NODE, enode >> 8)


@native
def ma_gap(mm, enode, low):
    """The largest hole in a node that begins at ``low``."""
    slots = mt_slots(enode)
    end = ma_data_end(mm, enode)
    gap = 0
    slot = 0
    while slot <= end:
        if not mt_leaf(enode):
            gap = max(gap, WORD(mm, mt_base(enode) + INNER_GAPS + slot).word)
        else:
            pivot = mas_pivot(mm, enode, slot, end)
            if WORD(mm, slots + slot).word == NULL:
                gap = max(gap, pivot - low + 1)
            low = pivot + 1
        slot += 1
    return gap


@native
def mas_update_gap(mm, enode):
    """A leaf's holes changed: tell its ancestors, as far as it matters to them."""
    gap = ma_gap(mm, enode, mas_node_min(mm, enode))
    parent = WORD(mm, mt_base(enode)).word
    while parent != ROOT:
        base = mt_base(parent)
        slot = (parent >> 3) & 31
        if WORD(mm, base + INNER_GAPS + slot).word == gap:
            return 0
        WORD(mm, base + INNER_GAPS + slot).word = gap
        gap = ma_gap(mm, (parent >> 8) << 8 | ARANGE, 0)
        parent = WORD(mm, base).word
    return 0


# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def mt_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(log n), base about 10. A dead node starts it over."""
    enode = mm.mm_rb
    top = MT_MAX
    entry = NULL
    while enode != NULL:
        base = mt_base(enode)
        leaf = enode & TYPE_MASK == LEAF
        if leaf:
            end = leaf_end(mm, base, top)
            slots = base + LEAF_SLOTS
        else:
            end = WORD(mm, base + INNER_META).word
            slots = base + INNER_SLOTS
        slot = 0
        while slot < end and WORD(mm, base + PIVOTS + slot).word < addr:
            slot += 1
        entry = WORD(mm, slots + slot).word
        if leaf and entry == NULL and slot < end:
            entry = WORD(mm, slots + slot + 1).word
        if WORD(mm, base).word >> 8 == enode >> 8:
            enode = mm.mm_rb
            top = MT_MAX
            continue
        if leaf:
            return entry
        if slot < end:
            top = WORD(mm, base + PIVOTS + slot).word
        enode = entry
    return NULL


# ---- the big node ----------------------------------------------------------------------------------------------------


@native
def mab_add(mm, big, count, pivot, entry, gap):
    """Append a range that ends at ``pivot``; a hole after a hole joins it. The new count."""
    if count > 0 and entry == NULL and BIG(mm, big + BIG_SLOTS + count - 1).word == NULL:
        BIG(mm, big + count - 1).word = pivot
        return count
    BIG(mm, big + count).word = pivot
    BIG(mm, big + BIG_SLOTS + count).word = entry
    BIG(mm, big + BIG_GAPS + count).word = gap
    return count + 1


@native
def mab_copy(mm, big, count, enode, first, last):
    """Append slots ``first`` to ``last`` of a node (mas_mab_cp). The new count."""
    slots = mt_slots(enode)
    end = ma_data_end(mm, enode)
    slot = first
    while slot <= last:
        gap = 0
        if not mt_leaf(enode):
            gap = WORD(mm, mt_base(enode) + INNER_GAPS + slot).word
        count = mab_add(mm, big, count, mas_pivot(mm, enode, slot, end), WORD(mm, slots + slot).word, gap)
        slot += 1
    return count


@native
def mab_prepend(mm, big, count, enode):
    """Put a whole node before what is there. The new count."""
    room = ma_data_end(mm, enode) + 1
    at = count - 1
    while at >= 0:
        BIG(mm, big + room + at).word = BIG(mm, big + at).word
        BIG(mm, big + BIG_SLOTS + room + at).word = BIG(mm, big + BIG_SLOTS + at).word
        BIG(mm, big + BIG_GAPS + room + at).word = BIG(mm, big + BIG_GAPS + at).word
        at -= 1
    mab_copy(mm, big, 0, enode, 0, room - 1)
    return room + count


@native
def mab_write(mm, big, first, count, enode):
    """Write ``count`` entries of the big node into a node, and adopt children (mab_mas_cp, mas_adopt_children)."""
    base = mt_base(enode)
    slots = mt_slots(enode)
    leaf = mt_leaf(enode)
    pivots = INNER_LAST
    if leaf:
        pivots = LEAF_LAST
    slot = 0
    while slot < count:
        entry = BIG(mm, big + BIG_SLOTS + first + slot).word
        if slot < pivots:
            WORD(mm, base + PIVOTS + slot).word = BIG(mm, big + first + slot).word
        WORD(mm, slots + slot).word = entry
        if not leaf:
            WORD(mm, base + INNER_GAPS + slot).word = BIG(mm, big + BIG_GAPS + first + slot).word
            WORD(mm, mt_base(entry)).word = (enode >> 8) << 8 | slot << 3 | 2
        slot += 1
    while slot < pivots:
        WORD(mm, base + PIVOTS + slot).word = 0
        slot += 1
    if not leaf:
        WORD(mm, base + INNER_META).word = count - 1
    elif count <= LEAF_LAST:
        WORD(mm, base + LEAF_META).word = count - 1
    return 0


@native
def mab_split(mm, big, first, rest, nodes, leaf):
    """How many of the ``rest`` entries from ``first`` go into the next of ``nodes`` nodes: an equal share, but a leaf
    does not end in a hole (mab_calc_split)."""
    size = (rest + nodes - 1) // nodes
    if leaf and nodes > 1 and BIG(mm, big + BIG_SLOTS + first + size - 1).word == NULL:
        if size <= LEAF_LAST:
            return size + 1
        return size - 1
    return size


@native
def mab_nodes(count, leaf):
    """Into how many nodes ``count`` entries go."""
    if leaf:
        if count <= LEAF_LAST + 1:
            return 1
        if count <= 2 * LEAF_LAST:
            return 2
        return 3
    return (count + INNER_LAST) // (INNER_LAST + 1)


# ---- replacing nodes -------------------------------------------------------------------------------------------------


@native
def mas_make(mm, big, count, leaf, low):
    """Make nodes of the big node's content, which begins at ``low``: they are entries BIG_NEW on. How many."""
    nodes = mab_nodes(count, leaf)
    kind = ARANGE
    if leaf:
        kind = LEAF
    first = 0
    made = 0
    while made < nodes:
        size = mab_split(mm, big, first, count - first, nodes - made, leaf)
        enode = arena_alloc(mm, ARENA_NODE) << 8 | kind
        mab_write(mm, big, first, size, enode)
        first += size
        top = BIG(mm, big + first - 1).word
        # The gap is computed as soon as the node's end is known: its parent is not there to ask.
        BIG(mm, big + BIG_NEW + made).word = top
        BIG(mm, big + BIG_SLOTS + BIG_NEW + made).word = enode
        BIG(mm, big + BIG_GAPS + BIG_NEW + made).word = mab_gap(mm, big, first - size, size, leaf, low)
        low = top + 1
        made += 1
    return nodes


@native
def mab_gap(mm, big, first, size, leaf, low):
    """The largest hole in ``size`` entries from ``first``, which begin at ``low``."""
    gap = 0
    at = first
    while at < first + size:
        pivot = BIG(mm, big + at).word
        if not leaf:
            gap = max(gap, BIG(mm, big + BIG_GAPS + at).word)
        elif BIG(mm, big + BIG_SLOTS + at).word == NULL:
            gap = max(gap, pivot - low + 1)
        low = pivot + 1
        at += 1
    return gap


@native
def mas_free_level(mm, left, right):
    """Free the nodes ``left`` to ``right`` of one level."""
    while left != right:
        following = mas_next_node(mm, left)
        ma_free(mm, left)
        left = following
    return ma_free(mm, right)


@native
def mas_new_root(mm, big, nodes):
    """``nodes`` new nodes are all there is: they, or a node above them, are the root (mas_root_split)."""
    root = BIG(mm, big + BIG_SLOTS + BIG_NEW).word
    if nodes > 1:
        root = arena_alloc(mm, ARENA_NODE) << 8 | ARANGE
        mab_write(mm, big, BIG_NEW, nodes, root)
    while not mt_leaf(root) and ma_data_end(mm, root) == 0:
        child = WORD(mm, mt_slots(root)).word
        ma_free(mm, root)
        root = child
    WORD(mm, mt_base(root)).word = ROOT
    mm.mm_rb = root
    if mt_leaf(root) and ma_data_end(mm, root) == 0 and WORD(mm, mt_slots(root)).word == NULL:
        ma_free(mm, root)
        mm.mm_rb = NULL
    return 0


@native
def mas_replace(mm, big, count, left, right):
    """The nodes ``left`` to ``right`` of one level get the big node's content instead: new nodes, the old ones die, the
    level above is told, and so on up to the root (mas_wr_bnode, mas_spanning_rebalance)."""
    while 1:
        leaf = mt_leaf(left)
        least = INNER_MIN
        if leaf:
            least = LEAF_MIN
        if count < least or (leaf and BIG(mm, big + BIG_SLOTS + count - 1).word == NULL):
            following = mas_next_node(mm, right)
            if following != NULL:
                count = mab_copy(mm, big, count, following, 0, ma_data_end(mm, following))
                right = following
        if count < least:
            prev = mas_prev_node(mm, left)
            if prev != NULL:
                count = mab_prepend(mm, big, count, prev)
                left = prev
        nodes = mas_make(mm, big, count, leaf, mas_node_min(mm, left))
        first = WORD(mm, mt_base(left)).word
        last = WORD(mm, mt_base(right)).word
        mas_free_level(mm, left, right)
        if first == ROOT:
            return mas_new_root(mm, big, nodes)
        left = (first >> 8) << 8 | ARANGE
        right = (last >> 8) << 8 | ARANGE
        count = mab_copy(mm, big, 0, left, 0, ((first >> 3) & 31) - 1)
        made = BIG_NEW
        while made < BIG_NEW + nodes:
            gap = BIG(mm, big + BIG_GAPS + made).word
            count = mab_add(mm, big, count, BIG(mm, big + made).word, BIG(mm, big + BIG_SLOTS + made).word, gap)
            made += 1
        count = mab_copy(mm, big, count, right, ((last >> 3) & 31) + 1, ma_data_end(mm, right))
    return 0


@native
def mas_node_store(mm, big, count, leaf):
    """The same range and one leaf still: rewrite it, or replace it where readers may be inside (mas_wr_node_store)."""
    if not mt_in_rcu(mm):
        mab_write(mm, big, 0, count, leaf)
        return mas_update_gap(mm, leaf)
    new = arena_alloc(mm, ARENA_NODE) << 8 | LEAF
    mab_write(mm, big, 0, count, new)
    parent = WORD(mm, mt_base(leaf)).word
    WORD(mm, mt_base(new)).word = parent
    if parent == ROOT:
        mm.mm_rb = new
    else:
        WORD(mm, mt_base(parent) + INNER_SLOTS + ((parent >> 3) & 31)).word = new
    ma_free(mm, leaf)
    return mas_update_gap(mm, new)


# ---- stores ----------------------------------------------------------------------------------------------------------


@native
def mas_slot_store(mm, leaf, index, last, entry):
    """Store without a range appearing or vanishing, if it can be (mas_wr_slot_store); 1 if done."""
    end = ma_data_end(mm, leaf)
    slots = mt_slots(leaf)
    pivots = mt_base(leaf) + PIVOTS
    slot = mas_offset(mm, leaf, index)
    low = mas_node_min(mm, leaf)
    if slot > 0:
        low = WORD(mm, pivots + slot - 1).word + 1
    top = mas_pivot(mm, leaf, slot, end)
    old = WORD(mm, slots + slot).word
    if index == low and last == top:
        if entry == NULL:
            if slot == end or WORD(mm, slots + slot + 1).word == NULL:
                return 0
            if slot > 0 and WORD(mm, slots + slot - 1).word == NULL:
                return 0
        WORD(mm, slots + slot).word = entry
    elif old == entry and slot < end and last > top:  # it grows into the next range
        if last >= mas_pivot(mm, leaf, slot + 1, end):
            return 0
        WORD(mm, pivots + slot).word = last
    elif (
        index == low and slot > 0 and last < top and WORD(mm, slots + slot - 1).word == entry
    ):  # so does the one before
        WORD(mm, pivots + slot - 1).word = last
    elif index > low and slot < end and last >= top and WORD(mm, slots + slot + 1).word == entry:  # the next grows down
        if last > mas_pivot(mm, leaf, slot + 1, end):
            return 0
        WORD(mm, pivots + slot).word = index - 1
    else:
        return 0
    mas_update_gap(mm, leaf)
    return 1


@native
def mas_first_store(mm, big, index, last, entry):
    """Into an empty tree: one leaf, the root."""
    count = 0
    if index > 0:
        count = mab_add(mm, big, count, index - 1, NULL, 0)
    count = mab_add(mm, big, count, last, entry, 0)
    count = mab_add(mm, big, count, MT_MAX, NULL, 0)
    root = arena_alloc(mm, ARENA_NODE) << 8 | LEAF
    mab_write(mm, big, 0, count, root)
    WORD(mm, mt_base(root)).word = ROOT
    mm.mm_rb = root
    return 0


@native
def mas_wr_store(mm, big, left, index, last, entry):
    """The general store: what of the first leaf is below, the entry, what of the last leaf is above."""
    right = left
    if last > mas_node_max(mm, left):
        right = mas_leaf(mm, last)
    count = 0
    if index > mas_node_min(mm, left):
        count = mab_copy(mm, big, 0, left, 0, mas_offset(mm, left, index - 1))
        BIG(mm, big + count - 1).word = index - 1
    count = mab_add(mm, big, count, last, entry, 0)
    if last < mas_node_max(mm, right):
        count = mab_copy(mm, big, count, right, mas_offset(mm, right, last + 1), ma_data_end(mm, right))
    alone = WORD(mm, mt_base(left)).word == ROOT
    kept = left == right and count <= LEAF_LAST + 1 and (count >= LEAF_MIN or alone)
    if kept and (alone or BIG(mm, big + BIG_SLOTS + count - 1).word != NULL or mas_next_node(mm, left) == NULL):
        if count > 1 or entry != NULL:
            return mas_node_store(mm, big, count, left)
    return mas_replace(mm, big, count, left, right)


@native
def mas_store(mm, index, last, entry):
    """``entry`` (NULL: nothing) over [``index``, ``last``], whatever was there (mas_store_prealloc). O(log n)."""
    if mm.mm_rb == NULL and entry == NULL:
        return 0
    leaf = mm.mm_rb
    if leaf != NULL:
        leaf = mas_leaf(mm, index)
        if last <= mas_node_max(mm, leaf) and mas_slot_store(mm, leaf, index, last, entry):
            return 0
    number = arena_alloc(mm, ARENA_BIG)
    if mm.mm_rb == NULL:
        mas_first_store(mm, number << 7, index, last, entry)
    else:
        mas_wr_store(mm, number << 7, leaf, index, last, entry)
    return arena_free(mm, ARENA_BIG, number)


@native
def mt_holds(mm, addr, vma):
    """Is ``vma`` what the tree has at ``addr``?"""
    if mm.mm_rb == NULL:
        return 0
    leaf = mas_leaf(mm, addr)
    return int(WORD(mm, mt_slots(leaf) + mas_offset(mm, leaf, addr)).word == vma)


@native
def mt_insert(mm, vma):
    """Store it over its range."""
    return mas_store(mm, VMA(mm, vma).vm_start, VMA(mm, vma).vm_end - 1, vma)


@native
def mt_erase(mm, vma):
    """Nothing over its range, unless a merge has put another VMA there."""
    v = VMA(mm, vma)
    if mt_holds(mm, v.vm_start, vma):
        return mas_store(mm, v.vm_start, v.vm_end - 1, NULL)
    return 0


@native
def mt_resize(mm, vma, old_start, old_end):
    """Nothing where it no longer is, unless another VMA is there already; itself where it now is."""
    v = VMA(mm, vma)
    if v.vm_start > old_start and mt_holds(mm, old_start, vma):
        mas_store(mm, old_start, v.vm_start - 1, NULL)
    if v.vm_end < old_end and mt_holds(mm, old_end - 1, vma):
        mas_store(mm, v.vm_end, old_end - 1, NULL)
    if v.vm_start < old_start or v.vm_end > old_end:
        mas_store(mm, v.vm_start, v.vm_end - 1, vma)
    return 0


@native
def mt_exit(mm):
    """__mt_destroy: free every node, the leaves first, level by level."""
    if mm.mm_rb == NULL:
        return 0
    left = mas_leaf(mm, 0)
    parent = NULL
    while parent != ROOT:
        parent = WORD(mm, mt_base(left)).word
        node = left
        while node != NULL:
            following = mas_next_node(mm, node)
            ma_free(mm, node)
            node = following
        left = (parent >> 8) << 8 | ARANGE
    mm.mm_rb = NULL
    return 0


# ---- holes -----------------------------------------------------------------------------------------------------------


@native
def leaf_gap_rev(mm, leaf, low, high, length):
    """The end of the highest hole of a leaf that has ``length`` bytes within [low, high); 0 none; -1 none, and the
    leaf reaches down to ``low``."""
    slots = mt_slots(leaf)
    end = ma_data_end(mm, leaf)
    slot = mas_offset(mm, leaf, high - 1)
    while slot >= 0:
        bottom = WORD(mm, mt_base(leaf) + PIVOTS + slot - 1).word + 1
        if slot == 0:
            bottom = mas_node_min(mm, leaf)
        if WORD(mm, slots + slot).word == NULL:
            top = min(mas_pivot(mm, leaf, slot, end) + 1, high)
            if top - max(bottom, low) >= length:
                return top
        if bottom <= low:
            return -1
        slot -= 1
    return 0


@native
def mas_empty_area_rev(mm, low, high, length):
    """The end of the highest hole that has ``length`` bytes within [low, high), -1 if none. Visits only children whose
    gap is large enough: O(log n), but for the children that the bounds cut."""
    if mm.mm_rb == NULL:
        if high - low >= length:
            return high
        return -1
    enode = mm.mm_rb
    slot = mas_offset(mm, enode, high - 1)
    while 1:
        if mt_leaf(enode):
            found = leaf_gap_rev(mm, enode, low, high, length)
            if found != 0:
                return found
            slot = -1
        else:
            gaps = mt_base(enode) + INNER_GAPS
            while slot >= 0 and WORD(mm, gaps + slot).word < length:
                slot -= 1
        if slot >= 0:
            enode = WORD(mm, mt_slots(enode) + slot).word
            slot = mas_offset(mm, enode, high - 1)
        else:
            parent = WORD(mm, mt_base(enode)).word
            if parent == ROOT:
                return -1
            slot = ((parent >> 3) & 31) - 1
            enode = (parent >> 8) << 8 | ARANGE
    return -1


@native
def mt_gap_below(mm, length, low, high):
    """unmapped_area_topdown: the highest hole that still has the room below a stack's guard gap."""
    while high - low >= length:
        end = mas_empty_area_rev(mm, low, high, length)
        if end < 0:
            return -1
        above = mt_find(mm, end)
        if above == NULL or start_gap(mm, above) >= end:
            return end - length
        bottom = low
        if VMA(mm, above).vm_prev != NULL:
            bottom = max(low, VMA(mm, VMA(mm, above).vm_prev).vm_end)
        if start_gap(mm, above) - bottom >= length:
            return start_gap(mm, above) - length
        high = bottom
    return -1


# ---- the check -------------------------------------------------------------------------------------------------------


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
        if ma_data_end(mm, enode) + 1 < least:
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


@native
def always(mm):
    """mt_in_rcu: MT_FLAGS_USE_RCU is set."""
    return 1


def maple(rcu: bool = False) -> Index:
    """The index, with readers that hold mmap_lock or with readers that may hold nothing."""
    return Index(
        slabs=(WORD, NODE, BIG, BIG_NODE),
        find=mt_find,
        insert=mt_insert,
        erase=mt_erase,
        resize=mt_resize,
        gap_below=mt_gap_below,
        exit=mt_exit,
        check=mt_check,
        bind={"mt_in_rcu": always} if rcu else {},
    )


MESSAGES = {
    1: "the leaves do not give the list",
    2: "pivots do not ascend, or a node does not end where its parent says",
    3: "two holes in a row, or a leaf that ends in a hole",
    4: "a child's parent word does not name its parent and slot",
    5: "gap is not the largest hole in the child",
    6: "a node has too few ranges",
}


@hookimpl
def benchframe_strategies():
    """As in 6.1, and with leaves that are never rewritten."""
    return [
        Strategy("maple", "maple tree alone, 6.1", maple(), check_messages=MESSAGES),
        Strategy("maple_rcu", "maple tree in RCU mode, 6.3 on", maple(rcu=True), check_messages=MESSAGES),
    ]
