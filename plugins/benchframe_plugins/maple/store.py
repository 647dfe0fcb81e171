"""The maple tree's stores: the big node, replacing, splitting and joining nodes (lib/maple_tree.c mas_wr_*, mab_*).

See :mod:`benchframe_plugins.maple`. In all functions here the caller holds mmap_lock for write.
"""

from benchframe.api import hook, native
from benchframe.kernel import NULL, WRITE_ONCE, arena_alloc, arena_free, kmem_cache_return, rcu_assign_pointer
from benchframe_plugins.maple.node import (
    ARANGE,
    ARENA_BIG,
    ARENA_NODE,
    BIG,
    BIG_GAPS,
    BIG_NEW,
    BIG_SLOTS,
    INNER_GAPS,
    INNER_LAST,
    INNER_META,
    INNER_MIN,
    INNER_REST,
    INNER_SLOTS,
    LEAF,
    LEAF_LAST,
    LEAF_META,
    LEAF_MIN,
    LEAF_REST,
    MT_MAX,
    NODE_WORDS,
    PIVOTS,
    ROOT,
    TYPE_MASK,
    WORD,
    ma_data_end,
    ma_free,
    ma_retire,
    mas_free_retired,
    mas_leaf,
    mas_next_node,
    mas_node_max,
    mas_node_min,
    mas_offset,
    mas_pivot,
    mas_preallocate,
    mas_prev_node,
    mas_sibling,
    mas_update_gap,
    mt_base,
    mt_in_rcu,
    mt_leaf,
    mt_slots,
)

BULK = 2
"""A split in bulk mode (MA_STATE_BULK): VMAs arrive in order."""

# ---- the big node ----------------------------------------------------------------------------------------------------


@native
def mab_add(mm, big, count, pivot, entry, gap):
    """Append a range that ends at ``pivot``; a hole after a hole is merged with it. Returns the new count."""
    if count > 0 and entry == NULL and BIG(mm, big + BIG_SLOTS + count - 1).word == NULL:
        BIG(mm, big + count - 1).word = pivot
        return count
    BIG(mm, big + count).word = pivot
    BIG(mm, big + BIG_SLOTS + count).word = entry
    BIG(mm, big + BIG_GAPS + count).word = gap
    return count + 1


@native
def mab_copy(mm, big, count, enode, first, last):
    """Append slots ``first`` to ``last`` of a node (mas_mab_cp). Returns the new count."""
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
    """Put a whole node before the current content. Returns the new count."""
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


@hook("index")
def mab_split(mm, big, first, rest, nodes, leaf, share):
    """How many of the ``rest`` entries from ``first`` go into the next of ``nodes`` nodes: ``share`` (0: an equal
    part), but so that a leaf does not end in a hole (mab_calc_split, mab_no_null_split)."""
    size = share
    if size == 0:
        size = (rest + nodes - 1) // nodes
    if leaf and nodes > 1 and BIG(mm, big + BIG_SLOTS + first + size - 1).word == NULL:
        if size <= LEAF_LAST:
            return size + 1
        return size - 1
    return size


@native
def mab_bulk_split(mm, big, count, leaf):
    """How many of ``count`` entries stay in the first of two nodes in bulk mode: all that the next one can do without,
    since what comes will go there. A leaf does not end in a hole (mab_calc_split with MA_STATE_BULK, 6.1)."""
    if not leaf:
        return count - INNER_REST
    return count - LEAF_REST - int(BIG(mm, big + BIG_SLOTS + count - LEAF_REST - 1).word == NULL)


@native
def mab_nodes(mm, big, count, leaf):
    """The number of nodes that ``count`` entries need: three if two are too small, or if they would be full and a hole
    is at the split (mab_middle_node)."""
    full = INNER_LAST + 1
    if leaf:
        full = LEAF_LAST + 1
    if count <= full:
        return 1
    if count > 2 * full or (leaf and count == 2 * full and BIG(mm, big + BIG_SLOTS + full - 1).word == NULL):
        return 3
    return 2


@hook("index")
def mab_third(mm, big, count, first, leaf):
    """How many of ``count`` entries go into the next of three nodes, which begins with ``first``: the splits are after
    a third and after two, moved forwards and backwards off a hole (mab_calc_split, mab_no_null_split)."""
    third = (count - 1) // 3
    if first == 0:
        if leaf and BIG(mm, big + BIG_SLOTS + third).word == NULL:
            return third + 2
        return third + 1
    if first > third + 2:
        return count - first
    if leaf and BIG(mm, big + BIG_SLOTS + 2 * third).word == NULL:
        return 2 * third - first
    return 2 * third + 1 - first


