"""Two maple trees beside each other: lib/maple_tree.c's, by ctypes, and the strategy's, in the interpreter.

Both are read as a list of :class:`Node`. The strategy's nodes are the kernel's word for word (struct maple_range_64,
struct maple_arange_64), in records of private slab 0; its addresses end at 2^62 - 1, where the kernel's end at
ULONG_MAX.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchframe.dialect.functions import is_native, referenced
from benchframe.dialect.interpreter import dejit
from benchframe.errors import UsageError
from benchframe.strategy import Strategy

LEAF, ARANGE = 1, 3
"""enum maple_type: maple_leaf_64, maple_arange_64."""
MT_MAX = (1 << 62) - 1
_ULONG_MAX = (1 << 64) - 1
_SHIFT = _ULONG_MAX - MT_MAX
_HEAD, _EACH = 4, 3
_ROOM = 1 << 20


class Store(NamedTuple):
    """mas_store of ``entry`` (a VMA's number; 0: nothing) over [first, last]."""

    first: int
    last: int
    entry: int


class Node(NamedTuple):
    """One node; ``items`` are (pivot, VMA's number or 0, gap) per slot; in an inner node the second is 1."""

    kind: int
    low: int
    high: int
    items: tuple[tuple[int, int, int], ...]


Nodes = list[Node]
"""A tree, each node before its children."""


def height(nodes: Sequence[Node]) -> int:
    """Levels: the way down to the first leaf."""
    return next((at + 1 for at, node in enumerate(nodes) if node.kind == LEAF), 0)


def ranges(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """(last address, VMA's number or 0) of everything in the leaves, in order."""
    return [item[:2] for node in nodes if node.kind == LEAF for item in node.items]


# ---- the kernel's ------------------------------------------------------------------------------------------------


def _ours(word: int) -> int:
    return MT_MAX if word == _ULONG_MAX else word


def _theirs(address: int) -> int:
    return _ULONG_MAX if address == MT_MAX else address


class KernelMaple:
    """lib/maple_tree.c of one source tree; ``name`` is its version."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        number, pointer = ctypes.c_long, ctypes.c_void_p
        for function, result, arguments in (
            ("k_new", pointer, [ctypes.c_int]),
            ("k_destroy", None, [pointer]),
            ("k_dup", pointer, [pointer]),
            ("k_store", ctypes.c_int, [pointer, *3 * [ctypes.c_ulong]]),
            ("k_find", ctypes.c_ulong, [pointer, ctypes.c_ulong]),
            ("k_gap", number, [pointer, *3 * [ctypes.c_ulong]]),
            ("k_dump", number, [pointer, pointer, number]),
            ("k_load", None, [pointer, pointer, ctypes.c_int]),
        ):
            call = getattr(library, function)
            call.restype, call.argtypes = result, arguments
        self.library = library
        self.room = np.zeros(_ROOM, np.uint64)

    def tree(self, rcu: bool = False, nodes: Sequence[Node] = ()) -> KernelTree:
        """A new tree: empty, or exactly ``nodes``."""
        tree = KernelTree(self, self.library.k_new(int(rcu)))
        if nodes:
            words: list[int] = []
            for node in nodes:
                words += (node.kind, node.low, _theirs(node.high), len(node.items))
                for pivot, entry, gap in node.items:
                    words += (_theirs(pivot), entry << 12 if node.kind == LEAF else 1, gap + _SHIFT * (gap > 1 << 60))
            array = np.array(words, np.uint64)
            self.library.k_load(tree.address, array.ctypes.data, height(nodes))
        return tree


class KernelTree:
    """A tree of the kernel's; freed with the object."""

    def __init__(self, kernel: KernelMaple, address: int) -> None:
        self.kernel, self.address = kernel, address

    def __del__(self) -> None:
        self.kernel.library.k_destroy(self.address)

    def store(self, store: Store) -> bool:
        """False if the kernel's code stopped (BUG_ON)."""
        first, last, entry = store
        return not self.kernel.library.k_store(self.address, first, _theirs(last), entry << 12)

    def copy(self) -> KernelTree | None:
        """__mt_dup, as fork calls it; None where the kernel has none (before 6.8)."""
        copy = self.kernel.library.k_dup(self.address)
        return KernelTree(self.kernel, copy) if copy else None

    def find(self, addr: int) -> int:
        """mt_find: the VMA's number, 0 for none."""
        return int(self.kernel.library.k_find(self.address, addr)) >> 12

    def hole(self, low: int, high: int, size: int) -> int:
        """mas_empty_area_rev within [low, high): the start of the highest hole of this size; -1 if there is none."""
        return int(self.kernel.library.k_gap(self.address, low, high, size))

    def nodes(self) -> Nodes:
        """The tree, in the strategy's numbers. O(nodes)."""
        room = self.kernel.room
        count = self.kernel.library.k_dump(self.address, room.ctypes.data, len(room))
        if count > len(room):
            raise UsageError(f"the kernel's tree has {count:,} words, more than {len(room):,}")
        words = room[:count].tolist()
        found, at = [], 0
        while at < count:
            kind, low, high, slots = words[at : at + _HEAD]
            at += _HEAD
            shift = 12 if kind == LEAF else 0
            items = []
            for item in range(at, at + _EACH * slots, _EACH):
                gap = words[item + 2]
                items.append((_ours(words[item]), words[item + 1] >> shift, gap - _SHIFT * (gap > 1 << 62)))
            found.append(Node(kind, low, _ours(high), tuple(items)))
            at += _EACH * slots
        return found


# ---- the strategy's ----------------------------------------------------------------------------------------------


def part(strategy: Strategy, name: str, hook: str = "index_insert") -> Any:
    """The native function ``name`` that one of the strategy's hooks calls, directly or not. Raises UsageError."""
    todo = [strategy.binding[hook]]
    for function in todo:
        if function.__name__ == name:
            return function
        todo += [f for f in referenced(function).values() if is_native(f) and f not in todo]
    raise UsageError(f"strategy {strategy.name}: its {hook} calls no {name}", hint="name a strategy with a maple tree")


def model_nodes(word: Any, root: int) -> Nodes:
    """The strategy's tree below reference ``root``; ``word`` is the column of private slab 0."""
    found: Nodes = []

    def walk(enode: int, low: int, high: int) -> None:
        node = word[(enode >> 8) << 5 : ((enode >> 8) << 5) + 32].tolist()
        if enode >> 3 & 15 == LEAF:
            end = node[31] if node[15] == 0 else 14 if node[15] == high else 15
            pivots = [*node[1 : 1 + end], high]
            found.append(Node(LEAF, low, high, tuple((pivot, node[16 + i], 0) for i, pivot in enumerate(pivots))))
            return
        end = node[30]
        pivots = [*node[1 : 1 + end], high]
        found.append(Node(ARANGE, low, high, tuple((pivot, 1, node[20 + i]) for i, pivot in enumerate(pivots))))
        for slot in range(end + 1):
            top = node[1 + slot] if slot < end else high
            walk(node[10 + slot], low, top)
            low = top + 1

    if root:
        walk(root, 0, MT_MAX)
    return found


class Watch(Protocol):
    """What is told of a strategy's trees. The mm is a record's number."""

    def seen(self, mm: int, store: Store, before: Nodes, after: Nodes) -> None:
        """A store, with the tree before and after it."""

    def copied(self, mm: int, child: int, after: Nodes) -> None:
        """fork has copied the tree of ``mm``; the child's."""


def watched(strategy: Strategy, arrays: Callable[[], Any], watch: Watch) -> dict[Any, Callable[..., Any]]:
    """What to ``replace`` in the interpreter, so that ``watch`` sees every store and copy of the strategy's.

    ``arrays`` gives the machine's arrays, once there is one.
    """
    stores, copies = part(strategy, "mas_store"), strategy.binding.get("index_dup")
    store, copy = (dejit(f, strategy.binding, strategy.binding) if f else None for f in (stores, copies))

    def tree(mm: int) -> Nodes:
        return model_nodes(arrays()["private0_base"]["word"], int(arrays()["mm_base"]["mm_rb"][mm]))

    def watched_store(mm: Any, first: int, last: int, entry: int) -> int:
        before = tree(mm.index)
        result: int = store(mm, first, last, entry)
        watch.seen(mm.index, Store(first, last, entry), before, tree(mm.index))
        return result

    def watched_copy(mm: Any, new: int) -> int:
        result: int = copy(mm, new)
        watch.copied(mm.index, new, tree(new))
        return result

    return {stores: watched_store} | ({copies: watched_copy} if copies else {})
