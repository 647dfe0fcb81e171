"""A B+tree with 16 keys to a node: a yardstick, like a maple tree without holes, ranges and dead nodes.

Layout: nodes of 320 bytes, five cache lines, in the words of a private slab.
```
  line 0      parent, count, level (0: leaf)          a lookup does not read it
  lines 1, 2  16 keys: vm_start in a leaf, the lowest vm_start below in an inner node; KEY_MAX where unused
  lines 3, 4  16 values: VMAs, children
```
Lookup: on each level all 16 keys are compared, without a branch, and the number of those not above addr says where to
go. The leaf names the last VMA that starts at or below addr; the VMA's line tells whether it contains addr, else the
answer is its vm_next. Three lines a level, log16(n) levels full, log8(n) when grown in order.

Update: keys and values move within a node; a full node is split in half; a node with fewer than 4 entries is joined
with a neighbour under the same parent if both fit in one; an empty one is freed. Where a first key changes, the
ancestors' keys follow.

Invariants, by number:
  1. the leaves give the list
  2. keys ascend, a leaf's are the VMAs' vm_start, unused ones are KEY_MAX
  3. an inner key is the lowest key below it
  4. a child names its parent and is one level below it
  5. no node is empty

Concurrency: readers hold mmap_lock for read.
Sources: Comer, "The ubiquitous B-tree", ACM Computing Surveys 11, 1979.
"""

from benchframe.api import Field, Index, PrivateSlab, Strategy, hookimpl, native
from benchframe.kernel import ARENA_PRIVATE0, NULL, VMA, arena_alloc, arena_free

SPARE = 62


def word_name(arrays, index):
    """What word ``index`` of :data:`WORD` is."""
    node, at = divmod(index, WORDS)
    names = {PARENT: "parent", COUNT: "count", LEVEL: "level"}
    array = f"key[{at - KEYS}]" if at < VALUES else f"value[{at - VALUES}]"
    return f"{NODE.name} #{node}.{names.get(at, array)}"


WORD = PrivateSlab(
    "btree_word",
    [Field("word", "i8", "40 to a node", lock="mmap_lock")],
    0,
    per_vma=40,
    fixed=40 * (SPARE + 2),
    first=40,
    says=word_name,
)
NODE = PrivateSlab(
    "btree_node",
    [Field("state", "i8", "slot of the allocator: node i is words 40 i on", lock="mmap_lock")],
    1,
    1,
    SPARE,
)
ARENA_NODE = ARENA_PRIVATE0 + 1
WORDS, PARENT, COUNT, LEVEL, KEYS, VALUES = 40, 0, 1, 2, 8, 24
"""Words of a node, and the offsets of its parts."""
FULL, HALF, FEW = 16, 8, 4
KEY_MAX = (1 << 63) - 1


# ---- within a node: insert, remove and move entries ------------------------------------------------------------------


@native
def bt_get(mm, node, at):
    """One word of a node."""
    return WORD(mm, node * WORDS + at).word


@native
def bt_set(mm, node, at, value):
    """Store one word of a node."""
    WORD(mm, node * WORDS + at).word = value
    return 0


@native
def bt_new(mm, level):
    """An empty node."""
    node = arena_alloc(mm, ARENA_NODE)
    bt_set(mm, node, PARENT, NULL)
    bt_set(mm, node, COUNT, 0)
    bt_set(mm, node, LEVEL, level)
    at = 0
    while at < FULL:
        bt_set(mm, node, KEYS + at, KEY_MAX)
        at += 1
    return node


@native
def bt_slot(mm, parent, node):
    """The index of the child ``node`` in ``parent``."""
    slot = 0
    while bt_get(mm, parent, VALUES + slot) != node:
        slot += 1
    return slot


@native
def bt_put(mm, node, at, key, value):
    """Write an entry; in a child, also set its parent."""
    bt_set(mm, node, KEYS + at, key)
    bt_set(mm, node, VALUES + at, value)
    if bt_get(mm, node, LEVEL) > 0:
        bt_set(mm, value, PARENT, node)
    return 0


