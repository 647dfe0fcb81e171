"""validate_mm: every invariant of a machine, checked in plain Python on its arrays.

List, index, page tables and map_count must agree, and every reference must point to a live record. O(VMAs x log + page
tables). Modelled on CONFIG_DEBUG_VM_RB's validate_mm (mm/mmap.c 3.8-6.0, mm/vma.c since).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from benchframe.dialect.functions import Binding
from benchframe.mm import flags, kmem, layout
from benchframe.mm.machine import Machine

Find = Callable[[int, int], int]
"""index_find(mm number, addr) of the strategy."""
Check = Callable[[int], int]
"""index_check(mm number) of the strategy."""
ASKED = 8192
"""Up to this many VMAs, the index is asked about each; beyond that, about SPREAD of them, evenly spread, since a list
needs O(n) for one."""
SPREAD = 512


class ValidationError(AssertionError):
    """An invariant is broken. The message names it and shows the address space."""


def vma_numbers(machine: Machine, number: int) -> list[int]:
    """The VMA indices of trace mm ``number`` in list order. Raises ValidationError if the list is circular."""
    vma, found = int(machine.mm(number)["mmap"]), []
    limit = len(machine.arrays["vma_base"])
    following: Any = machine.arrays["vma_base"]["vm_next"]
    if machine.mm(number)["map_count"] > ASKED:  # converting all at once costs less than one by one
        following = following[: int(machine.arrays["slab_base"]["top"][layout.ARENA_VMA])].tolist()
    try:
        while vma:
            found.append(vma)
            if len(found) > limit:
                raise ValidationError("the VMA list is circular")
            vma = int(following[vma])
    except IndexError:
        raise ValidationError(f"the VMA list leads to #{vma}, which was never allocated") from None
    return found


def live_mms(machine: Machine) -> list[int]:
    """Numbers of the trace mms that have page tables (that have not ended)."""
    return [i - 1 for i, pgd in enumerate(machine.arrays["mm_base"]["pgd"].tolist()) if i > 0 and pgd]


def dump(machine: Machine, number: int, most: int = 60) -> str:
    """The address space as a table of at most ``most`` lines."""
    vmas = machine.arrays["vma_base"]
    lines = [f"mm {number}: {int(machine.mm(number)['map_count'])} VMAs"]
    vma = int(machine.mm(number)["mmap"])
    while 0 < vma < len(vmas) and len(lines) <= most:
        v = vmas[vma]
        bits = "".join(c if v["vm_flags"] >> i & 1 else "-" for i, c in enumerate("rwxs"))
        lines.append(
            f"  #{vma} {v['vm_start']:012x}-{v['vm_end']:012x} {bits} pgoff {v['vm_pgoff']:x} file {v['vm_file']} "
            f"flags {v['vm_flags']:x} anon_vma {v['anon_vma']}/{v['anon_vma_chain']}"
        )
        vma = int(v["vm_next"])
    return "\n".join(lines) + ("\n  ..." if vma else "")


def validate_mm(machine: Machine, find: Find | None = None, check: Check | None = None, messages: Any = None) -> None:
    """Raise ValidationError for the first invariant that is broken, in any live mm.

    ``find`` and ``check`` ask the strategy's index; ``messages`` turns a check's number into words.
    """
    frames: Counter[int] = Counter()
    tables = 0
    for number in live_mms(machine):
        try:
            vmas = _validate_list(machine, number)
            if check is not None and (broken := check(number)):
                what = (messages or {}).get(broken, "see the docstring of the index")
                raise ValidationError(f"the index breaks invariant {broken}: {what}")
            if find is not None:
                _validate_index(machine, number, vmas, find)
            tables += _validate_tables(machine, number, vmas, frames)
        except ValidationError as error:
            raise ValidationError(f"{error}\n{dump(machine, number)}") from None
    _validate_private(machine)
    pages = machine.arrays["page_base"]
    for frame, count in frames.items():
        if pages[frame]["refcount"] != count or pages[frame]["mapcount"] != count:
            raise ValidationError(
                f"frame {frame} is mapped {count} times, its refcount says {pages[frame]['refcount']}, "
                f"its mapcount {pages[frame]['mapcount']}"
            )
    arenas = machine.arrays["slab_base"]
    free = {which: len(found) for which, found in free_objects(machine).items()}
    live = {layout.ARENA_TABLE: tables, layout.ARENA_PAGE: len(frames)}
    live[layout.ARENA_VMA] = sum(int(machine.mm(n)["map_count"]) for n in live_mms(machine))
    for which, name in ((layout.ARENA_VMA, "VMAs"), (layout.ARENA_TABLE, "tables"), (layout.ARENA_PAGE, "frames")):
        given = int(arenas[which]["live"]) - free.get(which, 0)
        if given != live[which]:
            raise ValidationError(f"{given} {name} are allocated, {live[which]} are reachable: a leak")


def objects_in_use(machine: Machine, which: int) -> int:
    """Objects of slab ``which`` that somebody has. Raises ValidationError, as :func:`free_objects`."""
    return int(machine.arrays["slab_base"][which]["live"]) - len(free_objects(machine).get(which, ()))


def free_objects(machine: Machine) -> dict[int, dict[int, str]]:
    """For each slab whose objects an allocator gives (:mod:`benchframe.mm.kmem`): every free object, and its place.

    Raises ValidationError for an object that is in two places or of no slab, for a count that does not agree with its
    list, and for a lock that is held. O(objects).
    """
    return {which: _Places(machine, which).found for which in machine.caches}


class _Places:
    """The places of one cache's free objects."""

    def __init__(self, machine: Machine, which: int) -> None:
        self.arrays, self.k = machine.arrays, machine.arrays[kmem.KMEM.base][which]
        self.which = which
        self.found: dict[int, str] = {}
        self.sheaves: dict[int, str] = {}
        self.fresh: set[int] = set()
        first = int(self.k["first_slab"])
        slabs = range(first + 1, first + 1 + int(self.k["nr_slabs"]))
        for number in range(kmem.NODES):
            self._node(number, self.arrays[kmem.KMEM_NODE.base][int(self.k["first_node"]) + number])
        for cpu in range(machine.cpus + 1):
            self._cpu(cpu, self.arrays[kmem.KMEM_CPU.base][int(self.k["first_cpu"]) + cpu])
        for slab in slabs:
            if slab not in self.fresh:
                self._slab(slab)

    def _wrong(self, what: str) -> ValidationError:
        return ValidationError(f"cache {self.which}: {what}")

    def _at(self, slot: int, place: str) -> None:
        if slot in self.found:
            raise self._wrong(f"object {slot} is in {self.found[slot]} and in {place}")
        if not 0 < slot < int(self.arrays["slab_base"][self.which]["top"]):
            raise self._wrong(f"{place} leads to object {slot}, which was never given out")
        self.found[slot] = place

    def _linked(self, slot: int, place: str) -> int:
        """A list of objects; how many there are."""
        count = 0
        while slot:
            self._at(slot, place)
            slot = int(self.arrays[kmem.KMEM_OBJECT.base][int(self.k["first_object"]) + slot]["next"])
            count += 1
        return count

    def _sheaf(self, sheaf: int, place: str) -> int:
        """A sheaf's objects; how many there are."""
        if sheaf in self.sheaves:
            raise self._wrong(f"sheaf {sheaf} is {self.sheaves[sheaf]} and {place}")
        self.sheaves[sheaf] = place
        size = int(self.arrays[kmem.KMEM_SHEAF.base][sheaf]["size"])
        if not 0 <= size <= kmem.SHEAF_CAPACITY:
            raise self._wrong(f"sheaf {sheaf}, {place}, has {size} objects")
        first = sheaf * kmem.SHEAF_CAPACITY
        for slot in self.arrays[kmem.IN_SHEAF.base]["slot"][first : first + size].tolist():
            self._at(slot, f"sheaf {sheaf}, {place}")
        return size

    def _sheaf_list(self, sheaf: int, place: str, size: int, back: bool = False) -> int:
        """A list of sheaves with ``size`` objects each, linked ``back`` too in the barn; how many sheaves."""
        count = before = 0
        while sheaf:
            if back and self.arrays[kmem.KMEM_SHEAF.base][sheaf]["prev"] != before:
                raise self._wrong(f"sheaf {sheaf}, {place}, does not lead back to {before}")
            before = sheaf
            if self._sheaf(sheaf, place) != size:
                raise self._wrong(f"sheaf {sheaf}, {place}, has not {size} objects")
            sheaf = int(self.arrays[kmem.KMEM_SHEAF.base][sheaf]["next"])
            count += 1
        return count

    def _node(self, number: int, n: Any) -> None:
        where = f"node {number}'s"
        if n["list_lock"] or n["barn_lock"]:
            raise self._wrong(f"{where} list_lock is {n['list_lock']}, its barn_lock {n['barn_lock']} at rest")
        for field, count, size in (("full", "nr_full", kmem.SHEAF_CAPACITY), ("empty", "nr_empty", 0)):
            if (has := self._sheaf_list(int(n[field]), f"{where} {field} ones", size, True)) != n[count]:
                raise self._wrong(f"{where} {count} is {n[count]}, the list has {has}")
        partial, slab = 0, int(n["partial"])
        while slab:
            s = self.arrays[kmem.KMEM_SLAB.base][slab]
            if not s["node_partial"] or s["node"] != number or s["freelist"] & 1 or not s["freelist"] >> 32:
                raise self._wrong(f"slab {slab} is on {where} list, but is not a partial slab of it")
            partial, slab = partial + 1, int(s["next"])
        if partial != n["nr_partial"]:
            raise self._wrong(f"{where} nr_partial is {n['nr_partial']}, the list has {partial}")

    def _cpu(self, number: int, c: Any) -> None:
        where = f"CPU {number}'s"
        self._linked(int(c["freelist"]), f"{where} freelist")
        partial, slab = 0, int(c["partial"])
        while slab:
            partial, slab = partial + 1, int(self.arrays[kmem.KMEM_SLAB.base][slab]["next"])
        if partial != c["nr_partial"]:
            raise self._wrong(f"{where} nr_partial is {c['nr_partial']}, the list has {partial}")
        for slab in range(int(c["fresh"]), int(c["fresh"]) + int(c["nr_fresh"])):
            self._pages(slab, f"{where} pages")
        if c["prefilled"]:
            raise self._wrong(f"{where} store has not given back what it took beforehand")
        for field in ("main", "spare", "rcu_free"):
            if c[field]:
                self._sheaf(int(c[field]), f"{where} {field}")
        head, waiting = int(c["rcu_head"]), f"{where} list of what waits for a grace period"
        later = self._linked(int(c["rcu_next_head"]), waiting)
        if later != c["rcu_next"]:
            raise self._wrong(f"{where} rcu_next is {c['rcu_next']}, the list has {later}")
        count = self._linked(head, waiting) + later
        full = kmem.SHEAF_CAPACITY
        count += full * self._sheaf_list(int(c["rcu_sheaf_head"]), waiting, full)
        if count != c["rcu_waiting"]:
            raise self._wrong(f"{where} rcu_waiting is {c['rcu_waiting']}, the lists have {count}")
        self._sheaf_list(int(c["sheaves"]), f"{where} unused ones", 0)

    def _pages(self, number: int, place: str) -> None:
        """The pages of a slab that has not been made yet."""
        s = self.arrays[kmem.KMEM_SLAB.base][number]
        self.fresh.add(number)
        slots = range(int(s["first"]), int(s["first"]) + int(s["objects"]))
        for slot in self.arrays["freed_base"]["slot"][slots].tolist() if s["on_stack"] else slots:
            self._at(slot, place)

    def _slab(self, number: int) -> None:
        s = self.arrays[kmem.KMEM_SLAB.base][number]
        word = int(s["freelist"])
        free = self._linked(word >> 32, f"slab {number}")
        inuse = word >> 1 & (1 << 31) - 1
        if free + inuse != s["objects"]:
            raise self._wrong(f"slab {number} has {s['objects']} objects: {free} are free, {inuse} are not")


