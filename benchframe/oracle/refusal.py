"""What a refused call had done before it was refused: nothing, unless the range itself explains the errno.

The kernel may refuse what the rules allow: because of a security module, a seccomp filter, a limit or a shortage that
the trace does not show. Then nothing happened. But mprotect, madvise, mlock and munlock go through their range area by
area; if they stop at one, the areas before it stay changed. :func:`acts` tells whether there is such an area.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchframe.events import Kind
from benchframe.oracle import madvise as advices
from benchframe.oracle import rules as f
from benchframe.oracle.rules import Advice
from benchframe.oracle.space import Area, Refused, Space


def acts(space: Space, kind: int, addr: int, length: int, prot: int, flags: int, errno: int) -> bool:
    """Whether the refused call had an effect: a performed one would end in the same ``errno`` because of its range.

    Near ``max_map_count`` a split in the middle may have failed, so the call is performed. O(areas in the range).
    """
    crowded = len(space.areas) >= space.limits.max_map_count - 1
    if kind == Kind.MPROTECT:
        if errno == f.ENOMEM and crowded:
            return True
        return errno in (f.ENOMEM, f.EACCES) and _mprotect(space, addr, length, prot) == errno
    if kind == Kind.MADVISE:
        if errno == f.EAGAIN and crowded:
            return True
        return errno in (f.ENOMEM, f.EINVAL, f.EACCES) and _madvise(space, addr, length, flags) == errno
    if kind in (Kind.MLOCK, Kind.MUNLOCK):
        return errno == f.ENOMEM and (crowded or _mlock(space, addr, length, kind == Kind.MLOCK) == errno)
    return False


def _parts(space: Space, start: int, end: int) -> Iterator[Area | None]:
    """The areas that cover [start, end) in order, with None for each hole."""
    at = space.index(start)
    while start < end:
        area = space.areas[at] if at < len(space.areas) else None
        if area is None or area.vm_start >= end:
            yield None
            return
        if area.vm_start > start:
            yield None
        yield area
        start = area.vm_end
        at += 1


def _mprotect(space: Space, addr: int, length: int, prot: int) -> int:
    grows = f.PROT_GROWSDOWN | f.PROT_GROWSUP
    if prot & grows or prot & ~(f.VM_ACCESS | f.PROT_SEM) or addr % f.PAGE:
        return 0
    for area in _parts(space, addr, addr + f.page_align(length)):
        if area is None:
            return f.ENOMEM
        if prot & f.VM_ACCESS & ~(area.vm_flags >> 4):
            return f.EACCES
    return 0


def _mlock(space: Space, addr: int, length: int, lock: bool) -> int:
    start = addr - addr % f.PAGE
    for area in _parts(space, start, start + f.page_align(length + addr % f.PAGE)):
        if area is None or (lock and not area.vm_flags & (f.VM_ACCESS | f.VM_IO)):
            return f.ENOMEM
    return 0


def _madvise(space: Space, addr: int, length: int, number: int) -> int:
    try:
        advice = Advice(number)
    except ValueError:
        return 0
    if addr % f.PAGE:
        return 0
    populate = advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE)
    right = f.VM_WRITE if advice == Advice.POPULATE_WRITE else f.VM_READ
    hole = False
    for area in _parts(space, addr, addr + f.page_align(length)):
        if area is None:
            if populate:
                return f.ENOMEM
            hole = True
        elif populate:
            if area.vm_flags & f.VM_IO or not area.vm_flags & right:
                return f.EINVAL
        else:
            try:
                advices.permitted(space, area, advice)
            except Refused as refused:
                return refused.errno
    return f.ENOMEM if hole else 0
