"""The oracle's system calls and faults; mremap is in :mod:`benchframe.oracle.mremap`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchframe.events import NIL, UNKNOWN, Attr, MapType
from benchframe.oracle import mremap as moves
from benchframe.oracle import rules as f
from benchframe.oracle.rules import (
    PAGE,
    PAGE_SHIFT,
    VM_ACCESS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_WRITE,
    Advice,
    FaultError,
    Limits,
    Rules,
)
from benchframe.oracle.space import (
    UNLIMITED,
    Area,
    Backing,
    Range,
    Refused,
    Space,
    change_flags,
    fits_after,
    merge_new,
    negative_errno,
)

if TYPE_CHECKING:
    from benchframe.oracle.space import Space

PLACES = {Attr.SEAL: (42, 1), Attr.USERFAULTFD: (44, 4), Attr.POLICY: (48, 6), Attr.NAME: (54, 7)}
"""First bit and number of bits of each attribute in vm_flags; the upper bits of a larger value are lost."""
USERFAULTFD = 0xF << 44
"""The attribute that a child does not inherit (dup_userfaultfd, without UFFD_FEATURE_EVENT_FORK)."""


def modify(space: Space, start: int, length: int, which: int, value: int) -> int:
    """Give all areas of the range the attribute; holes are skipped.

    Raises:
        Refused: EINVAL for a bad range or attribute, ENOMEM if a split would exceed ``max_map_count``.
    """
    if which not in list(Attr) or start % f.PAGE:
        raise Refused(f.EINVAL)
    shift, width = PLACES[Attr(which)]
    mask = (1 << width) - 1
    end = start + f.page_align(length)
    while start < end:
        area = space.first_in(start, end)
        if area is None:
            break
        start = max(start, area.vm_start)
        vm_flags = area.vm_flags & ~(mask << shift) | (value & mask) << shift
        if vm_flags != area.vm_flags:
            area = change_flags(space, area, start, min(area.vm_end, end), vm_flags)
        start = area.vm_end
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# Page faults as far as the address space shows them: stack growth, access checks, anon_vma (mm/memory.c, arch/x86).
#
# Source: Linux 6.18 lock_mm_and_find_vma, expand_downwards, access_error of arch/x86/mm/fault.c.

READ, WRITE, EXECUTE = 1, 2, 4


def fault(space: Space, addr: int, access: int) -> int:
    """One fault at ``addr``: grow a stack, check the access, touch the page. Returns 0 or a negative FaultError.

    Read, write or execute permission each allow a read; with protection keys execute permission alone does not.
    """
    area = space.find_vma(addr)
    if area is None:
        return -FaultError.MAPERR
    page = addr & ~(PAGE - 1)
    if area.vm_start > addr:
        if not area.vm_flags & VM_GROWSDOWN or not expand_downwards(space, area, page):
            return -FaultError.MAPERR
    if access & WRITE:
        allowed = area.vm_flags & VM_WRITE
    elif access & EXECUTE:
        allowed = area.vm_flags & VM_EXEC
    else:
        allowed = space.readable(area)
    if not allowed:
        return -FaultError.ACCERR
    return space.touch(area, page, page + PAGE, bool(access & WRITE))


def expand_downwards(space: Space, area: Area, page: int) -> bool:
    """Grow ``area`` down to ``page`` if the guard gap, RLIMIT_STACK and RLIMIT_MEMLOCK allow it.

    The anon_vma is prepared even if the limits then refuse.
    """
    limits = space.limits
    if page < limits.mmap_min_addr:
        return False
    prev, _ = space.neighbours(area)
    if prev is not None and not prev.vm_flags & VM_GROWSDOWN and prev.vm_flags & VM_ACCESS:
        if page - prev.vm_end < limits.stack_guard_gap:
            return False
    space.anon_vma_prepare(area)
    pages = (area.vm_start - page) >> PAGE_SHIFT
    if pages > area.vm_pgoff or area.vm_end - page > limits.rlimit_stack:
        return False
    if not space.may_lock(area.vm_flags, area.vm_start - page):
        return False
    area.vm_start = page
    area.vm_pgoff -= pages
    return True


# ----------------------------------------------------------------------------------------------------------------------
# The oracle's calls: mmap, munmap, mprotect, brk, mlock, fork and what the kernel maps itself.
#
# Each follows the order of checks of the system call in Linux 6.18 (mm/mmap.c, mm/vma.c, mm/mprotect.c, mm/mlock.c,
# mm/mmap.c:brk), because the errno depends on it. All return an address, 0, or -errno; none raises for bad arguments.

_DATA = f.VM_READ | f.VM_WRITE | f.VM_MAYREAD | f.VM_MAYWRITE | f.VM_MAYEXEC | f.VM_ACCOUNT
_MAY = f.VM_MAYREAD | f.VM_MAYWRITE | f.VM_MAYEXEC


class Oracle(Space):
    """A naive address space that answers as the kernel does; the judge of the compiled model.

    >>> mm = Oracle()
    >>> a = mm.mmap(0x10000000, 8192, 3, 0x22)
    >>> hex(a), mm.mprotect(a, 4096, 1), [row[:3] for row in mm.layout()]
    ('0x10000000', 0, [(268435456, 268439552, 1), (268439552, 268443648, 3)])
    """

    def __init__(self, rules: Rules | None = None, limits: Limits | None = None) -> None:
        super().__init__(rules or Rules(), limits or Limits())
        self.files: dict[int, Backing] = {}

    def set_file(
        self,
        file: int,
        size: int,
        readable: bool = True,
        writable: bool = True,
        inode: int = 0,
        closes: bool = False,
    ) -> None:
        """Set the properties of file number ``file``: its size in bytes and how it was opened, and whether its areas
        have vm_ops->close.

        Files not set are endless and open for both. Two numbers with one ``inode`` are two open file descriptions of
        it.
        """
        self.files[file] = Backing(file, size, inode, readable, writable, closes)

    def _backing(self, file: int) -> Backing:
        if file not in self.files:
            self.files[file] = Backing(file)
        return self.files[file]

    # --- mmap ---------------------------------------------------------------------------------------------------

    @negative_errno
    def mmap(
        self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0, at: int = UNKNOWN
    ) -> int:
        """mmap(2). ``at``: the recorded result of a search for a free place, used instead of searching."""
        if offset % f.PAGE:
            raise Refused(f.EINVAL)
        backing = None if flags & f.MAP_ANONYMOUS else self._backing(file) if file != NIL else None
        if backing is None and not flags & f.MAP_ANONYMOUS:
            raise Refused(f.EBADF)
        if not length:
            raise Refused(f.EINVAL)
        fixed = bool(flags & (f.MAP_FIXED | f.MAP_FIXED_NOREPLACE))
        length = f.page_align(length)
        if not length:
            raise Refused(f.ENOMEM)
        pgoff = offset >> f.PAGE_SHIFT
        if pgoff + (length >> f.PAGE_SHIFT) >= 1 << 64:
            raise Refused(f.EOVERFLOW)
        if len(self.areas) > self.limits.max_map_count:
            raise Refused(f.ENOMEM)
        if not fixed:
            addr = at if at != UNKNOWN and length <= self.limits.task_size else self.unmapped_area(addr, length)
        self.check_fixed(addr, length)
        if flags & f.MAP_FIXED_NOREPLACE and self.first_in(addr, addr + length) is not None:
            raise Refused(f.EEXIST)
        vm_flags = self._mmap_flags(prot, flags)
        if flags & f.MAP_LOCKED and not self.limits.rlimit_memlock:
            raise Refused(f.EPERM)
        if not self.may_lock(vm_flags, length):
            raise Refused(f.EAGAIN)
        if backing is not None:
            vm_flags = self._file_flags(backing, prot, flags, vm_flags, offset, length)
        else:
            vm_flags, pgoff = self._anonymous_flags(flags, vm_flags, addr)
        if flags & f.MAP_NORESERVE:
            vm_flags |= f.VM_NORESERVE
        self._map_region(addr, length, vm_flags, pgoff, backing)
        if vm_flags & f.VM_LOCKED or flags & (f.MAP_POPULATE | f.MAP_NONBLOCK) == f.MAP_POPULATE:
            self.populate(addr, addr + length)
        return addr

    def _mmap_flags(self, prot: int, flags: int) -> int:
        vm_flags = prot & f.VM_ACCESS | _MAY
        vm_flags |= self._key(prot)
        vm_flags |= f.VM_GROWSDOWN if flags & f.MAP_GROWSDOWN else 0
        vm_flags |= f.VM_LOCKED if flags & f.MAP_LOCKED else 0
        vm_flags |= f.VM_NOHUGEPAGE if flags & f.MAP_STACK and self.rules.thp and self.rules.stack_nohuge else 0
        return vm_flags

    def _key(self, prot: int) -> int:
        """VM_PKEY for execute-only memory, if the processor has protection keys."""
        return f.VM_PKEY if prot == f.PROT_EXEC and self.rules.execute_only else 0

    def _file_flags(self, file: Backing, prot: int, flags: int, vm_flags: int, offset: int, length: int) -> int:
        """The checks and flags of a file mapping, by MAP_TYPE."""
        if offset + length > 1 << 63:
            raise Refused(f.EOVERFLOW)
        kind = flags & f.MAP_TYPE
        if kind == f.MAP_SHARED_VALIDATE and flags & ~f.MAP_VALIDATE_KNOWN:
            raise Refused(f.EOPNOTSUPP)
        if kind in (f.MAP_SHARED, f.MAP_SHARED_VALIDATE):
            if prot & f.PROT_WRITE and not file.writable:
                raise Refused(f.EACCES)
            vm_flags |= f.VM_SHARED | f.VM_MAYSHARE
            if not file.writable:
                vm_flags &= ~(f.VM_MAYWRITE | f.VM_SHARED)
        elif kind != f.MAP_PRIVATE:
            raise Refused(f.EINVAL)
        if not file.readable:
            raise Refused(f.EACCES)
        if vm_flags & f.VM_GROWSDOWN:
            raise Refused(f.EINVAL)
        return vm_flags

    def _anonymous_flags(self, flags: int, vm_flags: int, addr: int) -> tuple[int, int]:
        """The checks, flags and page offset of an anonymous mapping, by MAP_TYPE."""
        kind = flags & f.MAP_TYPE
        if kind == f.MAP_SHARED:
            if vm_flags & f.VM_GROWSDOWN:
                raise Refused(f.EINVAL)
            return vm_flags | f.VM_SHARED | f.VM_MAYSHARE, 0
        if kind == f.MAP_DROPPABLE and self.rules.droppable:
            if vm_flags & (f.VM_LOCKED | f.VM_GROWSDOWN):
                raise Refused(f.EINVAL)
            vm_flags |= f.VM_DROPPABLE | f.VM_NORESERVE | f.VM_WIPEONFORK | f.VM_DONTDUMP
        elif kind != f.MAP_PRIVATE:
            raise Refused(f.EINVAL)
        return vm_flags, addr >> f.PAGE_SHIFT

    def _map_region(self, addr: int, length: int, vm_flags: int, pgoff: int, file: Backing | None) -> None:
        """mmap_region: unmap what is in the range, then merge or insert."""
        self.unmap_range(addr, addr + length)
        accounted = self.accounted(vm_flags)
        if accounted & f.VM_ACCOUNT:
            self.charge(length)
        vm_flags = accounted
        prev, nxt = self.before(addr), self.find_vma(addr)
        if file is None and vm_flags & f.VM_SHARED:
            file = Backing(NIL, length)
        elif merge_new(self, Range(addr, addr + length, vm_flags, pgoff, file), prev, nxt, mapped=True) is not None:
            return
        self.insert(Area(addr, addr + length, vm_flags, pgoff, file))

    def shmat(self, addr: int, length: int) -> int:
        """shmat(2) of a new segment with SHM_REMAP: shared memory that is readable and writable, whose areas have
        vm_ops->close. The address, or -errno."""
        at = self.mmap(addr, length, f.PROT_READ | f.PROT_WRITE, f.MAP_SHARED | f.MAP_FIXED | f.MAP_ANONYMOUS)
        area = self.lookup(at) if at >= 0 else None
        if area is not None and area.vm_file is not None:
            area.vm_file.closes = True
        return at

    # --- munmap, mprotect, mremap, madvise, mlock -----------------------------------------------------------------

    @negative_errno
    def munmap(self, addr: int, length: int) -> int:
        """munmap(2)."""
        self.unmap(addr, length)
        return 0

    @negative_errno
    def mprotect(self, addr: int, length: int, prot: int) -> int:
        """mprotect(2): areas before a failing one stay changed."""
        grows = prot & (f.PROT_GROWSDOWN | f.PROT_GROWSUP)
        prot &= ~grows
        if grows == f.PROT_GROWSDOWN | f.PROT_GROWSUP or addr % f.PAGE:
            raise Refused(f.EINVAL)
        if not length:
            return 0
        end = (addr + f.page_align(length)) % (1 << 64)
        if end <= addr:
            raise Refused(f.ENOMEM)
        if prot & ~(f.VM_ACCESS | f.PROT_SEM):
            raise Refused(f.EINVAL)
        area = self.first_in(addr, end)
        if area is None:
            raise Refused(f.ENOMEM)
        if grows & f.PROT_GROWSDOWN:
            addr = area.vm_start
            if not area.vm_flags & f.VM_GROWSDOWN:
                raise Refused(f.EINVAL)
        elif area.vm_start > addr:
            raise Refused(f.ENOMEM)
        elif grows & f.PROT_GROWSUP:
            raise Refused(f.EINVAL)
        while addr < end:
            part = self.lookup(addr)
            if part is None:
                raise Refused(f.ENOMEM)
            vm_flags = part.vm_flags & ~(f.VM_ACCESS | f.VM_PKEY) | prot & f.VM_ACCESS | self._key(prot)
            if vm_flags & f.VM_ACCESS & ~(vm_flags >> 4):
                raise Refused(f.EACCES)
            addr = self._mprotect_part(part, addr, min(part.vm_end, end), vm_flags)
        return 0

    def _mprotect_part(self, area: Area, start: int, end: int, vm_flags: int) -> int:
        """mprotect_fixup: returns the end of the area that holds the range afterwards."""
        old = area.vm_flags
        if vm_flags == old:
            return area.vm_end
        if vm_flags & f.VM_WRITE:
            if not old & (f.VM_ACCOUNT | f.VM_WRITE | f.VM_SHARED | f.VM_NORESERVE):
                self.charge(end - start)
                vm_flags |= f.VM_ACCOUNT
        elif old & f.VM_ACCOUNT:
            unfaulted = area.anonymous and not area.anon_vma and self.rules.account_unfaulted
            if unfaulted or not self.rules.account_history:
                vm_flags &= ~f.VM_ACCOUNT
        area = change_flags(self, area, start, end, vm_flags)
        became_writable = old & (f.VM_WRITE | f.VM_SHARED | f.VM_LOCKED) == f.VM_LOCKED and vm_flags & f.VM_WRITE
        if became_writable and self.rules.mprotect_populates_locked:
            self.populate_area(area, start, end)
        return area.vm_end

    @negative_errno
    def mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0, at: int = UNKNOWN) -> int:
        """mremap(2), every mode. ``at``: the recorded result of a search for a free place."""
        return moves.mremap(self, addr, old_len, new_len, flags, new_addr, at)

    @negative_errno
    def madvise(self, addr: int, length: int, advice: int) -> int:
        """madvise(2) for every advice that does not need a privilege or a device."""
        return madvise(self, addr, length, advice)

    @negative_errno
    def mlock(self, addr: int, length: int) -> int:
        """mlock(2): sets VM_LOCKED and touches every page."""
        length = f.page_align(length + addr % f.PAGE)
        addr &= ~(f.PAGE - 1)
        limit = self.limits.rlimit_memlock
        if not limit:
            raise Refused(f.EPERM)
        if limit < UNLIMITED and self.locked() + length > limit:
            already = sum(
                min(area.vm_end, addr + length) - max(area.vm_start, addr)
                for area in self.areas
                if area.vm_flags & f.VM_LOCKED and area.vm_start < addr + length and addr < area.vm_end
            )
            if self.locked() + length - already > limit:
                raise Refused(f.ENOMEM)
        self._set_locked(addr, length, f.VM_LOCKED)
        if self.populate(addr, addr + length):
            raise Refused(f.ENOMEM)
        return 0

    @negative_errno
    def munlock(self, addr: int, length: int) -> int:
        """munlock(2)."""
        length = f.page_align(length + addr % f.PAGE)
        self._set_locked(addr & ~(f.PAGE - 1), length, 0)
        return 0

    def _set_locked(self, start: int, length: int, locked: int) -> None:
        """apply_vma_lock_flags: areas before a hole stay changed."""
        end = (start + length) % (1 << 64)
        if end < start:
            raise Refused(f.EINVAL)
        while start < end:
            area = self.lookup(start)
            if area is None:
                raise Refused(f.ENOMEM)
            vm_flags = area.vm_flags & ~f.VM_LOCKED | locked
            if vm_flags != area.vm_flags and not area.vm_flags & (f.VM_SPECIAL | f.VM_DROPPABLE):
                area = change_flags(self, area, start, min(area.vm_end, end), vm_flags)
            start = area.vm_end

    @negative_errno
    def modify(self, addr: int, length: int, which: int, value: int) -> int:
        """mseal(2), mbind(2) and similar calls: an attribute for a range (benchframe.events.Attr)."""
        return modify(self, addr, length, which, value)

    # --- brk ----------------------------------------------------------------------------------------------------

    def brk(self, addr: int) -> int:
        """brk(2) itself: returns the new break, or the old one on any failure. If start_brk is not known, the break is
        NIL."""
        old = self.brk_now
        if self.start_brk is None:
            return NIL
        if addr < self.start_brk:
            return old
        new_end, old_end = f.page_align(addr), f.page_align(old)
        try:
            if new_end < old_end:
                if self.first_in(new_end, old_end) is None:
                    return old
                self.unmap_range(new_end, old_end)
            elif new_end > old_end and not self._grow_brk(old_end, new_end):
                return old
        except Refused:
            return old
        self.brk_now = addr
        return addr

    def _grow_brk(self, start: int, end: int) -> bool:
        """Extend the heap area over [start, end), or make a new one; False if the range is not free."""
        self.check_fixed(start, end - start)
        nxt = self.first_in(start, end + f.PAGE + self.limits.stack_guard_gap)
        if nxt is not None and end + f.PAGE > nxt.start_gap(self.limits.stack_guard_gap):
            return False
        if len(self.areas) > self.limits.max_map_count:
            return False
        self.charge(end - start)
        prev = self.before(start)
        new = Range(start, end, _DATA, start >> f.PAGE_SHIFT, None)
        if prev is not None and self.start_brk is not None and prev.vm_end > self.start_brk:
            if fits_after(self.rules, new, prev):
                merge_new(self, new, prev, None)
                return True
        self.insert(Area(start, end, _DATA, start >> f.PAGE_SHIFT))
        return True

    # --- faults, fork, kernel-made mappings -------------------------------------------------------------------------

    def fault(self, addr: int, access: int) -> int:
        """A page fault: ``access`` is 1 read, 2 write, 4 execute. 0, or a negative :class:`FaultError`."""
        return fault(self, addr, access)

    def fork(self) -> Oracle:
        """The child's address space (dup_mmap): locks dropped, anon_vmas inherited and no longer singular."""
        child = Oracle(self.rules, self.limits)
        child.files = self.files
        child.start_brk, child.brk_now = self.start_brk, self.brk_now
        child.anon_vma_numbers = self.anon_vma_numbers
        guards: list[tuple[int, int]] = []
        tables: list[tuple[int, int]] = []
        for area in self.areas:
            if area.vm_flags & f.VM_DONTCOPY:
                continue
            twin = area.copy()
            twin.vm_flags &= ~(f.VM_LOCKED | USERFAULTFD)
            if area.vm_flags & f.VM_WIPEONFORK:
                twin.anon_vma, twin.chain = 0, ()
            elif area.anon_vma:
                twin.anon_vma = next(self.anon_vma_numbers)
                twin.chain = (twin.anon_vma, *area.chain)
            child.areas.append(twin)
            copies_pages = (area.anon_vma or area.vm_flags & f.VM_MAYBE_GUARD) and not area.vm_flags & f.VM_WIPEONFORK
            if copies_pages:
                guards += self.guards.clip(area.vm_start, area.vm_end)
                tables += self.tables.clip(area.vm_start // f.PMD, -(-area.vm_end // f.PMD))
        child.guards.add_all(guards)
        child.tables.add_all(tables)
        return child

    def exec_map(self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0) -> int:
        """A mapping that the kernel made itself at exec: ``flags`` are MAP_* and :class:`MapType` bits."""
        end = addr + f.page_align(length)
        if addr % f.PAGE or not 0 <= addr < end <= self.limits.task_size:
            return -f.EINVAL
        if flags & (MapType.STACK | MapType.SPECIAL):
            special = f.VM_DONTEXPAND | f.VM_IO if flags & MapType.SPECIAL else f.VM_GROWSDOWN | f.VM_ACCOUNT
            self.unmap_range(addr, end)
            area = Area(addr, end, prot & f.VM_ACCESS | _MAY | special, addr >> f.PAGE_SHIFT)
            self.insert(area)
            if flags & MapType.STACK:
                self.anon_vma_prepare(area)
            return addr
        if flags & MapType.HEAP:
            self.start_brk, self.brk_now = addr, addr + length
        mmap_flags = flags & ~int(MapType.STACK | MapType.SPECIAL | MapType.HEAP) | f.MAP_FIXED
        mmap_flags &= ~f.MAP_FIXED_NOREPLACE
        if not mmap_flags & f.MAP_TYPE:
            mmap_flags |= f.MAP_PRIVATE
        if file == NIL:
            mmap_flags |= f.MAP_ANONYMOUS
        return self.mmap(addr, length, prot, mmap_flags, file, offset)

    # --- answers ------------------------------------------------------------------------------------------------

    @property
    def map_count(self) -> int:
        """The number of areas."""
        return len(self.areas)

    def layout(self) -> list[tuple[int, int, int, int, int, int]]:
        """Every area as (vm_start, vm_end, prot, shared 0/1, file offset in bytes, file number or NIL)."""
        return [area.row() for area in self.areas]

    def layout_flags(self) -> list[str]:
        """Every area's flags as smaps' VmFlags line shows them, words sorted."""
        return [f.smaps_flags(area.vm_flags) for area in self.areas]

    def validate(self) -> None:
        """Check the invariants of the list.

        Raises:
            AssertionError: areas overlap, are empty, unaligned or out of order; the message shows them.
        """
        below = 0
        for area in self.areas:
            chained = (area.anon_vma in area.chain) if area.anon_vma else not area.chain
            if not below <= area.vm_start < area.vm_end or (area.vm_start | area.vm_end) % f.PAGE or not chained:
                raise AssertionError(f"broken at {area.vm_start:#x}: {self.layout()}")
            below = area.vm_end


# ----------------------------------------------------------------------------------------------------------------------
# madvise(2): what each advice checks and changes (mm/madvise.c, Linux 6.18).

_SET_CLEAR = {
    Advice.NORMAL: (0, f.VM_RAND_READ | f.VM_SEQ_READ),
    Advice.SEQUENTIAL: (f.VM_SEQ_READ, f.VM_RAND_READ),
    Advice.RANDOM: (f.VM_RAND_READ, f.VM_SEQ_READ),
    Advice.DONTFORK: (f.VM_DONTCOPY, 0),
    Advice.DOFORK: (0, f.VM_DONTCOPY),
    Advice.WIPEONFORK: (f.VM_WIPEONFORK, 0),
    Advice.KEEPONFORK: (0, f.VM_WIPEONFORK),
    Advice.DONTDUMP: (f.VM_DONTDUMP, 0),
    Advice.DODUMP: (0, f.VM_DONTDUMP),
    Advice.MERGEABLE: (f.VM_MERGEABLE, 0),
    Advice.UNMERGEABLE: (0, f.VM_MERGEABLE),
    Advice.HUGEPAGE: (f.VM_HUGEPAGE, f.VM_NOHUGEPAGE),
    Advice.NOHUGEPAGE: (f.VM_NOHUGEPAGE, f.VM_HUGEPAGE),
}
"""Advice that changes flags: (bits to set, bits to clear)."""

_GUARDS = (Advice.GUARD_INSTALL, Advice.GUARD_REMOVE)


def madvise(space: Space, start: int, length: int, number: int) -> int:
    """The whole call: holes are skipped and make it end in ENOMEM, any other error stops it.

    Raises:
        Refused: with the errno of the call.
    """
    advice = _known(space, number)
    if start % f.PAGE:
        raise Refused(f.EINVAL)
    aligned = f.page_align(length)
    end = start + aligned
    if (length and not aligned) or end >= 1 << 64:
        raise Refused(f.EINVAL)
    if end == start:
        return 0
    if advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE):
        return _populate(space, start, end, advice == Advice.POPULATE_WRITE)
    hole = False
    while start < end:
        area = space.find_vma(start)
        if area is None:
            raise Refused(f.ENOMEM)
        if area.vm_start > start:
            hole = True
            start = area.vm_start
            continue
        start = _advise(space, area, start, min(area.vm_end, end), advice)
    if hole:
        raise Refused(f.ENOMEM)
    return 0


