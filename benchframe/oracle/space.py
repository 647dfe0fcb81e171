"""The oracle's address space: a sorted list of areas, and when and how areas merge.

Merging is decided on plain objects, by the eight cases of vma_merge (mm/vma.c, Linux 6.18). A range R is new (mmap,
brk, mremap) or changes flags inside an area C. P is the area before it, N the one after::

    case 1  P R N -> P          case 5  P [R c] -> P c      (c: what stays of C)
    case 2  P R   -> P          case 6  P [R] N -> P
    case 3    R N -> N          case 7  P [R]   -> P
    case 4  [c R] N -> c N      case 8    [R] N -> N
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from operator import attrgetter
from typing import Concatenate, ParamSpec, TypeVar

from benchframe.events import NIL
from benchframe.oracle.rules import (
    EINVAL,
    ENOMEM,
    EPERM,
    PAGE,
    PAGE_SHIFT,
    PMD,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MAYBE_GUARD,
    VM_MAYSHARE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PKEY,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
    FaultError,
    Limits,
    Rules,
    page_align,
)

# ----------------------------------------------------------------------------------------------------------------------
# One area of an address space (the kernel's vm_area_struct) and the object behind it, as plain Python objects.

_FOREVER = 1 << 62


@dataclass(eq=False)
class Backing:
    """An open file, or the object behind one shared anonymous mapping; compared by identity."""

    number: int = NIL
    """The trace's file index; NIL for shared anonymous memory."""
    size: int = _FOREVER
    """Bytes; access past the last page is a bus error."""
    inode: int = 0
    """Two open file descriptions of one file have the same; only the ablation of ``merge_file`` uses it."""
    readable: bool = True
    writable: bool = True
    closes: bool = False
    """A System V segment: its areas have vm_ops->close, so a merge must not free one, and the file chooses addresses
    itself (get_unmapped_area)."""


@dataclass(eq=False)
class Area:
    """A vm_area_struct: [vm_start, vm_end) in bytes, and everything that merge rules depend on."""

    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int
    """Offset of ``vm_start`` in the file, in pages; for private anonymous memory an address in pages."""
    vm_file: Backing | None = None
    anon_vma: int = 0
    """Identity of the anon_vma, 0 if none: set by the first write fault of a private area."""
    chain: tuple[int, ...] = field(default=())
    """Every anon_vma linked (anon_vma_chain); more than one after fork."""

    @property
    def singular(self) -> bool:
        """Whether it was not inherited through fork: exactly one anon_vma is linked."""
        return len(self.chain) == 1

    @property
    def inherited(self) -> bool:
        """Whether it has an anon_vma and also those of ancestors."""
        return self.anon_vma != 0 and len(self.chain) != 1

    @property
    def closes(self) -> bool:
        """Whether the area has vm_ops->close."""
        return self.vm_file is not None and self.vm_file.closes

    @property
    def anonymous(self) -> bool:
        """Whether no object behind it supplies pages (vma_is_anonymous)."""
        return self.vm_file is None

    def pgoff_at(self, addr: int) -> int:
        """The page offset of ``addr``, which lies in this area."""
        return self.vm_pgoff + ((addr - self.vm_start) >> PAGE_SHIFT)

    def start_gap(self, stack_guard_gap: int) -> int:
        """The start of the space that must stay free below this area (vm_start_gap)."""
        return max(0, self.vm_start - stack_guard_gap) if self.vm_flags & VM_GROWSDOWN else self.vm_start

    def copy(self) -> "Area":
        """An independent copy."""
        return Area(
            self.vm_start, self.vm_end, self.vm_flags, self.vm_pgoff, self.vm_file, self.anon_vma, self.chain
        )  # fmt: skip

    def row(self) -> tuple[int, int, int, int, int, int]:
        """The row of /proc/PID/maps: (vm_start, vm_end, prot, shared, offset in bytes, file index or NIL)."""
        file = self.vm_file
        return (
            self.vm_start,
            self.vm_end,
            self.vm_flags & VM_ACCESS,
            1 if self.vm_flags & VM_MAYSHARE else 0,
            0 if file is None else self.vm_pgoff << PAGE_SHIFT,
            NIL if file is None else file.number,
        )


