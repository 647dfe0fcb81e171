"""Two red-black trees beside each other: lib/rbtree.c's, by ctypes, and the strategy's, in the interpreter.

What the strategy inserts and erases is inserted and erased in the kernel's tree at the same moment, so that both
searches see the same bounds. Afterwards the trees must be the same node by node: parent, children, colour and, in
``rbtree_gap``, rb_subtree_gap.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from benchframe.dialect.interpreter import dejit
from benchframe.interpreted import InterpretedRunner
from benchframe.mm.flags import VM_GROWSDOWN
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.space import Space
from benchframe.strategy import Strategy

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
