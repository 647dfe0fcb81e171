"""The maple tree, Linux 6.1 on: a B-tree of address ranges in 256-byte nodes.

History: by Liam Howlett and Matthew Wilcox. In 6.1 it replaced three things at once: the augmented rb-tree, the list
and vmacache. It is dense and shallow, and designed for readers without a lock.

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
content passes through a big node and is written back (mas_wr_node_store), split, or joined with a neighbour; nodes that
are left are dead and freed. Before a node splits, a sibling with room takes the excess (mas_push_data, as in a B*
tree): the left one is filled except for one slot, else the right one. So a tree filled in ascending or descending order
has nearly full nodes. `maple_rcu` (6.3 on, 3dd443254941; its fork 6.8 on) never rewrites a leaf in place: a new node
takes its slot, and the old one is dead. A split replaces nodes up to the first ancestor with room. A leaf that is left
with too few ranges is joined with its nearest neighbour, and a store over several leaves joins what is left of the
first and the last one, level by level up to the root.

Hole search: descend only where gap shows that there is room, from the top for mmap's search (mas_empty_area_rev). A
stack's guard gap is checked afterwards, with the search continued below it, as in unmapped_area_topdown. The search
from the bottom, a fallback, walks the list.

Invariants, by number (mt_validate's):
  1. the leaves give the list: each VMA once, over exactly its range
  2. pivots ascend and a node ends where its parent says
  3. no two holes in a row, and no leaf but the last ends in a hole
  4. a child's parent word names its parent and slot
  5. gap is the largest hole in the child
  6. a leaf holds at least 7 ranges, an inner node 5 children, where there is a neighbour; not so the last of a level,
     which a fork in bulk mode may leave smaller

`maple_copy` is `maple_rcu` with the splits and joins of 7.2, where struct maple_copy has replaced the big node: a node
and its sibling get half each, a leaf is joined with one neighbour, and a store ends at the first level that keeps its
bounds. Here the entries still pass through the big node.

Shape: node by node the kernel's, after any store from the same tree (`make kernel-judge`, with lib/maple_tree.c of 6.1
and 6.12; `maple_copy`: 7.2).

Stores are those of mm/vma.c: a VMA that is cut gives way to the store of the new one, a merge is the survivor's store,
and munmap stores NULL once, over all that it removes.

Differences to the kernel's: the list is kept, since other parts of the model use it. 6.1 appends in place behind a
leaf's last range (mas_wr_append), here that is a node store; and its walk checks twice per level whether the node is
dead. 6.12 maps over VMAs by one store, here, as before, munmap's store comes first. A merge that shrinks a neighbour
(cases 4 and 5) is one store, as in 6.12; 6.1 stores the neighbour, too. In `maple` fork stores the child's VMAs in bulk
mode, as up to 6.7, once all are known and from the root each; in `maple_rcu` it copies the tree (__mt_dup, 6.8) and
then stores each copied VMA into its slot, but walks to each from the root, and in RCU mode, which the kernel sets when
the child is complete. Nodes are not preallocated: before a store it is only asked whether the slab has enough
(mt_prepare). One store makes the new nodes visible; then the old nodes are marked dead, and in RCU mode wait for a
grace period. (Up to 6.5 a node was marked dead before its replacement was visible, so that readers restarted again and
again; 530f745c7620 and 72bcf4aa86ec reversed the order in 6.6.)

`maple` has the race of 6.1: a stack grows under mmap_lock for read, into a node that others read (B17). In RCU mode the
node is freed under such a reader, which is in no RCU section (B18, StackRot, 6.3 and 6.4). 6.5 grows stacks under
mmap_lock for write, and so do `maple_rcu` and the per-VMA locks here.

Text: the lookup, the calls and the hole search are here; nodes in `node`, stores in `store`, the check in `check`.
Sources: Linux 6.1 lib/maple_tree.c (mas_split, mas_push_data, mas_rebalance, mt_min_slots), include/linux/maple_tree.h,
mm/mmap.c; Documentation/core-api/maple_tree.rst; posted as 20220906194824.2110408-1-Liam.Howlett@oracle.com.
"""

from benchframe.api import Index, Protocol, Strategy, hookimpl, native, scenario
from benchframe.kernel import (
    MM,
    NULL,
    READ_ONCE,
    VMA,
    arena_room,
    grow_under_write_lock,
    rcu_assign_pointer,
    smp_rmb,
    start_gap,
)
from benchframe_plugins.maple.check import MESSAGES, mt_check
from benchframe_plugins.maple.node import (
    ARANGE,
    ARENA_NODE,
    BIG,
    BIG_NODE,
    INNER_GAPS,
    INNER_META,
    INNER_SLOTS,
    LEAF,
    LEAF_SLOTS,
    MT_MAX,
    NODE,
    PIVOTS,
    ROOT,
    STORE_NODES,
    TYPE_MASK,
    WORD,
    leaf_end,
    ma_data_end,
    ma_free,
    ma_free_rcu,
    mas_alloc_nodes,
    mas_leaf,
    mas_next_node,
    mas_node_min,
    mas_offset,
    mas_pivot,
    mt_base,
    mt_leaf,
    mt_slots,
)
from benchframe_plugins.maple.store import COPY, mas_bulk_store, mas_dup_build, mas_store

# ---- the lookup ------------------------------------------------------------------------------------------------------


