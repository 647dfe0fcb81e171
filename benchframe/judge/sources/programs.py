"""Random calls and stores, the same for both sides; shrinking a list of them, and a difference as text."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

from benchframe.events import NIL
from benchframe.judge.sources.trees import LEAF, MT_MAX, Node, Nodes, RbNode, Store
from benchframe.oracle.rules import MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PAGE

BASE = 0x10000000
"""Page 0 of the drawings."""
LENGTH = 500
"""Calls or stores in a program, which begins with an empty address space."""
SPANS = (100, 600, 3000)
"""A program works on so many pages; the first gives trees of one or two levels, the last of three."""
SMALL_SPANS = (16, 40, 100, 600)
"""For mm/vma.c: few pages, so that most calls touch a neighbour; the last gives trees of two and three levels."""
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

    def __str__(self) -> str:
        places = f"{self.kind} pages {self.page}..{self.page + self.pages - 1}"
        access = "".join(letter if self.prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        if self.kind in ("munmap", "write"):
            return places
        return f"{places} {access}" + (f" file {self.file} offset {self.pgoff}" if self.file else "")


class Side(Protocol):
    """An oracle or a :class:`~benchframe.mm.space.Space`."""

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
    """A program of LENGTH random calls; the same for the same seed."""
    rng = random.Random(seed)
    span = rng.choice(SMALL_SPANS if files else SPANS)
    for _ in range(LENGTH):
        page, pages, kind, prot = rng.randrange(span), rng.choice(_PAGES), rng.random(), rng.choice((1, 3, 3, 3, 7))
        file = rng.choice((0, 0, 0, 1, 2)) if files else 0
        if kind < 0.4:
            yield Call("mmap", page, pages, prot, file, page + rng.choice((0, 0, 0, 5)) if file else 0)
        elif kind < 0.6:
            yield Call("munmap", page, pages)
        elif kind < 0.85:
            yield Call("mprotect", page, pages, prot)
        else:
            yield Call("write", page, 1)


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


def layout(rows: Sequence[tuple[int, ...]]) -> str:
    """Each VMA as ``[first, end) rwx``, of a file with its number and offset in pages."""
    lines = []
    for start, end, prot, file, pgoff in rows:
        access = "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        lines.append(f"[{place(start)}, {place(end)}) {access}" + (f" file {file} at {pgoff}" if file else ""))
    return "  ".join(lines) or "empty"
