"""The state of the hardware, for scenarios that need it: contents of frames, one TLB entry per task, rmap indexes.

A user's store goes through its CPU's TLB: the page tables are read only if there is no entry, so a permission that was
taken away has an effect only after a flush. Contents are numbers of stores: a store that is in no copy at the end was
lost. A new anonymous page gets an index from its VMA's bounds: an index from inconsistent bounds is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchframe.check.execution import READS, WRITES, Broken, Op
from benchframe.check.memory import MachineWorld, place
from benchframe.dialect.interpreter import dejit
from benchframe.mm.flags import E_PRESENT, E_RW
from benchframe.mm.hooks import copy_user_page, flush_tlb, page_add_anon
from benchframe.mm.layout import MM, PAGE_SHIFT, PTE, VMA
from benchframe.mm.pagetable import pmd_slot

STORES = 3
"""How often a store that finds its TLB entry gone faults again."""
REPLACE: dict[Any, Callable[..., int]] = {
    copy_user_page.default: lambda mm, new, old: mm.world.copy_page(new, old),
    flush_tlb.default: lambda mm, start, end: mm.world.flush(int(mm.id), start, end),
    page_add_anon.default: lambda mm, vma, addr, frame: mm.world.page_added(mm, vma, addr, frame),
}
"""The model's hooks for it, which otherwise do nothing."""
_walk = dejit(pmd_slot)


@dataclass(frozen=True)
class _Indexed:
    """An anonymous page and its index."""

    vma: int
    addr: int
    index: int


class Hardware(MachineWorld):
    """A world with TLBs and contents; they are modelled only if ``hardware`` is set."""

    hardware = False

    def init_hardware(self) -> None:
        """Empty TLBs, blank frames."""
        self.hardware = True
        self.indexed: dict[int, _Indexed] = {}
        self.stored: dict[int, int] = {}
        """For each page of the first mm: completed stores."""

    # ---- calls from the model ----------------------------------------------------------------------------------------

    def copy_page(self, new: int, old: int) -> int:
        """The content of a frame is copied."""
        if self.hardware:
            self.access("load content", ("content", old), 0, READS)
            value = self.words.get(("content", old), 0)
            self.set_word("copy page", ("content", new), value)
        return 0

    def flush(self, mm: int, start: int, end: int) -> int:
        """Remove [start, end) from the TLB of every task of the mm; each CPU has answered before this returns."""
        if self.hardware and mm == 1:
            for task in range(len(self.bodies)):
                if not self.daemons[task]:
                    self.set_word("flush TLB", ("tlb", task), None)  # a flush may remove more than necessary
        return 0

    def page_added(self, mm: Any, vma: int, addr: int, frame: int) -> int:
        """linear_page_index, as the fault computes it."""
        if self.hardware:
            v = self.ref(VMA, vma)
            index = v.vm_pgoff + ((addr - v.vm_start) >> PAGE_SHIFT)
            self.indexed[frame] = _Indexed(vma, addr, index)
        return 0

    # ---- the user's side ---------------------------------------------------------------------------------------------

    def user_store(self, task: int, event: int, addr: int, run_event: Callable[[Any, int], int]) -> int:
        """Store to ``addr``: with the TLB entry if there is one, else after a walk, else after a fault. Returns the
        fault's answer, 0 if there was none."""
        page, result = addr >> PAGE_SHIFT, 0
        for _ in range(STORES):
            if self._store(task, page) or (self._fill(task, addr) and self._store(task, page)):
                self.stored[page] = self.stored.get(page, 0) + 1
                return result
            result = run_event(self.ref(MM, 1), event)
            if result < 0:
                return result
        return result

    def _store(self, task: int, page: int) -> bool:
        """One step: if there is an entry, do the store."""
        op = Op("store", (("tlb", task), 0, READS))
        entry = self.words.get(("tlb", task))
        if entry is not None:
            op.accesses.append((("content", entry[1]), 0, WRITES))
        self._step(op)
        entry = self.words.get(("tlb", task))
        if entry is None or entry[0] != page:
            return False
        content = ("content", entry[1])
        op.before = self.words.get(content, 0)
        self.words[content] = op.value = op.before + 1
        return True

    def _step(self, op: Op) -> None:
        """An operation on several locations, always a scheduling point; the other tasks see that they are shared."""
        if self.memory.record:
            op.place = place()
        self.announce(op)
        for key, part, how in op.accesses:
            assert isinstance(key, tuple)
            self.memory.touch(key, part, how, self.current)

    def _fill(self, task: int, addr: int) -> bool:
        """One step: the walk and the entry, if stores are allowed. Upper tables are read before."""
        slot = _walk(self.ref(MM, 1), addr)
        table = self.ref(PTE, slot).entry >> 12 if slot else 0
        op = Op("fill TLB", (("tlb", task), 0, WRITES))
        index = (addr >> PAGE_SHIFT) & 511
        op.accesses.append((("page_base", table), ("entry", index), READS))
        self._step(op)
        entry = int(self.memory.machine.arrays["pte_base"][table * 512 + index]["entry"]) if table else 0
        op.before = self.words.get(("tlb", task))
        good = entry & (E_PRESENT | E_RW) == E_PRESENT | E_RW
        self.words["tlb", task] = op.value = (addr >> PAGE_SHIFT, entry >> 12) if good else None
        return good

    # ---- the end -----------------------------------------------------------------------------------------------------

    def check_hardware(self) -> None:
        """Raises Broken if a store was lost, or if a page's index is not that of its address."""
        if not self.hardware:
            return
        entries = self.memory.machine.arrays["pte_base"]
        root = self.ref(MM, 1)
        for page, count in self.stored.items():
            slot = _walk(root, page << PAGE_SHIFT)
            table = int(entries[slot]["entry"]) >> 12 if slot else 0
            frame = int(entries[table * 512 + (page & 511)]["entry"]) >> 12 if table else 0
            found = self.words.get(("content", frame), 0)
            if frame and found != count:
                raise Broken("lost store", f"{count} stores to page {page & 511} were done, {found} are in its frame")
        records = self.memory.machine.arrays["vma_base"]
        for one in self.indexed.values():
            v = records[one.vma]
            if ("vma_base", one.vma) in self.dead or not v["vm_start"] <= one.addr < v["vm_end"]:
                continue
            index = int(v["vm_pgoff"]) + ((one.addr - int(v["vm_start"])) >> PAGE_SHIFT)
            if index != one.index:
                raise Broken(
                    "wrong index",
                    f"the page at {one.addr:#x} got index {one.index:#x} in its anon_vma, its address has {index:#x}",
                )