@native
def mt_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(log n), base about 10. A dead node restarts the walk."""
    enode = READ_ONCE(mm, "mm_rb")
    top = MT_MAX
    while enode != NULL:
        base = mt_base(enode)
        slot = 0
        if (enode & TYPE_MASK) == LEAF:
            end = leaf_end(mm, base, top)
            while slot < end and WORD(mm, base + PIVOTS + slot).word < addr:
                slot += 1
            entry = WORD(mm, base + LEAF_SLOTS + slot).word
            if entry == NULL and slot < end:
                entry = WORD(mm, base + LEAF_SLOTS + slot + 1).word
            smp_rmb()
            if WORD(mm, base).word >> 8 != enode >> 8:
                return entry
            enode = READ_ONCE(mm, "mm_rb")
            top = MT_MAX
            continue
        end = WORD(mm, base + INNER_META).word
        while slot < end and WORD(mm, base + PIVOTS + slot).word < addr:
            slot += 1
        entry = WORD(mm, base + INNER_SLOTS + slot).word
        if slot < end:
            top = WORD(mm, base + PIVOTS + slot).word
        smp_rmb()
        if WORD(mm, base).word >> 8 == enode >> 8:
            enode = READ_ONCE(mm, "mm_rb")
            top = MT_MAX
        else:
            enode = entry
    return NULL


# ---- changes ---------------------------------------------------------------------------------------------------------


@native
def mt_prepare(mm, start, end):
    """mas_preallocate: whether the slab has the nodes that the store may need at most."""
    return int(arena_room(mm, ARENA_NODE) < STORE_NODES)


@native
def mt_insert(mm, vma):
    """Store the VMA over its range. In a split that takes the range from the one that was cut (vma_complete)."""
    return mas_store(mm, VMA(mm, vma).vm_start, VMA(mm, vma).vm_end - 1, vma)


@native
def mt_resize(mm, vma, old_start, old_end):
    """Store a VMA that grew over its new range. Where one shrank, the one that grew has been stored over it, or the new
    one will be."""
    v = VMA(mm, vma)
    if v.vm_start < old_start or v.vm_end > old_end:
        mas_store(mm, v.vm_start, v.vm_end - 1, vma)
    return 0


@native
def mt_erase(mm, vma):
    """Nothing: a merge has stored the survivor over its range, and munmap stores once, in :func:`mt_erase_range`."""
    return 0


@native
def mt_erase_range(mm, start, end):
    """Store NULL over a range (vma_iter_clear_gfp)."""
    return mas_store(mm, start, end - 1, NULL)


@native
def mt_dup(mm, new):
    """__mt_dup: the child's tree is a copy, node by node."""
    if mm.mm_rb != NULL:
        rcu_assign_pointer(MM(mm, new), "mm_rb", mas_dup_build(mm, mm.mm_rb))
    return 1


@native
def mt_wait_for_bulk(mm, new):
    """mas_expected_entries: the child's tree stays empty until its VMAs are known."""
    return 2


@native
def mt_bulk(mm):
    """Store the child's VMAs in order, in bulk mode: splits fill the left node, since nothing more goes there."""
    vma = mm.mmap
    while vma != NULL:
        mas_bulk_store(mm, VMA(mm, vma).vm_start, VMA(mm, vma).vm_end - 1, vma)
        vma = VMA(mm, vma).vm_next
    return 0


@native
def mt_exit(mm):
    """__mt_destroy: free every node, level by level, leaves first."""
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
    gap is large enough: O(log n), plus the children that the bounds cut."""
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
    """unmapped_area_topdown: the highest hole that is large enough below a stack's guard gap."""
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


# ---- RCU mode --------------------------------------------------------------------------------------------------------


@native
def always(mm):
    """mt_in_rcu: MT_FLAGS_USE_RCU is set."""
    return 1


def maple(
    rcu: bool = False, free: object = ma_free_rcu, dup: bool = False, preallocate: bool = False, copy: bool = False
) -> Index:
    """The index, for readers that hold mmap_lock or (``rcu``) for readers that may hold no lock; ``free`` then frees a
    dead node. ``dup``: fork copies the tree, as since 6.8; without, it stores the child's VMAs in bulk mode.
    ``preallocate``: a store asks the allocator for its nodes before it begins. ``copy``: nodes are split and joined as
    in 7.2, by struct maple_copy."""
    given = {"mt_in_rcu": always, "ma_free_memory": free} if rcu else {}
    if copy:
        given |= COPY
    if preallocate:
        given["mas_preallocate"] = mas_alloc_nodes
    return Index(
        slabs=(WORD, NODE, BIG, BIG_NODE),
        find=mt_find,
        prepare=mt_prepare,
        insert=mt_insert,
        erase=mt_erase,
        erase_range=mt_erase_range,
        resize=mt_resize,
        gap_below=mt_gap_below,
        exit=mt_exit,
        check=mt_check,
        bind=given,
        **({"dup": mt_dup} if dup else {"dup": mt_wait_for_bulk, "bulk": mt_bulk}),
    )


HALF_WRITTEN = scenario.KnownBug(
    "B17",
    "a stack that grows rewrites a node under a reader",
    ("mt_find",),
    kind="stale answer",
    scenarios=("stack-fills-hole",),
    says="T*: lookup, page 9 gave no VMA,*",
)


@hookimpl
def benchframe_strategies():
    """The tree as in 6.1, and the variant whose leaves are never rewritten."""
    return [
        Strategy("maple", "maple tree alone, 6.1", maple(), check_messages=MESSAGES, known_bugs=(HALF_WRITTEN,)),
        Strategy(
            "maple_rcu",
            "maple tree in RCU mode, 6.3 on",
            maple(rcu=True, dup=True),
            protocol=Protocol(vma_grow=grow_under_write_lock),
            check_messages=MESSAGES,
        ),
        Strategy(
            "maple_copy",
            "maple tree in RCU mode, 7.2",
            maple(rcu=True, dup=True, copy=True),
            protocol=Protocol(vma_grow=grow_under_write_lock),
            check_messages=MESSAGES,
        ),
    ]
