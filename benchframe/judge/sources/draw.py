"""A difference as text: two maple trees, two red-black trees, two layouts."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.judge.sources.maple import LEAF, MT_MAX, Node, Nodes, Store
from benchframe.judge.sources.programs import BASE
from benchframe.judge.sources.rbtree import RbNode
from benchframe.oracle.rules import PAGE


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