@native
def bt_open(mm, node, at, key, value):
    """Insert an entry at ``at``; the node has room."""
    last = bt_get(mm, node, COUNT)
    bt_set(mm, node, COUNT, last + 1)
    while last > at:
        bt_set(mm, node, KEYS + last, bt_get(mm, node, KEYS + last - 1))
        bt_set(mm, node, VALUES + last, bt_get(mm, node, VALUES + last - 1))
        last -= 1
    return bt_put(mm, node, at, key, value)


@native
def bt_close(mm, node, at):
    """Remove the entry at ``at``."""
    last = bt_get(mm, node, COUNT) - 1
    while at < last:
        bt_set(mm, node, KEYS + at, bt_get(mm, node, KEYS + at + 1))
        bt_set(mm, node, VALUES + at, bt_get(mm, node, VALUES + at + 1))
        at += 1
    bt_set(mm, node, KEYS + last, KEY_MAX)
    return bt_set(mm, node, COUNT, last)


@native
def bt_move(mm, source, first, target):
    """Append the entries of ``source`` from ``first`` on to ``target``."""
    count = bt_get(mm, source, COUNT)
    to = bt_get(mm, target, COUNT)
    at = first
    while at < count:
        bt_put(mm, target, to, bt_get(mm, source, KEYS + at), bt_get(mm, source, VALUES + at))
        bt_set(mm, source, KEYS + at, KEY_MAX)
        at += 1
        to += 1
    bt_set(mm, source, COUNT, first)
    return bt_set(mm, target, COUNT, to)


# ---- the tree --------------------------------------------------------------------------------------------------------


@native
def bt_rank(mm, node, addr):
    """How many keys of a node are not above ``addr``. Always 16 comparisons, no branch."""
    base = node * WORDS + KEYS
    rank = 0
    for at in range(FULL):
        rank += int(WORD(mm, base + at).word <= addr)
    return rank


@native
def bt_leaf(mm, addr):
    """The leaf for a VMA that starts at ``addr``. The tree must have a root."""
    node = mm.mm_rb
    level = mm.strategy0
    while level > 0:
        node = bt_get(mm, node, VALUES + max(bt_rank(mm, node, addr) - 1, 0))
        level -= 1
    return node


@native
def bt_find(mm, addr):
    """The first VMA with ``addr < vm_end``, NULL if none. O(log n)."""
    if mm.mm_rb == NULL:
        return NULL
    leaf = bt_leaf(mm, addr)
    rank = bt_rank(mm, leaf, addr)
    if rank == 0:
        return mm.mmap
    vma = bt_get(mm, leaf, VALUES + rank - 1)
    if addr < VMA(mm, vma).vm_end:
        return vma
    return VMA(mm, vma).vm_next


@native
def bt_neighbour(mm, node, step):
    """The node before (-1) or after (1) on the same level, NULL if there is none."""
    level = bt_get(mm, node, LEVEL)
    parent = bt_get(mm, node, PARENT)
    while parent != NULL:
        slot = bt_slot(mm, parent, node) + step
        if slot >= 0 and slot < bt_get(mm, parent, COUNT):
            node = bt_get(mm, parent, VALUES + slot)
            while bt_get(mm, node, LEVEL) > level:
                slot = 0
                if step < 0:
                    slot = bt_get(mm, node, COUNT) - 1
                node = bt_get(mm, node, VALUES + slot)
            return node
        node = parent
        parent = bt_get(mm, node, PARENT)
    return NULL


@native
def bt_add(mm, node, at, key, value):
    """Insert an entry into a node; split full nodes, upwards as far as necessary."""
    while bt_get(mm, node, COUNT) == FULL:
        new = bt_new(mm, bt_get(mm, node, LEVEL))
        bt_move(mm, node, HALF, new)
        if at > HALF:
            bt_open(mm, new, at - HALF, key, value)
        else:
            bt_open(mm, node, at, key, value)
        parent = bt_get(mm, node, PARENT)
        if parent == NULL:
            parent = bt_new(mm, bt_get(mm, node, LEVEL) + 1)
            bt_open(mm, parent, 0, bt_get(mm, node, KEYS), node)
            mm.mm_rb = parent
            mm.strategy0 += 1
        at = bt_slot(mm, parent, node) + 1
        node = parent
        key = bt_get(mm, new, KEYS)
        value = new
    return bt_open(mm, node, at, key, value)