def _validate_private(machine: Machine) -> None:
    """The strategy's per-VMA fields that must be zero at rest are zero: locks are free."""
    top = int(machine.arrays["slab_base"][layout.ARENA_VMA]["top"])
    for slab in machine.private:
        for field in getattr(slab, "at_rest", ()):
            values = machine.arrays[slab.base][field][:top]
            if (busy := values.nonzero()[0]).size:
                raise ValidationError(f"VMA #{busy[0]}: {field} of its {slab.name} is {values[busy[0]]} at rest")


def _validate_list(machine: Machine, number: int) -> list[int]:
    mm, records = machine.mm(number), machine.arrays["vma_base"]
    vmas = vma_numbers(machine, number)
    if len(vmas) != mm["map_count"]:
        raise ValidationError(f"map_count says {mm['map_count']}, the list has {len(vmas)} VMAs")
    if int(mm["last_vma"]) != (vmas[-1] if vmas else 0):
        raise ValidationError(f"last_vma is #{mm['last_vma']}, the list ends with #{vmas[-1] if vmas else 0}")
    top = int(mm["task_size"])
    if len(vmas) <= ASKED or not _sound(records[vmas], vmas, number + 1, top):
        _validate_rows(records[vmas], vmas, number + 1, top)
    if mm["mmap_cache"] and int(mm["mmap_cache"]) not in vmas:
        raise ValidationError(f"mmap_cache is #{mm['mmap_cache']}, which is not a VMA of this mm")
    if mm["mmap_lock"] != 0 or mm["version"] % 2:
        raise ValidationError(f"mmap_lock is {mm['mmap_lock']}, version {mm['version']} at rest")
    return vmas