# ---- replacing nodes -------------------------------------------------------------------------------------------------


@native
def mas_make(mm, big, count, leaf, low, share):
    """Make nodes of the big node's content, which begins at ``low``; they become entries BIG_NEW and following. Returns
    their number. The first gets ``share`` entries (0: all get equally many)."""
    nodes = mab_nodes(mm, big, count, leaf)
    kind = ARANGE
    if leaf:
        kind = LEAF
    first = 0
    made = 0
    while made < nodes:
        if nodes == 3:
            size = mab_third(mm, big, count, first, leaf)
        else:
            size = mab_split(mm, big, first, count - first, nodes - made, leaf, share)
        share = 0
        enode = arena_alloc(mm, ARENA_NODE) << 8 | kind
        mab_write(mm, big, first, size, enode)
        first += size
        top = BIG(mm, big + first - 1).word
        # Compute the gap as soon as the node's end is known: its parent does not exist yet.
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
def mas_retire_level(mm, big, left, right):
    """The nodes ``left`` to ``right`` of one level will be replaced."""
    while left != right:
        following = mas_next_node(mm, left)
        ma_retire(mm, big >> 7, left)
        left = following
    return ma_retire(mm, big >> 7, right)


@native
def mas_new_root(mm, big, nodes):
    """``nodes`` new nodes are the whole level: the node, or a new node above them, becomes the root, by one store; then
    the old nodes are marked dead (mas_root_split, mas_topiary_replace)."""
    root = BIG(mm, big + BIG_SLOTS + BIG_NEW).word
    if nodes > 1:
        root = arena_alloc(mm, ARENA_NODE) << 8 | ARANGE
        mab_write(mm, big, BIG_NEW, nodes, root)
    while not mt_leaf(root) and ma_data_end(mm, root) == 0:
        child = WORD(mm, mt_slots(root)).word
        ma_free(mm, root)
        root = child
    WORD(mm, mt_base(root)).word = ROOT
    if mt_leaf(root) and ma_data_end(mm, root) == 0 and WORD(mm, mt_slots(root)).word == NULL:
        ma_free(mm, root)
        root = NULL
    rcu_assign_pointer(mm, "mm_rb", root)
    return mas_free_retired(mm, big >> 7)


@native
def mas_put_in_tree(mm, big, parent):
    """The one new node of a level takes the old one's place under ``parent``, by one store; then the old nodes are
    marked dead (mas_split_final_node, mas_wmb_replace)."""
    new = BIG(mm, big + BIG_SLOTS + BIG_NEW).word
    WORD(mm, mt_base(new)).word = parent
    rcu_assign_pointer(WORD(mm, mt_base(parent) + INNER_SLOTS + ((parent >> 3) & 31)), "word", new)
    mas_free_retired(mm, big >> 7)
    return mas_update_gap(mm, new)


@hook("index")
def mas_has_room(mm, count, enode, sibling):
    """Whether the ``count`` entries for ``enode``, too many for one node, and those of its sibling fit into two nodes
    with a slot left in each. Then no split is needed (mas_push_data)."""
    room = 2 * INNER_LAST
    if mt_leaf(enode):
        room = 2 * LEAF_LAST - 1
    if mas_node_max(mm, enode) == MT_MAX:
        room -= 1
    return int(sibling != NULL and count - 1 + ma_data_end(mm, sibling) < room)


@hook("index")
def mas_joins(mm, left, right):
    """How many neighbours may be joined with the leaves ``left`` to ``right``, if too little is left of them:
    mas_rebalance begins with a sibling of its leaf's, whatever comes of it."""
    return 1 + int(left == right)


@hook("index")
def mas_converged(mm, splitting, nodes, left, right):
    """Whether the level above stays as it is, but for the one node that is new: only a split looks for that."""
    return int(splitting and nodes == 1)