def _known(space: Space, number: int) -> Advice:
    """The advice, if this kernel supports it."""
    try:
        advice = Advice(number)
    except ValueError:
        raise Refused(f.EINVAL) from None
    rules = space.rules
    absent = (
        (advice in _GUARDS and not rules.guard)
        or (advice in (Advice.MERGEABLE, Advice.UNMERGEABLE) and not rules.ksm)
        or (advice in (Advice.HUGEPAGE, Advice.NOHUGEPAGE, Advice.COLLAPSE) and not rules.thp)
    )
    if absent:
        raise Refused(f.EINVAL)
    return advice


def permitted(space: Space, area: Area, advice: Advice) -> None:
    """Check whether ``area`` allows the advice; changes nothing.

    Raises:
        Refused: with the errno that ends the call here.
    """
    old = area.vm_flags
    if advice == Advice.DOFORK and old & f.VM_SPECIAL:
        raise Refused(f.EINVAL)
    if advice == Advice.WIPEONFORK and (area.vm_file is not None or old & f.VM_SHARED):
        raise Refused(f.EINVAL)
    if advice == Advice.KEEPONFORK and old & f.VM_DROPPABLE:
        raise Refused(f.EINVAL)
    if advice == Advice.DODUMP and old & (f.VM_SPECIAL | f.VM_DROPPABLE):
        raise Refused(f.EINVAL)
    if advice in _GUARDS:
        forbidden = f.VM_SPECIAL | (f.VM_LOCKED if advice == Advice.GUARD_INSTALL else 0)
        if old & forbidden or (not area.anonymous and not space.rules.guard_file):
            raise Refused(f.EINVAL)
    if advice == Advice.WILLNEED and area.vm_file is None and not space.rules.swap:
        raise Refused(f.EBADF)
    if advice == Advice.REMOVE:
        if old & f.VM_LOCKED or area.vm_file is None:
            raise Refused(f.EINVAL)
        if old & (f.VM_SHARED | f.VM_MAYWRITE) != f.VM_SHARED | f.VM_MAYWRITE:
            raise Refused(f.EACCES)
    if advice in (Advice.COLD, Advice.PAGEOUT, Advice.DONTNEED, Advice.FREE):
        if old & f.VM_LOCKED or (advice == Advice.FREE and not area.anonymous):
            raise Refused(f.EINVAL)


