"""A kernel's own trees beside the strategies': built from its sources, called by ctypes, compared record by record.

Each library is made of a kernel's own files and one driver of ours. A driver (``maple.c``, ``rbtree.c``, ``vma.c``)
includes the kernel's file; :mod:`benchframe.linux` has the drivers and the kernel around that file. Headers that the
kernel's files name are the tree's own where they are part of what is judged, and empty otherwise.

Two maple trees beside each other: lib/maple_tree.c's, by ctypes, and the strategy's, in the interpreter. Both are read
as a list of :class:`Node`. The strategy's nodes are the kernel's word for word (struct maple_range_64, struct
maple_arange_64), in records of private slab 0; its addresses end at 2^62 - 1, where the kernel's end at ULONG_MAX.

Two red-black trees beside each other: lib/rbtree.c's, by ctypes, and the strategy's, in the interpreter. What the
strategy inserts and erases is inserted and erased in the kernel's tree at the same moment, so that both searches see
the same bounds. Afterwards the trees must be the same node by node: parent, children, colour and, in ``rbtree_gap``,
rb_subtree_gap.

Random calls and stores are the same for both sides. If the sides differ, the list of them is shrunk, and the difference
is drawn as text.
"""

from __future__ import annotations

import ctypes
import itertools
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from benchframe.dialect.functions import is_native, referenced
from benchframe.dialect.interpreter import dejit
from benchframe.errors import UsageError
from benchframe.events import NIL
from benchframe.linux import SHIM, SourcesError, SourceTree, named_headers, put, read_source
from benchframe.mm.flags import VM_GROWSDOWN
from benchframe.mm.machine import Machine, Parameters, Sizes, Space
from benchframe.oracle.rules import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PAGE
from benchframe.runner import InterpretedRunner
from benchframe.strategy import Strategy

_SECONDS = 300
"""For one run of gcc."""


@dataclass(frozen=True)
class Driver:
    """A C file of ours and the kernel's files that it is about."""

    name: str
    """The library's name; ``name.c`` is the driver."""
    files: tuple[str, ...]
    """Of the source tree, with their places below it; a header of ``include/`` is included as ``<linux/...>``."""


MAPLE = Driver("maple", ("lib/maple_tree.c", "include/linux/maple_tree.h"))
_RBTREE = ("include/linux/rbtree.h", "include/linux/rbtree_augmented.h", "include/linux/rbtree_types.h")
RBTREE = Driver("rbtree", ("lib/rbtree.c", *_RBTREE))
_LIST = ("include/linux/list.h", "include/linux/poison.h")
VMA = Driver("vma", ("mm/vma.c", "mm/vma.h", "tools/testing/vma/vma_internal.h", *MAPLE.files, *_RBTREE, *_LIST))


def build(tree: SourceTree, driver: Driver, folder: Path) -> ctypes.CDLL:
    """Compile the driver with the tree's files in ``folder``, and load it. A few seconds.

    Raises SourcesError without a compiler, and with the compiler's first error where the tree's files ask for what the
    shim does not have (drivers are tried with 6.1 and 6.12, maple.c and rbtree.c with 7.2).
    """
    own = folder / f"{driver.name}-{tree.name}"
    texts = [(file, read_source(tree.path / file)) for file in driver.files]
    for file, text in texts:
        put(own / _place(file), text)
    for name in {name for _, text in texts for name in named_headers(text)}:
        if not (own / name).exists():
            put(own / name, "")
    library = own / f"{driver.name}.so"
    command = [
        "gcc",
        "-O1",
        "-std=gnu11",
        "-fPIC",
        "-shared",
        "-w",
        "-Werror=implicit",
        "-Wl,-z,defs",
        "-fno-strict-aliasing",
        "-include",
    ]
    command += [str(SHIM), *_named(texts), f"-I{own}", f"-I{SHIM.parent}"]
    _compile([*command, "-o", str(library), str(SHIM.parent / f"{driver.name}.c")], tree, driver)
    return ctypes.CDLL(str(library))


def _place(file: str) -> str:
    """Where a kernel's file goes, below the folder that gcc searches."""
    if file.startswith("include/"):
        return file.removeprefix("include/")
    return Path(file).name if file.startswith("tools/") else file