@native
def mas_nearest(mm, left, right):
    """The side of the nearest neighbour of the nodes ``left`` to ``right`` of one level: 1 after them, -1 before, 0 if
    they are the whole level. It has the nearest common ancestor; of two equally near ones the one after counts
    (mast_spanning_rebalance)."""
    before = WORD(mm, mt_base(left)).word
    after = WORD(mm, mt_base(right)).word
    while after != ROOT:
        if (after >> 3) & 31 < WORD(mm, mt_base(after) + INNER_META).word:
            return 1
        if (before >> 3) & 31 > 0:
            return -1
        before = WORD(mm, mt_base(before)).word
        after = WORD(mm, mt_base(after)).word
    return 0


@native
def mas_replace(mm, big, count, left, right, splitting):
    """Replace the nodes ``left`` to ``right`` of one level by the big node's content: make new nodes, mark the old ones
    dead, update the level above, and so on.

    ``splitting``: a leaf overflows (:data:`BULK`: in bulk mode). Each level that does tries its siblings first, as in
    a B* tree, and the first ancestor with room is the last node that is replaced (mas_split). Otherwise it goes on up
    to the root; a level with too few entries is joined with its nearest neighbour, and one with too many is split
    evenly (mas_rebalance, mas_spanning_rebalance).
    """
    joins = mas_joins(mm, left, right)
    while 1:
        leaf = mt_leaf(left)
        least = INNER_MIN
        full = INNER_LAST + 1
        if leaf:
            least = LEAF_MIN
            full = LEAF_LAST + 1
        share = 0
        while joins > 0 and not splitting and count < least:
            side = mas_nearest(mm, left, right)
            if side > 0:
                right = mas_next_node(mm, right)
                count = mab_copy(mm, big, count, right, 0, ma_data_end(mm, right))
            elif side < 0:
                left = mas_prev_node(mm, left)
                count = mab_prepend(mm, big, count, left)
            joins -= 1
        joins = 1
        if splitting and count > full:
            prev = mas_sibling(mm, left, -1)
            following = mas_sibling(mm, left, 1)
            if mas_has_room(mm, count, left, prev):
                count = mab_prepend(mm, big, count, prev)
                left = prev
                share = full - 1
            elif mas_has_room(mm, count, left, following):
                count = mab_copy(mm, big, count, following, 0, ma_data_end(mm, following))
                right = following
                share = count - full + 1
            elif splitting == BULK:
                share = mab_bulk_split(mm, big, count, leaf)
        nodes = mas_make(mm, big, count, leaf, mas_node_min(mm, left), share)
        first = WORD(mm, mt_base(left)).word
        last = WORD(mm, mt_base(right)).word
        mas_retire_level(mm, big, left, right)
        if first == ROOT:
            return mas_new_root(mm, big, nodes)
        if mas_converged(mm, splitting, nodes, left, right):
            return mas_put_in_tree(mm, big, first)
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


# ---- the stores of 7.2 -----------------------------------------------------------------------------------------------


@native
def cp_has_room(mm, count, enode, sibling):
    """data_fits: as :func:`mas_has_room`, but one slot of both nodes together stays free."""
    room = 2 * (INNER_LAST + 1)
    if mt_leaf(enode):
        room = 2 * (LEAF_LAST + 1)
    return int(sibling != NULL and count + ma_data_end(mm, sibling) + 1 < room)


@native
def cp_split(mm, big, first, rest, nodes, leaf, share):
    """Half of the entries, whether a sibling's are among them or not, and one less where that would be a hole
    (dst_setup, cp_data_write)."""
    size = (rest + nodes - 1) // nodes
    if leaf and nodes > 1 and BIG(mm, big + BIG_SLOTS + first + size - 1).word == NULL:
        return size - 1
    return size


@native
def cp_third(mm, big, count, first, leaf):
    """The first two nodes get a third of the entries and one more, each one less where that would be a hole
    (dst_setup, cp_data_write)."""
    third = (count + 2) // 3 + 1
    end = third
    if first > third:
        return count - first
    if first > 0:
        end = 2 * third
    if leaf and BIG(mm, big + BIG_SLOTS + end - 1).word == NULL:
        end -= 1
    return end - first


@native
def cp_joins(mm, left, right):
    """One neighbour, of a leaf as of leaves (rebalance_data, spanning_data)."""
    return 1


@native
def cp_converged(mm, splitting, nodes, left, right):
    """One node that takes one node's place ends any store (cp_converged, spanning_ascend)."""
    return int(nodes == 1 and left == right)