def _validate_rows(chosen: Any, vmas: list[int], owner: int, top: int) -> None:
    """Check the VMAs of one mm (record ``owner``) one by one, and name the first wrong one."""
    columns = ("vm_start", "vm_end", "vm_prev", "vm_mm", "anon_vma", "anon_vma_chain", "cache_access", "vm_refcnt")
    below, prev = 0, 0
    for vma, *row in zip(vmas, *(chosen[c].tolist() for c in (*columns, "detached")), strict=True):
        start, end, before, of, anon_vma, chain, holders, references, detached = row
        if not below <= start < end <= top or (start | end) % layout.PAGE_SIZE:
            raise ValidationError(f"VMA #{vma} {start:#x}-{end:#x} overlaps, is empty, unaligned or out of order")
        if before != prev or of != owner:
            raise ValidationError(f"VMA #{vma}: vm_prev is #{before}, must be #{prev}; vm_mm is {of}")
        if (anon_vma == 0) != (chain == 0):
            raise ValidationError(f"VMA #{vma}: anon_vma {anon_vma} with a chain of {chain}")
        if holders != 0 or detached != 0 or references not in (0, 1):
            raise ValidationError(
                f"VMA #{vma}: cache_access {holders}, vm_refcnt {references}, detached {detached} at rest"
            )
        below, prev = end, vma