def _named(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Options that say how lib/maple_tree.c sets a node's parent (mas_set_parent, in 6.1 mte_set_parent), how it copies
    a tree (__mt_dup; not before 6.8), and whether it has a bulk mode (mas_expected_entries)."""
    text = next((text for file, text in texts if file == "lib/maple_tree.c"), "")
    yield f"-DSET_PARENT={'mas_set_parent' if 'mas_set_parent(' in text else 'mte_set_parent_of'}"
    yield f"-DMT_DUP(from,to,gfp)={'__mt_dup(from,to,gfp)' if '__mt_dup(' in text else '-1'}"
    bulk = "mas_expected_entries(" in text
    yield f"-DHAS_BULK={int(bulk)}"
    yield f"-DMAS_EXPECTED_ENTRIES(mas,count)={'mas_expected_entries(mas,count)' if bulk else '-1'}"


def _compile(command: Sequence[str], tree: SourceTree, driver: Driver) -> None:
    if shutil.which("gcc") is None:
        raise SourcesError("gcc is not installed", hint="install gcc and libc6-dev")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise SourcesError(f"gcc took longer than {_SECONDS} s", where=tree.path) from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise SourcesError(
            f"{driver.name}.c does not compile with Linux {tree.name}'s files: {first}",
            where=tree.path,
            hint="Debian's linux-source-6.1 and linux-source-6.12 do",
        )


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
    bulk: bool = False
    """In bulk mode, by fork: only at the beginning of a program."""


def bulk_first(program: Sequence[Store]) -> tuple[list[Store], list[Store]]:
    """The stores in bulk mode that a program begins with, and the others."""
    count = next((at for at, store in enumerate(program) if not store.bulk), len(program))
    return list(program[:count]), list(program[count:])


class Node(NamedTuple):
    """One node; ``items`` are (pivot, VMA's number or 0, gap) per slot; in an inner node the second is 1."""

    kind: int
    low: int
    high: int
    items: tuple[tuple[int, int, int], ...]


Nodes = list[Node]
"""A tree, each node before its children."""


def numbered(nodes: Sequence[Node]) -> Nodes:
    """The same tree with its VMAs numbered in order: to compare trees whose numbers have nothing to do with each
    other."""
    order = itertools.count(1)
    return [
        node
        if node.kind != LEAF
        else node._replace(items=tuple((pivot, next(order) if entry else 0, gap) for pivot, entry, gap in node.items))
        for node in nodes
    ]


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
            ("k_bulk", ctypes.c_int, [pointer, pointer, number]),
            ("k_find", ctypes.c_ulong, [pointer, ctypes.c_ulong]),
            ("k_gap", number, [pointer, *3 * [ctypes.c_ulong]]),
            ("k_dump", number, [pointer, pointer, number]),
            ("k_load", None, [pointer, pointer, ctypes.c_int]),
        ):
            call = getattr(library, function)
            call.restype, call.argtypes = result, arguments
        self.library = library
        self.has_bulk = bool(library.k_has_bulk())
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

    def nodes(self, address: int) -> Nodes:
        """The tree at an address, in the strategy's numbers. O(nodes)."""
        count = self.library.k_dump(address, self.room.ctypes.data, len(self.room))
        if count > len(self.room):
            raise UsageError(f"the kernel's tree has {count:,} words, more than {len(self.room):,}")
        words = self.room[:count].tolist()
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


class KernelTree:
    """A tree of the kernel's; freed with the object."""

    def __init__(self, kernel: KernelMaple, address: int) -> None:
        self.kernel, self.address = kernel, address

    def __del__(self) -> None:
        self.kernel.library.k_destroy(self.address)

    def store(self, store: Store) -> bool:
        """False if the kernel's code stopped (BUG_ON)."""
        return not self.kernel.library.k_store(self.address, store.first, _theirs(store.last), store.entry << 12)

    def bulk(self, stores: Sequence[Store]) -> bool:
        """All stores of a fork into the empty tree, in order (mas_expected_entries, mas_destroy). False as above."""
        words = np.array([(one.first, one.last, one.entry << 12) for one in stores], np.uint64)
        return not self.kernel.library.k_bulk(self.address, words.ctypes.data, len(stores))

    def play(self, program: Sequence[Store]) -> None:
        """A program from the beginning, into the empty tree."""
        bulk, others = bulk_first(program)
        if bulk:
            self.bulk(bulk)
        for store in others:
            self.store(store)

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
        return self.kernel.nodes(self.address)


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

    def filled(self, mm: int, stores: Sequence[Store], after: Nodes) -> None:
        """fork has stored all VMAs of the child ``mm`` in bulk mode; its tree afterwards."""


def watched(strategy: Strategy, arrays: Callable[[], Any], watch: Watch) -> dict[Any, Callable[..., Any]]:
    """What to ``replace`` in the interpreter, so that ``watch`` sees every store and copy of the strategy's.

    ``arrays`` gives the machine's arrays, once there is one.
    """

    def tree(mm: int) -> Nodes:
        return model_nodes(arrays()["private0_base"]["word"], int(arrays()["mm_base"]["mm_rb"][mm]))

    stores = part(strategy, "mas_store")
    store = dejit(stores, strategy.binding, strategy.binding)

    def watched_store(mm: Any, first: int, last: int, entry: int) -> int:
        before = tree(mm.index)
        result: int = store(mm, first, last, entry)
        watch.seen(mm.index, Store(first, last, entry), before, tree(mm.index))
        return result

    if "index_bulk" in strategy.binding:
        bulks = strategy.binding["index_bulk"]
        bulk = dejit(bulks, strategy.binding, strategy.binding)

        def watched_bulk(mm: Any) -> int:
            result: int = bulk(mm)
            records, vma, made = arrays()["vma_base"], mm.mmap, []
            while vma:
                made.append(Store(int(records[vma]["vm_start"]), int(records[vma]["vm_end"]) - 1, vma, bulk=True))
                vma = int(records[vma]["vm_next"])
            watch.filled(mm.index, made, tree(mm.index))
            return result

        return {stores: watched_store, bulks: watched_bulk}
    if "index_dup" not in strategy.binding:
        return {stores: watched_store}
    copies = strategy.binding["index_dup"]
    copy = dejit(copies, strategy.binding, strategy.binding)

    def watched_copy(mm: Any, new: int) -> int:
        result: int = copy(mm, new)
        watch.copied(mm.index, new, tree(new))
        return result

    return {stores: watched_store, copies: watched_copy}


_FIELDS = 6


class RbNode(NamedTuple):
    """A node, with VMAs by number; 0 is NULL. ``gap`` is 0 in a tree without gaps."""

    vma: int
    parent: int
    left: int
    right: int
    black: int
    gap: int


class Pair:
    """An empty address space whose strategy has a red-black tree, and the kernel's tree beside it."""

    def __init__(self, library: ctypes.CDLL, strategy: Strategy, sizes: Sizes) -> None:
        self._library = library
        library.r_dump.restype = ctypes.c_long
        library.r_set.argtypes = [ctypes.c_long, *3 * [ctypes.c_ulong]]
        for name in ("r_insert", "r_erase", "r_update"):
            getattr(library, name).argtypes = [ctypes.c_long]
        self.gaps = "rb_propagate" in strategy.binding
        self._known: dict[int, tuple[int, int, int]] = {}
        self._room = np.zeros(_FIELDS * sizes.vmas, np.int64)
        library.r_reset(ctypes.c_long(sizes.vmas), ctypes.c_int(self.gaps))
        hooks = {strategy.binding[name]: name for name in ("index_insert", "index_erase")}
        watched = {function: self._beside(name, function, strategy) for function, name in hooks.items()}
        runner = InterpretedRunner(strategy, replace=watched)
        self.space = Space(Machine(runner, sizes, Parameters(), strategy.slabs))

    def _beside(self, name: str, function: Any, strategy: Strategy) -> Any:
        plain = dejit(function, strategy.binding, strategy.binding)
        call = self._library.r_insert if name == "index_insert" else self._library.r_erase

        def both(mm: Any, vma: int) -> int:
            if name == "index_insert":
                self._sync([*self._known, vma])
            call(vma)
            if name == "index_erase":
                del self._known[vma]
            result: int = plain(mm, vma)
            return result

        return both

    def _sync(self, vmas: list[int]) -> None:
        """The kernel's records get the bounds that the model's have now; changed gaps are propagated."""
        records = self.space.machine.arrays["vma_base"]
        guard = self.space.machine.parameters.stack_guard_gap
        changed = []
        for vma in vmas:
            record = records[vma]
            start, end, before = int(record["vm_start"]), int(record["vm_end"]), int(record["vm_prev"])
            low = start - guard * bool(int(record["vm_flags"]) & VM_GROWSDOWN)
            bounds = start, end, max(0, low - (int(records["vm_end"][before]) if before else 0))
            if self._known.get(vma) != bounds:
                self._library.r_set(vma, *bounds)
                if vma in self._known:
                    changed.append(vma)
                self._known[vma] = bounds
        for vma in changed:
            self._library.r_update(vma)

    def kernel(self) -> list[RbNode]:
        """The kernel's tree, a node before its children."""
        self._sync(list(self._known))
        words = self._library.r_dump(ctypes.c_void_p(self._room.ctypes.data))
        return [RbNode(*row) for row in self._room[:words].reshape(-1, _FIELDS).tolist()]

    def strategy(self) -> list[RbNode]:
        """The strategy's tree likewise."""
        records = self.space.machine.arrays["vma_base"]
        todo, found = [int(self.space.machine.mm(0)["mm_rb"])], []
        while todo:
            vma = todo.pop()
            if vma:
                record = records[vma]
                color, left, right = (int(record[name]) for name in ("rb_parent_color", "rb_left", "rb_right"))
                gap = int(record["rb_subtree_gap"]) if self.gaps else 0
                found.append(RbNode(vma, color >> 1, left, right, color & 1, gap))
                todo += (right, left)
        return found


# ----------------------------------------------------------------------------------------------------------------------
# Random calls and stores; what differs, shrunk and drawn.

BASE = 0x10000000
"""Page 0 of the drawings."""
LENGTH = 500
"""Calls or stores in a program, which begins with an empty address space."""
SPANS = (100, 600, 3000)
"""A program works on so many pages; the first gives trees of one or two levels, the last of three."""
SMALL_SPANS = (16, 40, 100, 600)
"""For mm/vma.c: few pages, so that most calls touch a neighbour; the last gives trees of two and three levels."""
CLOSING = 3
"""The number, from 1 on, of the file whose VMAs have vm_ops->close (``vma.c`` says so, too)."""
_PAGES = (1, 1, 1, 2, 3, 4, 8, 20)
_ANON, _FILE = (MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | more for more in (MAP_ANONYMOUS, 0))

T = TypeVar("T")


class Call(NamedTuple):
    """``kind`` is mmap, munmap, mprotect or write (a fault). In pages from BASE; ``file`` 0 is anonymous memory."""

    kind: str
    page: int
    pages: int
    prot: int = 0
    file: int = 0
    pgoff: int = 0
    fail_prealloc: bool = False
    """There is no memory for the nodes of a store."""

    def __str__(self) -> str:
        without = " without memory" if self.fail_prealloc else ""
        places = f"{self.kind}{without} pages {self.page}..{self.page + self.pages - 1}"
        access = "".join(letter if self.prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        if self.kind in ("munmap", "write"):
            return places
        return f"{places} {access}" + (f" file {self.file} offset {self.pgoff}" if self.file else "")


class Side(Protocol):
    """An oracle or a :class:`~benchframe.mm.machine.Space`."""

    def mmap(self, addr: int, length: int, prot: int, flags: int, file: int = ..., offset: int = ...) -> int: ...
    def munmap(self, addr: int, length: int) -> int: ...
    def mprotect(self, addr: int, length: int, prot: int) -> int: ...
    def fault(self, addr: int, access: int) -> int: ...


def perform(side: Side, call: Call) -> int:
    """Make the call; 0, or a negative number if it was refused."""
    addr, length = BASE + call.page * PAGE, call.pages * PAGE
    if call.kind == "mmap":
        flags, file = (_FILE, call.file - 1) if call.file else (_ANON, NIL)
        return min(0, side.mmap(addr, length, call.prot, flags, file, call.pgoff * PAGE))
    if call.kind == "munmap":
        return side.munmap(addr, length)
    if call.kind == "mprotect":
        return side.mprotect(addr, length, call.prot)
    return min(0, side.fault(addr, 2))


def calls(seed: str, files: bool = False) -> Iterator[Call]:
    """A program of LENGTH random calls; the same for the same seed.

    With ``files`` also those of files, scripted sequences (:func:`_parts`), and calls without memory for nodes.
    """
    rng = random.Random(seed)
    span = rng.choice(SMALL_SPANS if files else SPANS)
    script: list[Call] = []
    for _ in range(LENGTH):
        if files and not script and rng.random() < 0.06:
            script = list(_parts(rng, span))
        if script:
            yield script.pop(0)
            continue
        page, pages, kind, prot = rng.randrange(span), rng.choice(_PAGES), rng.random(), rng.choice((1, 3, 3, 3, 7))
        file = rng.choice((0, 0, 0, 1, CLOSING)) if files else 0
        if kind < 0.4:
            call = Call("mmap", page, pages, prot, file, page + rng.choice((0, 0, 0, 5)) if file else 0)
        elif kind < 0.6:
            call = Call("munmap", page, pages)
        elif kind < 0.85:
            call = Call("mprotect", page, pages, prot)
        else:
            call = Call("write", page, 1)
        yield call._replace(fail_prealloc=files and rng.random() < 0.03)


def _parts(rng: random.Random, span: int) -> Iterator[Call]:
    """An area of three parts, of which the middle one goes and comes back, or gets another protection and then the
    first one again, whole or at one end; each may be written meanwhile. Random calls seldom do it: all eight merge
    cases, with each pair of anon_vmas."""
    first, file = rng.randrange(span), rng.choice((0, 0, 0, 1, CLOSING, CLOSING))
    left, pages, right = (rng.choice((1, 2, 4)) for _ in range(3))
    page = first + left
    hole, size = rng.random() < 0.5, rng.choice((pages, pages, 1))
    end = page + pages + right
    if rng.random() < 0.7:  # nothing beside it, which may have an anon_vma
        yield Call("munmap", max(first - 1, 0), end + 3 - max(first - 1, 0))
    yield Call("mmap", first, left + pages + right, 3, file, first if file else 0)
    yield Call("munmap", page, pages) if hole else Call("mprotect", page, pages, rng.choice((1, 7, 7)))
    alone = rng.choice((first, page, page + pages, -1, -1, -1))
    for part in (first, page, page + pages):
        if part == alone or (alone < 0 and rng.random() < 0.4):
            yield Call("write", part, 1)
    fails = rng.random() < 0.1
    if hole:
        yield Call("mmap", page, pages, 3, file, page if file else 0, fails)
    else:
        yield Call("mprotect", rng.choice((page, page + pages - size)), size, 3, fail_prealloc=fails)
    if rng.random() < 0.7:  # what fills the hole before an area with an anon_vma of its own tells which one was kept
        yield Call("mmap", end + 1, 1, 3, file, end + 1 if file else 0)
        yield Call("write", end + 1, 1)
        yield Call("mmap", end, 1, 3, file, end if file else 0)


def stores(seed: str, nodes: Callable[[], Nodes]) -> Iterator[Store]:
    """A program of LENGTH random stores into a tree, which ``nodes`` gives.

    They cover up to 60 pages, and rarely half of all; many store nothing, some let grow what is there.
    """
    rng = random.Random(seed)
    span, fill = rng.choice(SPANS), rng.choice((0.4, 0.55, 0.7))
    for number in range(1, LENGTH + 1):
        page, pages = rng.randrange(span), rng.choice((*_PAGES, *_PAGES, *_PAGES, 60))
        if rng.random() < 0.02:
            pages = span // rng.choice((2, 4, 8))
        first, last = BASE + page * PAGE, BASE + (page + pages) * PAGE - 1
        entry = number if rng.random() < fill else 0
        if entry and rng.random() < 0.3:
            here = [(low, *item[:2]) for low, item in _entries(nodes()) if item[1]]
            if here:
                low, top, entry = rng.choice(here)
                if rng.random() < 0.5:
                    first, last = low, top + pages * PAGE
                else:
                    first, last = max(BASE, low - pages * PAGE), top
        if rng.random() < 0.05:  # cuts into two leaves: what three nodes are needed for, if both are full
            ends = [node.high for node in nodes() if node.kind == LEAF and node.high != MT_MAX]
            if ends:
                edge = rng.choice(ends)
                first, last, entry = edge + 1 - PAGE // 2, edge + PAGE // 2, number
        if rng.random() < 0.03:  # ends where a node above leaves does: nothing of the next one is taken in
            ends = [node.high for node in nodes() if node.kind != LEAF and node.high != MT_MAX]
            if ends:
                last, entry = rng.choice(ends), number
                first = max(BASE, last + 1 - span // rng.choice((8, 16, 32)) * PAGE)
        yield Store(first, last, entry)


def _entries(nodes: Nodes) -> Iterator[tuple[int, tuple[int, int, int]]]:
    low = 0
    for node in nodes:
        for item in node.items if node.kind == LEAF else ():
            yield low, item
            low = item[0] + 1


def shrunk(items: Sequence[T], differs: Callable[[Sequence[T]], bool], seconds: float = 20) -> list[T]:
    """The fewest items found, in order, for which ``differs`` still holds; their last one stays (ddmin). Stops after
    this long."""
    best = list(items)
    size = max(1, len(best) // 2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        at, removed = 0, False
        while at < len(best) - 1 and time.monotonic() < end:
            fewer = best[:at] + best[min(at + size, len(best) - 1) :]
            if differs(fewer):
                best, removed = fewer, True
            else:
                at += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2)
    return best


def place(addr: int) -> str:
    """An address as a page from BASE on: ``12``, ``12+800`` within a page, ``end`` for the last one; 0x... below."""
    if addr == MT_MAX:
        return "end"
    if addr < BASE:
        return hex(addr)
    page, rest = divmod(addr - BASE, PAGE)
    return f"{page}+{rest:x}" if rest else str(page)


def store_line(store: Store) -> str:
    """``store pages [3, 8): VMA 7``."""
    end = store.last + 1 if store.last != MT_MAX else MT_MAX
    return f"store pages [{place(store.first)}, {place(end)}): {f'VMA {store.entry}' if store.entry else 'nothing'}"


def maple(nodes: Nodes, other: Nodes = ()) -> str:  # type: ignore[assignment]
    """The sizes of the leaves, nodes with one parent in brackets; ``*`` marks a leaf that ``other`` has not.

    >>> leaf = lambda low, high, n: Node(LEAF, low, high, ((high, 1, 0),) * n)
    >>> tree = [Node(3, 0, 99, ((49, 1, 0), (99, 1, 0))), leaf(0, 49, 9), leaf(50, 99, 8)]
    >>> maple(tree, tree[:2])
    '[9 8*]'
    """
    same, at = set(other or nodes), 0

    def text() -> str:
        nonlocal at
        node = nodes[at]
        at += 1
        if node.kind == LEAF:
            return f"{len(node.items)}{'' if node in same else '*'}"
        return f"[{' '.join([text() for _ in node.items])}]"

    return text() if nodes else "empty"


def leaf(node: Node) -> str:
    """``0x0.. hole 3 | 3 VMA 7 5``: each range's end (exclusive) and what it holds."""
    items = [f"{f'VMA {entry}' if entry else '-'} to {place(min(pivot + 1, MT_MAX))}" for pivot, entry, _ in node.items]
    return f"from {place(node.low)}: " + ", ".join(items)


def maple_difference(before: Nodes | None, stores: Sequence[Store], kernel: Nodes, strategy: Nodes) -> str:
    """The last store of ``stores`` made the two trees differ."""
    lines = [store_line(store) for store in stores]
    if before is not None:
        lines.insert(len(lines) - 1, f"  before    {maple(before)}")
    lines += [f"  kernel    {maple(kernel, strategy)}", f"  strategy  {maple(strategy, kernel)}"]
    for name, own, other in (("kernel", kernel, strategy), ("strategy", strategy, kernel)):
        odd = [node for node in own if node.kind == LEAF and node not in other]
        lines += [f"    {name}'s leaf {leaf(node)}" for node in odd[:3]]
        lines += [f"    and {len(odd) - 3} more of the {name}'s"] if len(odd) > 3 else []
    if [n for n in kernel if n.kind == LEAF] == [n for n in strategy if n.kind == LEAF]:
        lines.append("    the leaves are equal; the nodes above them or their gaps are not")
    return "\n".join(lines)


def rb_tree(nodes: Sequence[RbNode]) -> str:
    """``(3b (1r . .) .)``: VMA, colour, both children; with gaps ``3b:gap`` in pages."""
    by_number = {node.vma: node for node in nodes}

    def text(vma: int) -> str:
        node = by_number.get(vma)
        if node is None:
            return "."
        gap = f":{place(node.gap) if node.gap >= BASE else node.gap // PAGE}" if node.gap else ""
        name = f"{vma}{'rb'[node.black]}{gap}"
        return f"({name} {text(node.left)} {text(node.right)})" if node.left or node.right else name

    return text(nodes[0].vma) if nodes else "empty"


def layout_text(rows: Sequence[tuple[int, ...]]) -> str:
    """Each VMA as ``[first, end) rwx``, of a file with its number and offset in pages."""
    lines = []
    for start, end, prot, file, pgoff in rows:
        access = "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        lines.append(f"[{place(start)}, {place(end)}) {access}" + (f" file {file} at {pgoff}" if file else ""))
    return "  ".join(lines) or "empty"