COPY = {
    "mas_has_room": cp_has_room,
    "mab_split": cp_split,
    "mab_third": cp_third,
    "mas_joins": cp_joins,
    "mas_converged": cp_converged,
}
"""What stores do otherwise since the big node gave way to struct maple_copy."""

# ---- one leaf --------------------------------------------------------------------------------------------------------


@native
def mas_node_store(mm, big, count, leaf):
    """The leaf keeps its range: rewrite it, or replace it if readers may be inside (mas_wr_node_store)."""
    if not mt_in_rcu(mm):
        mab_write(mm, big, 0, count, leaf)
        return mas_update_gap(mm, leaf)
    new = arena_alloc(mm, ARENA_NODE) << 8 | LEAF
    mab_write(mm, big, 0, count, new)
    parent = WORD(mm, mt_base(leaf)).word
    WORD(mm, mt_base(new)).word = parent
    if parent == ROOT:
        rcu_assign_pointer(mm, "mm_rb", new)
    else:
        rcu_assign_pointer(WORD(mm, mt_base(parent) + INNER_SLOTS + ((parent >> 3) & 31)), "word", new)
    ma_free(mm, leaf)
    return mas_update_gap(mm, new)


# ---- stores ----------------------------------------------------------------------------------------------------------


@native
def mas_slot_store(mm, leaf, index, last, entry):
    """If possible, store without adding or removing a range (mas_wr_slot_store); 1 if done."""
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
        rcu_assign_pointer(WORD(mm, slots + slot), "word", entry)
        if entry != NULL and old != NULL:  # no hole came or went
            return 1
    elif old == entry and slot < end and last > top:  # it grows into the next range
        if last >= mas_pivot(mm, leaf, slot + 1, end):
            return 0
        WRITE_ONCE(WORD(mm, pivots + slot), "word", last)
    elif (
        index == low and slot > 0 and last < top and WORD(mm, slots + slot - 1).word == entry
    ):  # the previous one grows
        WRITE_ONCE(WORD(mm, pivots + slot - 1), "word", last)
    elif index > low and slot < end and last >= top and WORD(mm, slots + slot + 1).word == entry:  # the next grows down
        if last > mas_pivot(mm, leaf, slot + 1, end):
            return 0
        WRITE_ONCE(WORD(mm, pivots + slot), "word", index - 1)
    else:
        return 0
    mas_update_gap(mm, leaf)
    return 1


@native
def mas_first_store(mm, big, index, last, entry):
    """Store into an empty tree: one leaf, which is the root."""
    count = 0
    if index > 0:
        count = mab_add(mm, big, count, index - 1, NULL, 0)
    count = mab_add(mm, big, count, last, entry, 0)
    count = mab_add(mm, big, count, MT_MAX, NULL, 0)
    root = arena_alloc(mm, ARENA_NODE) << 8 | LEAF
    mab_write(mm, big, 0, count, root)
    WORD(mm, mt_base(root)).word = ROOT
    rcu_assign_pointer(mm, "mm_rb", root)
    return 0


@native
def mas_wr_end(mm, left, last, entry):
    """The leaf in which a store ends that begins in leaf ``left``. It spans leaves if it reaches beyond the first one,
    or puts a hole at its end (mas_is_span_wr). Then it takes in the range after it, so that no leaf ends in a hole;
    but not beyond the lowest node that has all of it, where this walk begins (mas_wr_spanning_store)."""
    need = last
    if entry == NULL:
        need = min(last + 1, MT_MAX)
    node = left
    top = mas_node_max(mm, left)
    if need <= top:
        return left
    while need > top:
        node = (WORD(mm, mt_base(node)).word >> 8) << 8 | ARANGE
        top = mas_node_max(mm, node)
    need = min(last + 1, top)
    while not mt_leaf(node):
        node = WORD(mm, mt_slots(node) + mas_offset(mm, node, need)).word
    return node