@native
def bt_rekey(mm, node, slot):
    """The key of entry ``slot`` of a node changed: if it is the first entry, update the ancestors' keys."""
    key = bt_get(mm, node, KEYS)
    parent = bt_get(mm, node, PARENT)
    while slot == 0 and parent != NULL:
        slot = bt_slot(mm, parent, node)
        bt_set(mm, parent, KEYS + slot, key)
        node = parent
        parent = bt_get(mm, node, PARENT)
    return 0


@native
def bt_insert(mm, vma):
    """Insert ``vma`` by its start. O(log n)."""
    start = VMA(mm, vma).vm_start
    if mm.mm_rb == NULL:
        mm.mm_rb = bt_new(mm, 0)
        mm.strategy0 = 0
    leaf = bt_leaf(mm, start)
    rank = bt_rank(mm, leaf, start)
    bt_add(mm, leaf, rank, start, vma)
    return bt_rekey(mm, leaf, rank)


@native
def bt_locate(mm, vma, start):
    """The leaf that holds ``vma``, inserted with ``start``; after a merge the next VMA may have the same start."""
    leaf = bt_leaf(mm, start)
    slot = bt_rank(mm, leaf, start) - 1
    while slot < 0 or bt_get(mm, leaf, VALUES + slot) != vma:
        slot -= 1
        if slot < 0:
            leaf = bt_neighbour(mm, leaf, -1)
            slot = bt_get(mm, leaf, COUNT) - 1
    return leaf


@native
def bt_join(mm, node):
    """Join ``node`` with a neighbour under the same parent if both fit in one; returns the one that is now empty, or
    NULL."""
    parent = bt_get(mm, node, PARENT)
    if parent == NULL:
        return NULL
    slot = bt_slot(mm, parent, node)
    count = bt_get(mm, node, COUNT)
    if slot + 1 < bt_get(mm, parent, COUNT):
        other = bt_get(mm, parent, VALUES + slot + 1)
        if count + bt_get(mm, other, COUNT) <= FULL:
            bt_move(mm, other, 0, node)
            return other
    if slot > 0:
        other = bt_get(mm, parent, VALUES + slot - 1)
        if count + bt_get(mm, other, COUNT) <= FULL:
            bt_move(mm, node, 0, other)
            return node
    return NULL


@native
def bt_remove(mm, node, at):
    """Remove the entry at ``at``; update the ancestors' keys."""
    bt_close(mm, node, at)
    if bt_get(mm, node, COUNT) > 0:
        bt_rekey(mm, node, at)
    return 0


@native
def bt_shrink(mm, node):
    """``node`` lost an entry: join it, free empty nodes, upwards; if the root has one child, the child becomes the
    root."""
    while node != NULL and bt_get(mm, node, COUNT) < FEW:
        parent = bt_get(mm, node, PARENT)
        empty = node
        if bt_get(mm, node, COUNT) > 0:
            empty = bt_join(mm, node)
        if empty != NULL and (parent != NULL or bt_get(mm, node, COUNT) == 0):
            if parent == NULL:
                mm.mm_rb = NULL
            else:
                bt_remove(mm, parent, bt_slot(mm, parent, empty))
            arena_free(mm, ARENA_NODE, empty)
        node = parent
    while mm.mm_rb != NULL and mm.strategy0 > 0 and bt_get(mm, mm.mm_rb, COUNT) == 1:
        root = mm.mm_rb
        mm.mm_rb = bt_get(mm, root, VALUES)
        mm.strategy0 -= 1
        bt_set(mm, mm.mm_rb, PARENT, NULL)
        arena_free(mm, ARENA_NODE, root)
    return 0


