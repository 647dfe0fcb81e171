"""What the tests of the model share: an address space on any engine, and the oracle that matches it."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

from benchframe.mm import layout
from benchframe.mm.hooks import ALL
from benchframe.mm.machine import Machine, Parameters, Sizes, Space
from benchframe.registry import Registry, load
from benchframe.runner import InterpretedRunner
from benchframe.strategy import Strategy
from benchframe.units import strategy_digest
from benchframe_plugins.maple.store import COPY
from benchframe_plugins.per_vma_refcnt import SINCE_6_17
from support.compile import compiled

PAGE = layout.PAGE_SIZE
PMD = layout.PMD_SIZE
BASE = 0x10000000
"""Where most tests put their mappings: 2 MiB aligned."""
R, RW, RWX = 1, 3, 7
ANON, FIXED, SHARED = 0x22, 0x32, 0x21
"""MAP_PRIVATE | MAP_ANONYMOUS; the same at a fixed address; MAP_SHARED | MAP_ANONYMOUS."""
SIZES = Sizes(mms=6, tasks=12, vmas=1024, tables=256, pages=4096, files=1024)


def distinct(known: Registry) -> list[str]:
    """The strategies of ``known``; of those that are one piece of code under several names one, the preset last. How
    /proc/PID/maps is read does not count: tests/mm/test_task_mmu.py has that, for all. Nor does the allocator: some of
    the presets that are left have one, with and without a maple tree, and tests/mm/test_kmem.py is about it. Nor does
    how a maple tree splits and joins nodes: tests/mm/test_index_history.py has that for each."""
    found: dict[str, str] = {}
    for name in sorted(known.strategies, key=lambda name: (name.startswith("linux-"), name == "maple_copy", name)):
        strategy = known.strategy(name)
        without = {*SINCE_6_17, *ALLOCATING, *COPY}
        rest = {hook: function for hook, function in strategy.binding.items() if hook not in without}
        found.setdefault(strategy_digest(replace(strategy, binding=rest, allocator=None)), name)
    return sorted(found.values())


ALLOCATING = {hook.name for hook in ALL if hook.part == "allocator"} | {"mas_preallocate"}
"""Hooks of allocators, and the one through which a maple tree asks for nodes beforehand."""
STRATEGIES = distinct(load())
"""A plugin gets its tests by existing; of those with the same code (a preset and what it is made of) one is tested."""
ENGINES = ("native", "interpreted")


@cache
def registry() -> Registry:
    """The installed plugins."""
    return load()


def strategy(name: str) -> Strategy:
    """A strategy of the registry."""
    return registry().strategy(name)


@cache
def _native(name: str) -> Any:
    """The compiled runner."""
    from benchframe.runner import NativeRunner

    return NativeRunner(compiled(strategy(name)))


def runner(name: str, engine: str) -> Any:
    """A fresh runner of strategy ``name``: native or interpreted."""
    return copy.copy(_native(name)) if engine == "native" else InterpretedRunner(strategy(name), allocating=True)


class Kit(Space):
    """A space that knows its runner, with page numbers from BASE for short test text."""

    def __init__(
        self, name: str = "rbtree", engine: str = "interpreted", sizes: Sizes = SIZES, seed: int = 0, **parameters: int
    ) -> None:
        self.runner = runner(name, engine)
        machine = Machine(self.runner, sizes, Parameters(**parameters), strategy(name).slabs, layout_seed=seed)
        super().__init__(machine)

    def map(self, first: int, count: int, prot: int = RW, flags: int = FIXED, file: int = -1, offset: int = 0) -> int:
        """mmap ``count`` pages at page ``first`` from BASE; must succeed. The VMA's slab index."""
        addr = BASE + first * PAGE
        assert self.mmap(addr, count * PAGE, prot, flags, file, offset * PAGE) == addr
        return self.at(first)

    def protect(self, first: int, count: int, prot: int) -> int:
        """mprotect by pages."""
        return self.mprotect(BASE + first * PAGE, count * PAGE, prot)

    def unmap(self, first: int, count: int) -> int:
        """munmap by pages."""
        return self.munmap(BASE + first * PAGE, count * PAGE)

    def touch(self, page: int, access: int = 2) -> str:
        """A fault at a page that must succeed; what it did, by name."""
        self.machine.arrays["task_base"][self.task + 1]["fault_kind"] = 0
        assert self.fault(BASE + page * PAGE, access) == 0
        return self.fault_kind()

    def at(self, page: int) -> int:
        """The VMA that contains a page, 0 if none; by the list, not by the index."""
        addr = BASE + page * PAGE
        starts, ends = self.vma("vm_start"), self.vma("vm_end")
        return next((v for v in self.vmas() if starts[v] <= addr < ends[v]), 0)

    def vma(self, field: str) -> Any:
        """One column of the VMA slab."""
        return self.machine.arrays["vma_base"][field]

    @property
    def mm(self) -> Any:
        """The mm_struct record."""
        return self.machine.mm(self.number)

    def spans(self) -> list[tuple[int, int, int]]:
        """(first page, one past the last, prot) of each VMA, pages counted from BASE."""
        return [((row[0] - BASE) // PAGE, (row[1] - BASE) // PAGE, row[2]) for row in self.layout()]

    def validate(self) -> None:
        """validate_mm with the index asked too."""
        self.runner.validate(self.machine)