@native
def mas_wr_store(mm, big, left, index, last, entry):
    """The general store: the first leaf's ranges below the entry, the entry, the last leaf's ranges above it."""
    right = mas_wr_end(mm, left, last, entry)
    spanning = right != left
    count = 0
    if index > mas_node_min(mm, left):
        count = mab_copy(mm, big, 0, left, 0, mas_offset(mm, left, index - 1))
        BIG(mm, big + count - 1).word = index - 1
    count = mab_add(mm, big, count, last, entry, 0)
    if last < mas_node_max(mm, right):
        count = mab_copy(mm, big, count, right, mas_offset(mm, right, last + 1), ma_data_end(mm, right))
    alone = WORD(mm, mt_base(left)).word == ROOT
    if not spanning and count <= LEAF_LAST + 1 and (count >= LEAF_MIN or alone) and (count > 1 or entry != NULL):
        mas_preallocate(mm, 0, 0)
        return mas_node_store(mm, big, count, left)
    mas_preallocate(mm, 1, spanning)
    return mas_replace(mm, big, count, left, right, not spanning and count > LEAF_LAST + 1)


@native
def mas_store(mm, index, last, entry):
    """Store ``entry`` (NULL: nothing) over [``index``, ``last``], replacing what was there (mas_store_prealloc). O(log
    n)."""
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
        kmem_cache_return(mm, ARENA_NODE)
    return arena_free(mm, ARENA_BIG, number)


@native
def mas_bulk_store(mm, index, last, entry):
    """mas_store in bulk mode: a VMA behind everything in the tree, whose end is a hole. Nobody reads the tree yet, so
    the last leaf is rewritten. Its nodes are asked for store by store. O(log n)."""
    number = arena_alloc(mm, ARENA_BIG)
    big = number << 7
    if mm.mm_rb == NULL:
        mas_first_store(mm, big, index, last, entry)
        return arena_free(mm, ARENA_BIG, number)
    leaf = mas_leaf(mm, index)
    hole = ma_data_end(mm, leaf)
    count = mab_copy(mm, big, 0, leaf, 0, hole - 1)
    if index > WORD(mm, mt_base(leaf) + PIVOTS + hole - 1).word + 1:
        count = mab_add(mm, big, count, index - 1, NULL, 0)
    count = mab_add(mm, big, count, last, entry, 0)
    count = mab_add(mm, big, count, MT_MAX, NULL, 0)
    if count <= LEAF_LAST + 1:
        mab_write(mm, big, 0, count, leaf)
        mas_update_gap(mm, leaf)
    else:
        mas_preallocate(mm, 1, 0)
        mas_replace(mm, big, count, leaf, leaf, BULK)
        kmem_cache_return(mm, ARENA_NODE)
    return arena_free(mm, ARENA_BIG, number)


# ---- a copy of the tree ----------------------------------------------------------------------------------------------


@native
def mas_copy_node(mm, enode, new, parent):
    """memcpy of a node, and the parent word of the copy."""
    source = mt_base(enode)
    target = mt_base(new)
    word = 1
    while word < NODE_WORDS:
        WORD(mm, target + word).word = WORD(mm, source + word).word
        word += 1
    WORD(mm, target).word = parent
    return 0


@native
def mas_dup_alloc(mm, enode, new):
    """New nodes for the children of an inner node's copy, of the same types; still without contents."""
    slots = mt_slots(enode)
    end = ma_data_end(mm, enode)
    slot = 0
    while slot <= end:
        child = arena_alloc(mm, ARENA_NODE) << 8 | WORD(mm, slots + slot).word & TYPE_MASK
        WORD(mm, mt_slots(new) + slot).word = child
        slot += 1
    return 0


@native
def mas_dup_build(mm, root):
    """A copy of the tree below ``root`` in new nodes: its root. A node before its children, one after the other; all
    children of a node are allocated at once. O(nodes)."""
    top = arena_alloc(mm, ARENA_NODE) << 8 | root & TYPE_MASK
    enode = root
    new = top
    parent = ROOT
    while 1:
        mas_copy_node(mm, enode, new, parent)
        slot = 0
        if mt_leaf(enode):
            up = WORD(mm, mt_base(enode)).word
            while up != ROOT and (up >> 3) & 31 == WORD(mm, mt_base(up) + INNER_META).word:
                parent = WORD(mm, mt_base(parent)).word
                up = WORD(mm, mt_base(up)).word
            if up == ROOT:
                return top
            slot = ((up >> 3) & 31) + 1
            enode = (up >> 8) << 8 | ARANGE
            new = (parent >> 8) << 8 | ARANGE
        else:
            mas_dup_alloc(mm, enode, new)
        parent = (new >> 8) << 8 | slot << 3 | 2
        enode = WORD(mm, mt_slots(enode) + slot).word
        new = WORD(mm, mt_slots(new) + slot).word
    return top