@native
def bt_erase(mm, vma):
    """Remove its entry. O(log n)."""
    leaf = bt_locate(mm, vma, VMA(mm, vma).vm_start)
    bt_remove(mm, leaf, bt_slot(mm, leaf, vma))
    return bt_shrink(mm, leaf)


@native
def bt_resize(mm, vma, old_start, old_end):
    """If the start moved, its key changes, and also the ancestors' keys if it is now below them. O(log n)."""
    start = VMA(mm, vma).vm_start
    if start == old_start:
        return 0
    node = bt_locate(mm, vma, old_start)
    slot = bt_slot(mm, node, vma)
    bt_set(mm, node, KEYS + slot, start)
    return bt_rekey(mm, node, slot)


@native
def bt_exit(mm):
    """Free every node, each after its children."""
    node = mm.mm_rb
    while node != NULL:
        left = bt_get(mm, node, COUNT)
        if bt_get(mm, node, LEVEL) > 0 and left > 0:
            bt_set(mm, node, COUNT, left - 1)
            node = bt_get(mm, node, VALUES + left - 1)
        else:
            parent = bt_get(mm, node, PARENT)
            arena_free(mm, ARENA_NODE, node)
            node = parent
    mm.mm_rb = NULL
    return 0


@native
def bt_check_node(mm, node):
    """Invariants 2, 4 and 5 at a node, and 3 towards its parent; then for its ancestors, as long as it is leftmost."""
    while 1:
        count = bt_get(mm, node, COUNT)
        if count <= 0 or count > FULL:
            return 5
        slot = 1
        while slot < FULL:
            key = bt_get(mm, node, KEYS + slot)
            if slot < count and key <= bt_get(mm, node, KEYS + slot - 1):
                return 2
            if slot >= count and key != KEY_MAX:
                return 2
            slot += 1
        parent = bt_get(mm, node, PARENT)
        if parent == NULL:
            if node != mm.mm_rb or bt_get(mm, node, LEVEL) != mm.strategy0:
                return 4
            return 0
        if bt_get(mm, parent, LEVEL) != bt_get(mm, node, LEVEL) + 1:
            return 4
        slot = 0
        while slot < bt_get(mm, parent, COUNT) and bt_get(mm, parent, VALUES + slot) != node:
            slot += 1
        if slot == bt_get(mm, parent, COUNT):
            return 4
        if bt_get(mm, parent, KEYS + slot) != bt_get(mm, node, KEYS):
            return 3
        if slot > 0:
            return 0
        node = parent
    return 0


@native
def bt_check(mm):
    """0, or the number of the first broken invariant. O(n)."""
    if mm.mm_rb == NULL:
        return int(mm.mmap != NULL)
    leaf = bt_leaf(mm, 0)
    vma = mm.mmap
    while leaf != NULL:
        broken = bt_check_node(mm, leaf)
        if broken != 0:
            return broken
        slot = 0
        while slot < bt_get(mm, leaf, COUNT):
            if bt_get(mm, leaf, VALUES + slot) != vma:
                return 1
            if bt_get(mm, leaf, KEYS + slot) != VMA(mm, vma).vm_start:
                return 2
            if bt_leaf(mm, VMA(mm, vma).vm_start) != leaf:
                return 3
            vma = VMA(mm, vma).vm_next
            slot += 1
        leaf = bt_neighbour(mm, leaf, 1)
    return int(vma != NULL)


MESSAGES = {
    1: "the leaves do not give the list",
    2: "keys do not ascend, are not the VMAs' vm_start, or one is left where no entry is",
    3: "an inner key is not the lowest key below it",
    4: "a child does not name its parent, or is not one level below it",
    5: "a node is empty",
}


@hookimpl
def benchframe_strategies():
    """The tree alone."""
    index = Index(
        slabs=(WORD, NODE),
        find=bt_find,
        insert=bt_insert,
        erase=bt_erase,
        resize=bt_resize,
        exit=bt_exit,
        check=bt_check,
    )
    return [Strategy("btree", "B+tree of VMA starts, 16 to a node: a yardstick", index, check_messages=MESSAGES)]
