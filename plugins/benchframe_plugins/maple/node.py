"""The maple tree's nodes: layout, bounds, neighbours, gaps. See :mod:`benchframe_plugins.maple`."""

from benchframe.api import Field, PrivateSlab, hook, native
from benchframe.kernel import ARENA_PRIVATE0, NULL, arena_free, kfree_rcu, kmem_cache_prefill

SPARE = 62
NODE_WORDS = 32


def word_name(arrays, index):
    """What word ``index`` of :data:`WORD` is. Leaves and inner nodes differ, and only references say which one a node
    is: the root's, those in slots, and an inner node's children name their parent. Otherwise it has no name."""
    node, at = divmod(index, NODE_WORDS)
    words = arrays[WORD.base]["word"]
    references = [*arrays["mm_base"]["mm_rb"].tolist(), *words[words >> 8 == node].tolist()]
    name = ""
    if at == 0:
        name = "parent"
    elif node << 8 | LEAF in references:
        name = _part(at, pivot=PIVOTS, slot=LEAF_SLOTS) + ("/meta" if at == LEAF_META else "")
    elif node << 8 | ARANGE in references or any(r & 7 == 2 for r in references if r >> 8 == node):
        name = "meta" if at == INNER_META else _part(at, pivot=PIVOTS, slot=INNER_SLOTS, gap=INNER_GAPS)
    return f"{NODE.name} #{node}.{name}" if name else ""


def big_name(arrays, index):
    """What word ``index`` of :data:`BIG` is."""
    node, at = divmod(index, 128)
    return f"{BIG_NODE.name} #{node}.{_part(at, pivot=0, slot=BIG_SLOTS, gap=BIG_GAPS)}"


def _part(at, **firsts):
    """The array that word ``at`` belongs to, of those that begin at ``firsts`` in ascending order."""
    name = [name for name, first in firsts.items() if first <= at][-1]
    return f"{name}[{at - firsts[name]}]"


WORD = PrivateSlab(
    "maple_word",
    [Field("word", "i8", "32 to a node", lock="mmap_lock")],
    0,
    per_vma=32,
    fixed=32 * (SPARE + 2),
    part_of=(1, 5),
    says=word_name,
)
NODE = PrivateSlab(
    "maple_node",
    [Field("next", "i8", "node i is words 32 i on; the next node to retire", lock="mmap_lock")],
    1,
    1,
    SPARE,
    kmem_cache=256,
)
BIG = PrivateSlab(
    "maple_big",
    [Field("word", "i8", "a big node is 128 words", lock="mmap_lock")],
    2,
    per_vma=0,
    fixed=128 * 4,
    per_task=128,
    part_of=(3, 7),
    says=big_name,
    on_stack=8 * 128,
)
BIG_NODE = PrivateSlab(
    "maple_big_node",
    [Field("retired", "i8", "first node to retire after a store", lock="mmap_lock")],
    3,
    0,
    fixed=2,  # the checker gives none that the setup has used
    per_task=1,  # each may be in the middle of a store, in an mm of its own
    on_stack=8,  # a line
)
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
LEAF_MIN, INNER_MIN = 7, 5
"""Ranges, children. mt_min_slots returns 6 and 4, but is compared with the number of the last slot, counted from 0."""
LEAF_REST, INNER_REST = 6, 4
"""Entries that a split in bulk mode leaves to the node after: mt_min_slots."""
MT_MAX = (1 << 62) - 1
"""ULONG_MAX, with room above for signed sums."""
STORE_NODES = 28
"""The most nodes that a store makes: three for each of at most nine levels, and one (mas_preallocate)."""
BIG_SLOTS, BIG_GAPS, BIG_NEW = 40, 80, 36
"""In a big node: pivots from 0, slots, gaps; entries 36 to 38 are the children being made."""


@native
def mt_base(enode):
    """The first word of a node."""
    return (enode >> 8) << 5


@native
def mt_leaf(enode):
    """1 for a leaf."""
    return int((enode & TYPE_MASK) == LEAF)


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
    """The end of slot ``slot`` in a node whose last slot is ``end``."""
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
    """The leaf that covers ``addr``. The tree must have a root."""
    enode = mm.mm_rb
    while not mt_leaf(enode):
        enode = WORD(mm, mt_slots(enode) + mas_offset(mm, enode, addr)).word
    return enode


@native
def mas_next_node(mm, enode):
    """The next node on its level, NULL if it is the last."""
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
    """The previous node on its level, NULL if it is the first."""
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
def mas_sibling(mm, enode, step):
    """The previous (``step`` -1) or next (1) node under the same parent, NULL if there is none (mas_prev_sibling,
    mas_next_sibling)."""
    parent = WORD(mm, mt_base(enode)).word
    slot = ((parent >> 3) & 31) + step
    if parent == ROOT or slot < 0 or slot > WORD(mm, mt_base(parent) + INNER_META).word:
        return NULL
    return WORD(mm, mt_base(parent) + INNER_SLOTS + slot).word


@hook("index")
def mt_in_rcu(mm):
    """1: readers may be inside without a lock. A leaf is replaced rather than rewritten, and nodes wait for a grace
    period."""
    return 0


@hook("index")
def ma_free_memory(mm, node):
    """Free a node's memory at once."""
    return arena_free(mm, ARENA_NODE, node)


@hook("index")
def mas_preallocate(mm, replacing, spanning):
    """A store is about to make nodes: ``replacing`` more than the leaf, ``spanning`` several leaves. Nothing is asked
    for beforehand, where the tree is not part of a kernel's strategy."""
    return 0


@native
def mas_alloc_nodes(mm, replacing, spanning):
    """mas_prealloc_calc, 6.12: ask for what the store may need at most. O(height)."""
    if not replacing:
        return kmem_cache_prefill(mm, ARENA_NODE, mt_in_rcu(mm))
    height = 1
    enode = mm.mm_rb
    while not mt_leaf(enode):
        height += 1
        enode = WORD(mm, mt_slots(enode)).word
    if spanning:
        return kmem_cache_prefill(mm, ARENA_NODE, 3 * height + 1)
    return kmem_cache_prefill(mm, ARENA_NODE, 2 * height + 1)


@native
def ma_free_rcu(mm, node):
    """Free a node's memory after a grace period (ma_free_rcu)."""
    return kfree_rcu(mm, ARENA_NODE, node)


@native
def ma_free(mm, enode):
    """Mark the node dead (its parent becomes itself, mte_set_node_dead) and free its memory once its readers have
    finished."""
    WORD(mm, mt_base(enode)).word = (enode >> 8) << 8
    return ma_free_memory(mm, enode >> 8)


@native
def ma_retire(mm, number, enode):
    """Remember in big node ``number`` to mark the node dead once its replacement is visible (mat_add)."""
    NODE(mm, enode >> 8).next = BIG_NODE(mm, number).retired
    BIG_NODE(mm, number).retired = enode >> 8
    return 0


@native
def mas_free_retired(mm, number):
    """The replacements are in the tree: mark the old nodes dead (mat_free). Readers that are inside restart."""
    node = BIG_NODE(mm, number).retired
    BIG_NODE(mm, number).retired = NULL
    while node != NULL:
        following = NODE(mm, node).next
        ma_free(mm, node << 8)
        node = following
    return 0


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
    """A leaf's holes changed: update its ancestors, as far as they are affected."""
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