# ----------------------------------------------------------------------------------------------------------------------
# A set of integers kept as sorted, disjoint, half-open spans, so that those of a huge range stay small.


class Spans:
    """The set of integers. Adding and discarding cost O(spans), however long the ranges are.

    >>> some = Spans()
    >>> some.add(2, 5); some.add(5, 7); some.discard(3, 4)
    >>> some.clip(0, 10), 3 in some, 4 in some
    ([(2, 3), (4, 7)], False, True)
    """

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(spans):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __contains__(self, item: int) -> bool:
        at = bisect_right(self.starts, item) - 1
        return at >= 0 and item < self.ends[at]

    def add(self, start: int, end: int) -> None:
        """Add [start, end); joins adjacent spans."""
        if start >= end:
            return
        low, high = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if low < high:
            start, end = min(start, self.starts[low]), max(end, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [start], [end]

    def discard(self, start: int, end: int) -> None:
        """Remove [start, end)."""
        if start >= end:
            return
        low, high = bisect_right(self.ends, start), bisect_left(self.starts, end)
        if low >= high:
            return
        left = [(self.starts[low], start)] if self.starts[low] < start else []
        right = [(end, self.ends[high - 1])] if end < self.ends[high - 1] else []
        self.starts[low:high] = [span[0] for span in left + right]
        self.ends[low:high] = [span[1] for span in left + right]

    def clip(self, start: int, end: int) -> list[tuple[int, int]]:
        """The spans inside [start, end), cut at its ends."""
        low, high = bisect_right(self.ends, start), bisect_left(self.starts, end)
        pairs = zip(self.starts[low:high], self.ends[low:high], strict=True)
        return [(max(one, start), min(other, end)) for one, other in pairs] if start < end else []

    def add_all(self, spans: Iterable[tuple[int, int]]) -> None:
        """Add many spans at once. O((old + new) log)."""
        merged = Spans([*zip(self.starts, self.ends, strict=True), *spans])
        self.starts, self.ends = merged.starts, merged.ends

    def copy(self) -> "Spans":
        """An independent copy."""
        twin = Spans()
        twin.starts, twin.ends = self.starts[:], self.ends[:]
        return twin


# ----------------------------------------------------------------------------------------------------------------------
# The sorted list of areas and its operations: find, split, unmap, prepare an anon_vma, touch pages.
#
# Everything is a walk over a Python list that bisect keeps sorted: O(log n) to find, O(n) to insert or delete. The
# state of pages is kept only as far as a later call can see it: which pages hold a guard marker, and which 2 MiB
# ranges have a page table (a read fault in one cannot take a huge page).

_P = ParamSpec("_P")
_Self = TypeVar("_Self")
_BY_END = attrgetter("vm_end")
_MERGE_IGNORES = VM_ACCESS | VM_MAYBE_GUARD
UNLIMITED = 1 << 62
"""A limit that no address space can reach, so the sum need not be computed."""


class Refused(Exception):
    """A call fails with this errno; its effects so far remain, as in the kernel."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


def negative_errno(call: Callable[Concatenate[_Self, _P], int]) -> Callable[Concatenate[_Self, _P], int]:
    """Turn :class:`Refused` into a negative return value."""

    @wraps(call)
    def wrapped(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            return call(self, *args, **kwargs)
        except Refused as refused:
            return -refused.errno

    return wrapped


class Space:
    """An mm_struct: areas in address order, the break, and the page state that later calls can observe."""

    def __init__(self, rules: Rules, limits: Limits) -> None:
        self.rules = rules
        self.limits = limits
        self.areas: list[Area] = []
        self.guards = Spans()
        """Addresses with a guard marker."""
        self.tables = Spans()
        """Numbers of the 2 MiB ranges that have a page table or a huge page."""
        self.full_above, self.full_length = limits.task_size, 0
        """No hole right below an area that starts above ``full_above`` holds ``full_length`` bytes or more."""
        self.start_brk: int | None = None
        self.brk_now: int = 0
        self.anon_vma_numbers = count(1)
        self.fail_prealloc = False
        """Whether the index has no memory for a store. Then a call says ENOMEM before it changes the areas."""

    # --- find ---------------------------------------------------------------------------------------------------

    def index(self, addr: int) -> int:
        """Position of the first area with ``addr < vm_end``; ``len(areas)`` if there is none. O(log n)."""
        return bisect_right(self.areas, addr, key=_BY_END)

    def find_vma(self, addr: int) -> Area | None:
        """First area with ``addr < vm_end``, or None; it need not contain ``addr``."""
        at = self.index(addr)
        return self.areas[at] if at < len(self.areas) else None

    def lookup(self, addr: int) -> Area | None:
        """The area that contains ``addr``, or None (vma_lookup)."""
        area = self.find_vma(addr)
        return area if area is not None and area.vm_start <= addr else None

    def maps(self, low: int, high: int) -> int:
        """The answer to a WALK: the number of areas that are not inside [low, high), times 2^32, plus FNV-1 over the
        32 bits that their bounds in pages leave (docs/trace-format.md). O(areas)."""
        number, seen = 0, 0
        for area in self.areas:
            if low <= area.vm_start and area.vm_end <= high:
                continue
            number += 1
            for bound in (area.vm_start, area.vm_end):
                seen = (seen ^ bound // PAGE) * 0x01000193 % (1 << 32)
        return number * (1 << 32) + seen

    def first_in(self, start: int, end: int) -> Area | None:
        """First area that overlaps [start, end), or None (find_vma_intersection)."""
        area = self.find_vma(start)
        return area if area is not None and area.vm_start < end else None

    def areas_in(self, start: int, end: int, most: int = 1 << 62) -> list[Area]:
        """The first ``most`` areas that overlap [start, end). O(log n + areas found)."""
        found: list[Area] = []
        for at in range(self.index(start), len(self.areas)):
            if self.areas[at].vm_start >= end or len(found) == most:
                break
            found.append(self.areas[at])
        return found

    def before(self, addr: int) -> Area | None:
        """Last area that ends at or below ``addr``; ``addr`` must not lie inside an area."""
        at = self.index(addr)
        return self.areas[at - 1] if at else None

    def neighbours(self, area: Area) -> tuple[Area | None, Area | None]:
        """The areas before and after ``area`` in address order, adjacent or not."""
        at = self.index(area.vm_start)
        prev = self.areas[at - 1] if at else None
        return prev, self.areas[at + 1] if at + 1 < len(self.areas) else None

    # --- change -------------------------------------------------------------------------------------------------

    def prealloc(self) -> None:
        """What the index needs for the next store (vma_iter_prealloc). Raises Refused: ENOMEM if there is no memory."""
        if self.fail_prealloc:
            raise Refused(ENOMEM)

    def insert(self, area: Area) -> None:
        """Insert a new area, whose range must be free. O(n). Raises Refused as :meth:`prealloc`."""
        self.prealloc()
        self.areas.insert(self.index(area.vm_start), area)

    def remove(self, area: Area) -> None:
        """Remove an area from the list; does not change its pages."""
        at = self.index(area.vm_start)
        assert self.areas[at] is area
        del self.areas[at]

    def split(self, area: Area, addr: int, counted: bool = True) -> Area:
        """Split ``area`` at ``addr``, which lies inside; returns the upper part, while the object itself becomes the
        lower one.

        Raises:
            Refused: ENOMEM at ``max_map_count``, if ``counted`` (split_vma; __split_vma does not count), or without
                memory for the index.
        """
        if counted and len(self.areas) >= self.limits.max_map_count:
            raise Refused(ENOMEM)
        self.prealloc()
        upper = area.copy()
        upper.vm_pgoff = area.pgoff_at(addr)
        upper.vm_start = addr
        area.vm_end = addr
        self.insert(upper)
        return upper

    def unmap(self, start: int, length: int) -> None:
        """munmap(2) itself: split at both ends, remove the areas in between, their guard markers and page tables.

        Raises:
            Refused: EINVAL for a bad range, ENOMEM if a hole would exceed ``max_map_count``, or without memory for the
                index: then what was split stays split.
        """
        task_size = self.limits.task_size
        if start % PAGE or start > task_size or length > task_size - start or not page_align(length):
            raise Refused(EINVAL)
        self.unmap_range(start, start + page_align(length))

    def unmap_range(self, start: int, end: int) -> None:
        """:meth:`unmap` for a range that was already checked. O(n)."""
        first = self.first_in(start, end)
        if first is None:
            return
        if start > first.vm_start:
            if end < first.vm_end and len(self.areas) >= self.limits.max_map_count:
                raise Refused(ENOMEM)
            first = self.split(first, start, counted=False)
        last = self.lookup(end - 1)
        if last is not None and end < last.vm_end:
            self.split(last, end, counted=False)
        self.prealloc()
        low, high = self.index(start), self.index(end - 1)
        if high < len(self.areas) and self.areas[high].vm_start < end:
            high += 1
        span_start, span_end = self.areas[low].vm_start, self.areas[high - 1].vm_end
        del self.areas[low:high]
        hole_end = self.areas[low].vm_start if low < len(self.areas) else self.limits.task_size
        self.full_above = max(self.full_above, hole_end)
        self._forget_pages(span_start, span_end, low)

    def _forget_pages(self, start: int, end: int, at: int) -> None:
        """Remove the page state of a range just unmapped; ``at`` is where its areas were (free_pgtables'
        floor/ceiling)."""
        self.guards.discard(start, end)
        floor = self.areas[at - 1].vm_end if at else 0
        ceiling = self.areas[at].vm_start if at < len(self.areas) else self.limits.task_size
        self.tables.discard(max(start // PMD, -(-floor // PMD)), min(-(-end // PMD), ceiling // PMD))

    # --- limits -------------------------------------------------------------------------------------------------

    def may_lock(self, vm_flags: int, length: int) -> bool:
        """Whether ``length`` more bytes with these flags stay within RLIMIT_MEMLOCK (mlock_future_ok)."""
        limit = self.limits.rlimit_memlock
        return not vm_flags & VM_LOCKED or limit >= UNLIMITED or self.locked() + length <= limit

    def locked(self) -> int:
        """Bytes in locked areas. O(n)."""
        return sum(area.vm_end - area.vm_start for area in self.areas if area.vm_flags & VM_LOCKED)

    def charge(self, length: int) -> None:
        """Refuse an accounted request that exceeds all memory (overcommit, heuristic mode)."""
        if length > self.limits.overcommit_max:
            raise Refused(ENOMEM)

    # --- anon_vma and pages -------------------------------------------------------------------------------------

    def anon_vma_prepare(self, area: Area) -> None:
        """Give ``area`` an anon_vma if it has none: that of a compatible neighbour (next first), else a new one."""
        if area.anon_vma:
            return
        if self.rules.anon_vma_reuse:
            prev, nxt = self.neighbours(area)
            for low, high, donor in ((area, nxt, nxt), (prev, area, prev)):
                if low is None or high is None or donor is None or not donor.anon_vma or not donor.singular:
                    continue
                if (
                    low.vm_end == high.vm_start
                    and low.vm_file is high.vm_file
                    and not (low.vm_flags ^ high.vm_flags) & ~_MERGE_IGNORES
                    and low.pgoff_at(high.vm_start) == high.vm_pgoff
                ):
                    area.anon_vma, area.chain = donor.anon_vma, (donor.anon_vma,)
                    return
        area.anon_vma = next(self.anon_vma_numbers)
        area.chain = (area.anon_vma,)

    def touch(self, area: Area, start: int, end: int, write: bool) -> int:
        """Fault in pages [start, end) of one area, whose protection allows it: 0 or a negative FaultError.

        A write to a private area prepares its anon_vma, even where a page past the end then fails.
        """
        good_end, error = self._first_bad_page(area, start, end)
        if write and not area.vm_flags & VM_SHARED:
            if good_end > start or error == -FaultError.BUS:
                self.anon_vma_prepare(area)
        elif not write and self.may_be_huge(area) and self._huge_read(area, start, good_end):
            self.anon_vma_prepare(area)
        if good_end > start:
            self.tables.add(start // PMD, -(-good_end // PMD))
        return error

    def _first_bad_page(self, area: Area, start: int, end: int) -> tuple[int, int]:
        """Where touching [start, end) stops, and with which error; (end, 0) if it does not stop."""
        stop, error = end, 0
        file = area.vm_file
        if file is not None and self.rules.sigbus_past_end:
            past = area.vm_start + page_align(file.size) - (area.vm_pgoff << PAGE_SHIFT)
            if past < stop:
                stop, error = max(past, start), -FaultError.BUS
        guards = self.guards.clip(start, end) if self.guards else []
        if guards and guards[0][0] <= stop:
            stop, error = guards[0][0], -FaultError.MAPERR
        return stop, error

    def may_be_huge(self, area: Area) -> bool:
        """Whether its faults may use huge pages (huge_mm.h, thp_vma_allowable_order)."""
        asked = area.vm_flags & VM_HUGEPAGE or (self.rules.thp_always and not area.vm_flags & VM_NOHUGEPAGE)
        return bool(asked) and area.anonymous

    def _huge_read(self, area: Area, start: int, end: int) -> bool:
        """Whether a read of [start, end) may use a huge page somewhere: a whole free 2 MiB range of the area."""
        if not self.rules.thp_read_prepares_anon_vma or not self.rules.thp:
            return False
        low = max(start // PMD, -(-area.vm_start // PMD))
        high = min(-(-end // PMD), area.vm_end // PMD)
        return end > start and low < high and self.tables.clip(low, high) != [(low, high)]

    def populate(self, start: int, end: int) -> int:
        """Touch every area in [start, end) as mlock and MAP_POPULATE do; the first error, 0 if none.

        Stops at the first error (which the caller may ignore); holes are skipped.
        """
        at = self.index(start)
        while start < end and at < len(self.areas) and self.areas[at].vm_start < end:
            area = self.areas[at]
            error = self.populate_area(area, max(start, area.vm_start), min(end, area.vm_end))
            if error:
                return error
            at += 1
        return 0

    def readable(self, area: Area) -> bool:
        """Whether a program may read there (arch/x86/mm/fault.c access_error, arch_vma_access_permitted): on x86 a
        write-only area can be read, and an execute-only one if there are no protection keys."""
        return area.vm_flags & VM_ACCESS != 0 and not area.vm_flags & VM_PKEY

    def populate_area(self, area: Area, start: int, end: int) -> int:
        """Touch a range of one area: by writing if it is private and writable, else by reading."""
        if not self.readable(area):
            return -FaultError.ACCERR
        return self.touch(area, start, end, area.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE)

    def check_fixed(self, addr: int, length: int) -> None:
        """The conditions for every chosen address (the end of __get_unmapped_area).

        Raises:
            Refused: ENOMEM beyond TASK_SIZE, EINVAL if unaligned, EPERM below ``mmap_min_addr``.
        """
        limits = self.limits
        if length > limits.task_size or addr > limits.task_size - length:
            raise Refused(ENOMEM)
        if addr % PAGE:
            raise Refused(EINVAL)
        if addr < limits.mmap_min_addr and not limits.may_map_low:
            raise Refused(EPERM)

    def unmapped_area(self, hint: int, length: int) -> int:
        """An address for ``length`` bytes: the hint if it is free, else the highest hole below ``mmap_base`` that
        fits, else the lowest one above it. Every hole ends below the guard gap of an area that grows down. O(n).

        Raises:
            Refused: ENOMEM if nothing fits.
        """
        limits = self.limits
        if length > limits.task_size:
            raise Refused(ENOMEM)
        hint &= ~(PAGE - 1)
        if hint and hint < limits.mmap_min_addr:
            hint = page_align(limits.mmap_min_addr)
        # mmap_address_hint_valid: not across the window's end (arch/x86/mm/mmap.c)
        within = (hint > limits.window) == (hint + length > limits.window)
        if hint and hint <= limits.task_size - length and within:
            after = self.find_vma(hint)
            if after is None or hint + length <= after.start_gap(limits.stack_guard_gap):
                return hint
        if hint > limits.window:  # five levels of page tables, and the hint is above what four reach
            return self._hole_beyond(length)
        found = self._highest_hole(length)
        if found is None:
            found = self._lowest_hole(length)
        if found is None:
            raise Refused(ENOMEM)
        return found

    def _highest_hole(self, length: int) -> int | None:
        """The highest place below ``mmap_base`` for ``length`` bytes.

        O(n), but starts below the part that an earlier search for at most this length found full.
        """
        limits = self.limits
        low = page_align(max(PAGE, limits.mmap_min_addr))
        at = self.index(self.full_above) if self.full_length and length >= self.full_length else len(self.areas)
        while at >= 0:
            after = self.areas[at] if at < len(self.areas) else None
            ceiling = min(limits.mmap_base, after.start_gap(limits.stack_guard_gap) if after else limits.mmap_base)
            floor = max(low, self.areas[at - 1].vm_end) if at else low
            self.full_above = after.vm_start if after else limits.task_size
            self.full_length = length
            if ceiling - floor >= length:
                return ceiling - length
            at -= 1
        return None

    def _lowest_hole(self, length: int) -> int | None:
        """The lowest place above ``mmap_base``. O(n)."""
        limits = self.limits
        floor = limits.mmap_base
        for area in self.areas[self.index(floor) :]:
            if area.start_gap(limits.stack_guard_gap) - floor >= length:
                return floor
            floor = max(floor, area.vm_end)
        return floor if limits.window - floor >= length else None

    def _hole_beyond(self, length: int) -> int:
        """The highest place below ``mmap_base``, which is higher by as much as addresses extend beyond the window.
        O(n).

        Raises:
            Refused: ENOMEM if nothing fits.
        """
        limits = self.limits
        ceiling = limits.mmap_base + limits.task_size - limits.window
        for area in reversed(self.areas):
            if ceiling - area.vm_end >= length:
                return ceiling - length
            ceiling = min(ceiling, area.start_gap(limits.stack_guard_gap))
        if ceiling - page_align(max(PAGE, limits.mmap_min_addr)) < length:
            raise Refused(ENOMEM)
        return ceiling - length

    def accounted(self, vm_flags: int) -> int:
        """``vm_flags`` with VM_ACCOUNT if a new mapping with them is accounted: private, writable, not NORESERVE."""
        account = vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE
        return vm_flags | VM_ACCOUNT if account else vm_flags


# ----------------------------------------------------------------------------------------------------------------------
# When areas merge, and how.

_STICKY = VM_MAYBE_GUARD


@dataclass
class Range:
    """The range to merge: new, or changed."""

    start: int
    end: int
    vm_flags: int
    pgoff: int
    file: Backing | None
    anon_vma: int = 0
    source: Area | None = None
    """The area to which the anon_vma belongs: the changed one, or the one that mremap copies. None when an area grows
    in place: vma_merge_extend does not pass it, so an inherited anon_vma is not noticed."""
    copied: bool = False


def _anon_vma_agrees(rules: Rules, new: Range, target: Area) -> bool:
    """Whether ``target`` may take over the range as far as anon_vmas are concerned."""
    if not rules.merge_anon_vma or new.anon_vma == target.anon_vma:
        return True
    if new.anon_vma and target.anon_vma:
        return False
    if not rules.anon_vma_merge_both_ways:
        return target.singular
    if target.anon_vma:
        return not target.inherited
    if new.source is None or (new.copied and not rules.anon_vma_copied_from):
        return True
    return not new.source.inherited


def _same_file(rules: Rules, one: Backing | None, other: Backing | None) -> bool:
    if one is other:
        return True
    if rules.merge_file or one is None or other is None:
        return False
    return one.inode != 0 and one.inode == other.inode


def compatible(rules: Rules, new: Range, target: Area) -> bool:
    """Whether an adjacent ``target`` and the range agree in everything but offset and position."""
    differ = (new.vm_flags ^ target.vm_flags) & ~_STICKY
    if (new.vm_flags | target.vm_flags) & VM_SPECIAL:
        return False
    if target.closes and not rules.merge_closing:
        return False
    if not rules.merge_conditions:
        return not differ & VM_ACCESS and (new.file is None) == (target.vm_file is None)
    if differ if rules.merge_flags else differ & VM_ACCESS:
        return False
    return _same_file(rules, new.file, target.vm_file) and _anon_vma_agrees(rules, new, target)


def fits_after(rules: Rules, new: Range, prev: Area | None) -> bool:
    """Whether ``prev`` can grow up over the range."""
    if prev is None or prev.vm_end != new.start or not compatible(rules, new, prev):
        return False
    return not (rules.merge_pgoff and rules.merge_conditions) or prev.pgoff_at(new.start) == new.pgoff


def fits_before(rules: Rules, new: Range, nxt: Area | None) -> bool:
    """Whether ``nxt`` can grow down over the range."""
    if nxt is None or nxt.vm_start != new.end or not compatible(rules, new, nxt):
        return False
    pages = (new.end - new.start) >> PAGE_SHIFT
    return not (rules.merge_pgoff and rules.merge_conditions) or new.pgoff + pages == nxt.vm_pgoff


def _both_agree(rules: Rules, prev: Area, nxt: Area) -> bool:
    """To join P and N through a range between them, their own anon_vmas must agree too."""
    return (
        not rules.merge_anon_vma
        or not rules.merge_conditions
        or not prev.anon_vma
        or not nxt.anon_vma
        or prev.anon_vma == nxt.anon_vma
    )


def _hand_on(target: Area, donor: Area) -> None:
    """``target`` takes over ``donor``'s anon_vma if it has none (dup_anon_vma), and its sticky flags."""
    if donor.anon_vma and not target.anon_vma:
        target.anon_vma, target.chain = donor.anon_vma, donor.chain


def _singular_agrees(prev: Area, nxt: Area) -> bool:
    """is_mergeable_anon_vma as mmap_region called it up to 6.11, for the chain of ``prev``: it must have one member."""
    return prev.anon_vma == nxt.anon_vma or (not (prev.anon_vma and nxt.anon_vma) and len(prev.chain) == 1)


def merge_new(space: Space, new: Range, prev: Area | None, nxt: Area | None, *, mapped: bool = False) -> Area | None:
    """Cases 1 to 3: let the neighbours of a free range take it over. Returns the area that did, or None if neither
    fits.

    ``mapped``: the caller is mmap. Raises Refused without memory for the index.
    """
    rules = space.rules
    if new.vm_flags & VM_SPECIAL:
        return None
    left = fits_after(rules, new, prev)
    right = fits_before(rules, new, nxt)
    if left and right and prev is not None and nxt is not None:
        if mapped and not rules.mmap_joins_both:
            left = _singular_agrees(prev, nxt)
        else:
            right = _both_agree(rules, prev, nxt)
        right = right and not (left and nxt.closes)  # can_merge_remove_vma
    if left or right:
        space.prealloc()
    sticky = new.vm_flags & _STICKY
    if left and prev is not None:
        if right and nxt is not None:
            space.remove(nxt)
            sticky |= nxt.vm_flags & _STICKY
            _hand_on(prev, nxt)
            prev.vm_end = nxt.vm_end
        else:
            prev.vm_end = new.end
        target = prev
    elif right and nxt is not None:
        nxt.vm_pgoff -= (nxt.vm_start - new.start) >> PAGE_SHIFT
        nxt.vm_start = new.start
        target = nxt
    else:
        return None
    if new.copied and rules.anon_vma_copied_from and new.source is not None:
        _hand_on(target, new.source)
    target.vm_flags |= sticky
    return target


def merge_changed(space: Space, area: Area, start: int, end: int, vm_flags: int) -> Area | None:
    """Cases 4 to 8: [start, end) of ``area`` gets ``vm_flags``; let a neighbour take it over.

    Returns the neighbour that grew, or None if nothing merged (then nothing changed). Raises Refused without memory for
    the index.
    """
    rules = space.rules
    at_start, at_end = start == area.vm_start, end == area.vm_end
    if vm_flags & VM_SPECIAL or not (at_start or at_end):
        return None
    prev, nxt = space.neighbours(area)
    new = Range(start, end, vm_flags, area.pgoff_at(start), area.vm_file, area.anon_vma, area)
    left = at_start and fits_after(rules, new, prev)
    right = at_end and fits_before(rules, new, nxt)
    if left and right and prev is not None and nxt is not None:
        right = _both_agree(rules, prev, nxt)
    if at_start and at_end and area.closes:  # nor may it free the next one, which has the same file
        return None
    if left or right:
        space.prealloc()
    if left and prev is not None:
        sticky = (prev.vm_flags | area.vm_flags) & _STICKY
        if right and nxt is not None:  # case 6
            sticky |= nxt.vm_flags & _STICKY
            space.remove(nxt)
            space.remove(area)
            _hand_on(prev, nxt if nxt.anon_vma else area)
            prev.vm_end = nxt.vm_end
        elif at_end:  # case 7
            space.remove(area)
            _hand_on(prev, area)
            prev.vm_end = end
        else:  # case 5
            _hand_on(prev, area)
            area.vm_pgoff = area.pgoff_at(end)
            area.vm_start = end
            prev.vm_end = end
        prev.vm_flags |= sticky
        return prev
    if right and nxt is not None:
        _hand_on(nxt, area)
        sticky = (nxt.vm_flags | area.vm_flags) & _STICKY
        if at_start:  # case 8
            space.remove(area)
        else:  # case 4
            area.vm_end = start
        nxt.vm_pgoff -= (nxt.vm_start - start) >> PAGE_SHIFT
        nxt.vm_start = start
        nxt.vm_flags |= sticky
        return nxt
    return None


def change_flags(space: Space, area: Area, start: int, end: int, vm_flags: int) -> Area:
    """Change the flags of [start, end) of ``area``: merge if a neighbour fits, else split where necessary.

    Returns the area that holds ``start`` now.

    Raises:
        Refused: ENOMEM if a split would exceed ``max_map_count``, or without memory for the index; a split already done
            stays.
    """
    merged = merge_changed(space, area, start, end, vm_flags)
    if merged is not None:
        return merged
    if area.vm_start < start:
        area = space.split(area, start)
    if end < area.vm_end:
        space.split(area, end)
    area.vm_flags = vm_flags
    return area
