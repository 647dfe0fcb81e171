"""Page faults as far as the address space shows them: stack growth, access checks, anon_vma (mm/memory.c, arch/x86).

Source: Linux 6.18 lock_mm_and_find_vma, expand_downwards, access_error of arch/x86/mm/fault.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchframe.oracle.area import Area
from benchframe.oracle.flags import (
    PAGE,
    PAGE_SHIFT,
    VM_ACCESS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_WRITE,
    FaultError,
)

if TYPE_CHECKING:
    from benchframe.oracle.space import Space

READ, WRITE, EXECUTE = 1, 2, 4


def fault(space: Space, addr: int, access: int) -> int:
    """One fault at ``addr``: grows a stack, checks the access, touches the page. 0 or a negative FaultError.

    A read is allowed by any of read, write and execute permission, as on x86 without protection keys.
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
        allowed = area.vm_flags & VM_ACCESS
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