def _advise(space: Space, area: Area, start: int, end: int, advice: Advice) -> int:
    """Apply ``advice`` to part of one area; returns where the next part begins."""
    permitted(space, area, advice)
    if advice in _SET_CLEAR:
        return _change(space, area, start, end, advice)
    if advice in _GUARDS:
        _guard(space, area, start, end, advice)
    if advice in (Advice.DONTNEED, Advice.DONTNEED_LOCKED) and space.rules.dontneed_frees_tables:
        low, high = -(-start // f.PMD), end // f.PMD
        space.tables.discard(low, high)
        guarded = space.guards.clip(low * f.PMD, high * f.PMD)  # a marker keeps its page table
        space.tables.add_all((one // f.PMD, -(-other // f.PMD)) for one, other in guarded)
    return end


def _change(space: Space, area: Area, start: int, end: int, advice: Advice) -> int:
    """Advice that changes flags: merge or split."""
    old = area.vm_flags
    to_set, to_clear = _SET_CLEAR[advice]
    unfit = f.VM_SHARED | f.VM_MAYSHARE | f.VM_SPECIAL | f.VM_DROPPABLE
    if advice == Advice.MERGEABLE and old & unfit:
        return area.vm_end
    vm_flags = (old & ~to_clear) | to_set
    if vm_flags == old:
        return area.vm_end
    try:
        return change_flags(space, area, start, end, vm_flags).vm_end
    except Refused as refused:
        raise Refused(f.EAGAIN if refused.errno == f.ENOMEM else refused.errno) from None


def _guard(space: Space, area: Area, start: int, end: int, advice: Advice) -> None:
    """Install or remove guard markers, which make any access to their pages fail."""
    if advice == Advice.GUARD_REMOVE:
        space.guards.discard(start, end)
        return
    if area.anonymous and space.rules.guard_prepares_anon_vma:
        space.anon_vma_prepare(area)
    if space.rules.guard_flag:
        area.vm_flags |= f.VM_MAYBE_GUARD
    space.guards.add(start, end)
    space.tables.add(start // f.PMD, -(-end // f.PMD))


def _populate(space: Space, start: int, end: int, write: bool) -> int:
    """MADV_POPULATE_READ and _WRITE: EINVAL without the permission, ENOMEM at a hole, EFAULT at a bad page."""
    need = f.VM_WRITE if write else f.VM_READ
    hole = False
    while start < end:
        area = space.first_in(start, end)
        if area is None or area.vm_start > start:
            if area is None or space.rules.populate_stops_at_hole:
                raise Refused(f.ENOMEM)
            hole, start = True, area.vm_start
        if area.vm_flags & f.VM_IO or not area.vm_flags & need:
            raise Refused(f.EINVAL)
        stop = min(area.vm_end, end)
        if space.touch(area, start, stop, write):
            raise Refused(f.EFAULT)
        start = stop
    if hole:
        raise Refused(f.ENOMEM)
    return 0
