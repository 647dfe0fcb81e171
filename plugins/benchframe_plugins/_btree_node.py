"""The B+tree's nodes: layout, and entries that come, go and move within and between them. No node is chosen here.

What they are for: :mod:`benchframe_plugins.btree`. Who changes something holds mmap_lock for write.
"""

from benchframe.api import ARENA_PRIVATE0, NULL, Field, PrivateSlab, arena_alloc, native

SPARE = 62
WORD = PrivateSlab(
    "btree_word", [Field("word", "i8", "40 to a node", lock="mmap_lock")], 0, per_vma=40, fixed=40 * (SPARE + 2)
)
NODE = PrivateSlab("btree_node", [("state", "i8", "slot of the allocator: node i is words 40 i on")], 1, 1, SPARE)
ARENA_NODE = ARENA_PRIVATE0 + 1
WORDS, PARENT, COUNT, LEVEL, KEYS, VALUES = 40, 0, 1, 2, 8, 24
"""Words of a node, and the offsets of its parts."""
FULL, HALF, FEW = 16, 8, 4
KEY_MAX = (1 << 63) - 1


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
    """Which child ``node`` is."""
    slot = 0
    while bt_get(mm, parent, VALUES + slot) != node:
        slot += 1
    return slot


@native
def bt_put(mm, node, at, key, value):
    """Write an entry; a child learns its parent."""
    bt_set(mm, node, KEYS + at, key)
    bt_set(mm, node, VALUES + at, value)
    if bt_get(mm, node, LEVEL) > 0:
        bt_set(mm, value, PARENT, node)
    return 0


@native
def bt_open(mm, node, at, key, value):
    """Insert an entry at ``at``; there is room."""
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
