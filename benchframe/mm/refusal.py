"""What a call that the kernel refused had already done.

A recorded refusal is always reproduced, even if the model would have allowed the call: SELinux, a seccomp filter, an
rlimit or memory pressure may refuse what the rules allow. Most refused calls change nothing. But a call that walks its
range VMA by VMA stops at the first VMA that it cannot change, and the VMAs before it stay changed. So the range is
inspected: if it has a hole, a missing permission or the like that explains the recorded errno, the call runs as far as
it gets; otherwise nothing happens. In both cases it returns the recorded errno. The oracle implements the same rule
separately (oracle/refusal.py).
"""

from benchframe.dialect import NULL, native
from benchframe.events import Kind
from benchframe.mm.flags import (
    EACCES,
    EAGAIN,
    EINVAL,
    ENOMEM,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_KNOWN,
    VM_ACCESS,
    VM_IO,
    VM_PFNMAP,
    VM_READ,
    VM_WRITE,
)
from benchframe.mm.hooks import lookup
from benchframe.mm.layout import EVENT, PAGE_SIZE, VMA
from benchframe.mm.madvise import NO_FLAGS, advice_flags, advice_known, advise_pages_error, do_madvise
from benchframe.mm.mmap import page_align
from benchframe.mm.mprotect import do_mlock, do_mprotect

MPROTECT, MADVISE = int(Kind.MPROTECT), int(Kind.MADVISE)
MLOCK, MUNLOCK = int(Kind.MLOCK), int(Kind.MUNLOCK)


@native
def failed(ret):
    """Whether the recorded call failed."""
    return ret < 0 and ret > -4096


@native
def mprotect_obstacle(mm, task, start, length, prot):
    """The errno that the VMAs of the range cause in mprotect: ENOMEM (a hole), EACCES, or 0."""
    if prot & (PROT_GROWSDOWN | PROT_GROWSUP) or prot & ~PROT_KNOWN or start & (PAGE_SIZE - 1):
        return 0
    end = start + page_align(length)
    vma = lookup(mm, task, start)
    while start < end:
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return ENOMEM
        v = VMA(mm, vma)
        if prot & VM_ACCESS & ~(v.vm_flags >> 4):
            return EACCES
        start = v.vm_end
        vma = v.vm_next
    return 0


@native
def mlock_obstacle(mm, task, start, length, lock):
    """The same for mlock (``lock`` 1) and munlock: ENOMEM for a hole, and in mlock for a VMA without any access
    permission."""
    end = start + page_align(length + (start & (PAGE_SIZE - 1)))
    start &= ~(PAGE_SIZE - 1)
    vma = lookup(mm, task, start)
    while start < end:
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return ENOMEM
        v = VMA(mm, vma)
        if lock and not v.vm_flags & (VM_ACCESS | VM_IO | VM_PFNMAP):
            return ENOMEM
        start = v.vm_end
        vma = v.vm_next
    return 0


@native
def populate_obstacle(mm, task, start, end, advice):
    """The same for MADV_POPULATE_*: ENOMEM for a hole, EINVAL for a missing permission. Pages that fail (EFAULT) are
    not searched for."""
    right = VM_READ
    if advice == MADV_POPULATE_WRITE:
        right = VM_WRITE
    vma = lookup(mm, task, start)
    while start < end:
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return ENOMEM
        v = VMA(mm, vma)
        if v.vm_flags & (VM_IO | VM_PFNMAP) or not v.vm_flags & right:
            return EINVAL
        start = v.vm_end
        vma = v.vm_next
    return 0


@native
def madvise_obstacle(mm, task, start, length, advice):
    """The same for madvise: the errno of the first VMA that refuses the advice, else ENOMEM for a hole anywhere."""
    if not advice_known(advice) or start & (PAGE_SIZE - 1):
        return 0
    end = start + page_align(length)
    if advice == MADV_POPULATE_READ or advice == MADV_POPULATE_WRITE:
        return populate_obstacle(mm, task, start, end, advice)
    hole = 0
    vma = lookup(mm, task, start)
    while start < end:
        if vma == NULL:
            return ENOMEM
        v = VMA(mm, vma)
        if v.vm_start > start:
            hole = ENOMEM
            if v.vm_start >= end:
                return hole
        flags = advice_flags(mm, vma, advice)
        error = 0
        if flags == NO_FLAGS:
            error = advise_pages_error(v, advice)
        elif flags < 0:
            error = flags
        if error != 0:
            return -error
        start = v.vm_end
        vma = v.vm_next
    return hole


@native
def splits_fail(mm):
    """Whether one of the two splits that a call may need can exceed max_map_count."""
    return mm.map_count >= mm.max_map_count - 1


@native
def refused_call(mm, task, index):
    """A call that the kernel refused: returns its errno, after doing what the call did before it failed. Caller holds
    mmap_lock as for the call."""
    e = EVENT(mm, index)
    kind = e.kind
    error = -e.ret
    if kind == MPROTECT:
        if error == ENOMEM and splits_fail(mm):
            do_mprotect(mm, task, e.addr, e.len, e.prot)
        elif error == ENOMEM or error == EACCES:
            if mprotect_obstacle(mm, task, e.addr, e.len, e.prot) == error:
                do_mprotect(mm, task, e.addr, e.len, e.prot)
    elif kind == MADVISE:
        if error == EAGAIN and splits_fail(mm):
            do_madvise(mm, task, e.addr, e.len, e.flags)
        elif error == ENOMEM or error == EINVAL or error == EACCES:
            if madvise_obstacle(mm, task, e.addr, e.len, e.flags) == error:
                do_madvise(mm, task, e.addr, e.len, e.flags)
    elif kind == MLOCK or kind == MUNLOCK:
        lock = 0
        if kind == MLOCK:
            lock = 1
        if error == ENOMEM and (splits_fail(mm) or mlock_obstacle(mm, task, e.addr, e.len, lock) == error):
            do_mlock(mm, task, e.addr, e.len, lock)
    return e.ret
