"""madvise(2): what each advice checks and changes (mm/madvise.c, Linux 6.18)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchframe.oracle import rules as f
from benchframe.oracle.merge import change_flags
from benchframe.oracle.rules import Advice
from benchframe.oracle.space import Area, Refused

if TYPE_CHECKING:
    from benchframe.oracle.space import Space

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