def _sound(chosen: Any, vmas: list[int], owner: int, top: int) -> bool:
    """What :func:`_validate_rows` checks, for a long list: all rows at once."""
    start, end = chosen["vm_start"], chosen["vm_end"]
    below, prev = np.concatenate(([0], end[:-1])), np.concatenate(([0], vmas[:-1]))
    good = (below <= start) & (start < end) & (end <= top) & ((start | end) % layout.PAGE_SIZE == 0)
    good &= (chosen["vm_prev"] == prev) & (chosen["vm_mm"] == owner)
    good &= (chosen["anon_vma"] == 0) == (chosen["anon_vma_chain"] == 0)
    good &= (chosen["cache_access"] == 0) & (chosen["detached"] == 0) & (chosen["vm_refcnt"] >> 1 == 0)
    return bool(good.all())


def _validate_index(machine: Machine, number: int, vmas: list[int], find: Find) -> None:
    """The index gives the list's answer at the first and last byte of each VMA and in each hole; see ASKED."""
    chosen = machine.arrays["vma_base"][vmas]
    step = 1 if len(vmas) <= ASKED else max(1, len(vmas) // SPREAD)
    below = 0
    for at, (vma, start, end) in enumerate(
        zip(vmas, chosen["vm_start"].tolist(), chosen["vm_end"].tolist(), strict=True)
    ):
        for addr in (below, start, end - 1) if at % step == 0 else ():
            if (got := find(number, addr)) != vma:
                raise ValidationError(f"the index finds #{got} for {addr:#x}, the list has #{vma}")
        below = end
    if got := find(number, below):
        raise ValidationError(f"the index finds #{got} above the last VMA")


def _validate_tables(machine: Machine, number: int, vmas: list[int], frames: Counter[int]) -> int:
    """Walk all tables: entries lie in VMAs, counts agree, no table outlives its VMAs. Returns the number of tables."""
    chosen = machine.arrays["vma_base"][vmas]
    bounds = list(zip(chosen["vm_start"].tolist(), chosen["vm_end"].tolist(), strict=True))
    ends = [end for _, end in bounds]
    mm = machine.mm(number)
    tables, rss, cursor = 0, 0, 0
    entries = machine.arrays["pte_base"]["entry"]
    stack = [(int(mm["pgd"]), 0, layout.PGDIR_SHIFT)]
    while stack:
        table, start, shift = stack.pop()
        tables += 1
        page = machine.arrays["page_base"][table]
        if page["mapping"] != flags.PAGE_TABLE or page["ptl"] != 0:
            raise ValidationError(f"table {table} for {start:#x}: mapping {page['mapping']}, ptl {page['ptl']}")
        if shift != layout.PGDIR_SHIFT:
            span = start + (layout.PTRS_PER_TABLE << shift)
            cursor = bisect_right(ends, start)
            if cursor == len(bounds) or bounds[cursor][0] >= span:
                raise ValidationError(f"a page table for {start:#x}-{span:#x} is left where there is no VMA")
        chunk = entries[table * layout.PTRS_PER_TABLE : (table + 1) * layout.PTRS_PER_TABLE]
        present = 0
        for index in chunk.nonzero()[0].tolist():
            entry, addr = int(chunk[index]), start + (index << shift)
            if shift > layout.PAGE_SHIFT and not entry & flags.E_PSE:
                stack.append((entry >> 12, addr, {39: 30, 30: 21, 21: 12}[shift]))
                continue
            while cursor < len(bounds) and bounds[cursor][1] <= addr:
                cursor += 1
            if cursor == len(bounds) or addr < bounds[cursor][0]:
                raise ValidationError(f"an entry for {addr:#x} is left where there is no VMA")
            if entry & flags.E_PRESENT:
                present += 1
                rss += layout.PTRS_PER_TABLE if entry & flags.E_PSE else 1
            frame = entry >> 12
            if not entry & (flags.E_FILE | flags.E_GUARD) and frame != machine.zero_page:
                frames[frame] += 1
        if shift == layout.PAGE_SHIFT and page["nr_present"] != present:
            raise ValidationError(f"PTE page {table} for {start:#x}: nr_present {page['nr_present']}, has {present}")
    if tables != mm["nr_ptes"]:
        raise ValidationError(f"nr_ptes says {mm['nr_ptes']}, there are {tables} tables")
    if rss != mm["rss"] and not machine.sizes.threads:  # threads do not keep it (mm.shared.add_rss_shared)
        raise ValidationError(f"rss says {mm['rss']}, {rss} pages are mapped")
    return tables


class Validating:
    """Mixin for a runner that checks every invariant: it asks the strategy's index through :meth:`ask`."""

    strategy: Any
    allocator: Binding = MappingProxyType({})
    """The hooks that give and take objects of slab caches; empty: the model's own stacks of free slots."""

    def ask(self, name: str, number: int, *arguments: int) -> int:
        """Call hook ``name`` of the strategy in trace mm ``number``."""
        raise NotImplementedError

    def validate(self, machine: Machine) -> None:
        """validate_mm, including the strategy's index. Raises ValidationError."""
        validate_mm(
            machine,
            lambda number, addr: self.ask("index_find", number, addr),
            lambda number: self.ask("index_check", number),
            self.strategy.check_messages,
        )
