"""Calls that change what a range is: its protection, its locks, its attributes (mm/mprotect.c, mm/mlock.c).

Attributes are what merges compare: seal, userfaultfd, memory policy, name (mm/vma.c vma_modify_*). The kernel keeps
them in separate fields (vm_userfaultfd_ctx, vm_policy, anon_name). Merges only compare them for equality, so here
they are numbers in unused bits of vm_flags.
"""

from benchframe.dialect import NULL, native
from benchframe.events import Attr
from benchframe.mm.flags import (
    EACCES,
    EINVAL,
    ENOMEM,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_KNOWN,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DROPPABLE,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_NAME,
    VM_NORESERVE,
    VM_POLICY,
    VM_SEALED,
    VM_SHARED,
    VM_SPECIAL,
    VM_USERFAULTFD,
    VM_WRITE,
)
from benchframe.mm.hooks import lookup
from benchframe.mm.layout import PAGE_SIZE, VMA
from benchframe.mm.memory import change_protection, populate_range
from benchframe.mm.vma import page_align, vma_set_flags


@native
def mprotect_fixup(mm, task, vma, start, end, vm_flags):
    """One VMA's part of mprotect: the VMA that covers ``end - 1`` afterwards, or -ENOMEM.

    A private mapping is accounted (VM_ACCOUNT) when it first becomes writable; only an anonymous mapping that was never
    touched loses the accounting again.
    """
    v = VMA(mm, vma)
    old = v.vm_flags
    if vm_flags == old:
        return vma
    if vm_flags & VM_WRITE:
        if not old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            vm_flags |= VM_ACCOUNT
    elif old & VM_ACCOUNT and v.vm_file == 0 and v.anon_vma == 0:
        vm_flags &= ~VM_ACCOUNT
    vma = vma_set_flags(mm, vma, start, end, vm_flags)
    if vma < 0:
        return vma
    change_protection(mm, vma, start, end)
    if (old & (VM_WRITE | VM_SHARED | VM_LOCKED)) == VM_LOCKED and vm_flags & VM_WRITE:
        populate_range(mm, task, start, end, 1)
    return vma


@native
def do_mprotect(mm, task, start, length, prot):
    """mprotect(2): 0, -EINVAL, -ENOMEM (a hole: the range before it stays changed), -EACCES.

    Caller holds mmap_lock for write.
    """
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == (PROT_GROWSDOWN | PROT_GROWSUP) or start & (PAGE_SIZE - 1):
        return -EINVAL
    if length == 0:
        return 0
    # The kernel's lengths are unsigned: a negative one here is 2^63 or more there. Ends beyond 2^62 are all alike.
    if start < 0 or (length < 0 and (page_align(length) == 0 or start + page_align(length) >= 0)):
        return -ENOMEM
    if prot & ~PROT_KNOWN:
        return -EINVAL
    end = 1 << 62
    if length >= 0 and length < end - start:
        end = start + page_align(length)
    vma = lookup(mm, task, start)
    if vma == NULL or VMA(mm, vma).vm_start >= end:
        return -ENOMEM
    if grows == PROT_GROWSDOWN:
        start = VMA(mm, vma).vm_start
        if not VMA(mm, vma).vm_flags & VM_GROWSDOWN:
            return -EINVAL
    elif VMA(mm, vma).vm_start > start:
        return -ENOMEM
    elif grows == PROT_GROWSUP:
        return -EINVAL
    while start < end:
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return -ENOMEM
        v = VMA(mm, vma)
        vm_flags = (v.vm_flags & ~VM_ACCESS) | (prot & VM_ACCESS)
        if vm_flags & ~(vm_flags >> 4) & VM_ACCESS:
            return -EACCES
        stop = min(end, v.vm_end)
        vma = mprotect_fixup(mm, task, vma, start, stop, vm_flags)
        if vma < 0:
            return vma
        start = stop
        if VMA(mm, vma).vm_end > start and start < end:
            start = VMA(mm, vma).vm_end
        vma = VMA(mm, vma).vm_next
    return 0


@native
def do_mlock(mm, task, start, length, lock):
    """mlock(2) (``lock`` 1) and munlock(2) (0): 0, -EINVAL, -ENOMEM (a hole, or a page that cannot be faulted in).

    Caller holds mmap_lock for write.
    """
    offset = start & (PAGE_SIZE - 1)
    start -= offset
    if start < 0 or length < 0 or length > (1 << 62) - start - PAGE_SIZE:
        return -EINVAL
    end = start + page_align(length + offset)
    if end == start:
        return 0
    error = lock_range(mm, task, start, end, lock)
    if error == 0 and lock and populate_range(mm, task, start, end, 0) != 0:
        return -ENOMEM
    return error


@native
def lock_range(mm, task, start, end, lock):
    """Set or clear VM_LOCKED over [start, end) (apply_vma_lock_flags)."""
    vma = lookup(mm, task, start)
    if vma == NULL or VMA(mm, vma).vm_start > start:
        return -ENOMEM
    while start < end:
        if vma == NULL or VMA(mm, vma).vm_start > start:
            return -ENOMEM
        v = VMA(mm, vma)
        stop = min(end, v.vm_end)
        vm_flags = v.vm_flags & ~(VM_LOCKED | VM_LOCKONFAULT)
        if lock:
            vm_flags |= VM_LOCKED
        if vm_flags != v.vm_flags and not v.vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE):
            vma = vma_set_flags(mm, vma, start, stop, vm_flags)
            if vma < 0:
                return vma
        start = max(stop, min(end, VMA(mm, vma).vm_end))
        vma = VMA(mm, vma).vm_next
    return 0


SEAL, USERFAULTFD, POLICY, NAME = int(Attr.SEAL), int(Attr.USERFAULTFD), int(Attr.POLICY), int(Attr.NAME)
SEAL_SHIFT, USERFAULTFD_SHIFT, POLICY_SHIFT, NAME_SHIFT = 42, 44, 48, 54


@native
def attribute_mask(which):
    """The bits of vm_flags that hold attribute ``which``; 0 if there is none."""
    if which == SEAL:
        return VM_SEALED
    if which == USERFAULTFD:
        return VM_USERFAULTFD
    if which == POLICY:
        return VM_POLICY
    if which == NAME:
        return VM_NAME
    return 0


@native
def attribute_bits(which, value):
    """``value``, shifted into the bits of attribute ``which``."""
    if which == SEAL:
        return value << SEAL_SHIFT
    if which == USERFAULTFD:
        return value << USERFAULTFD_SHIFT
    if which == POLICY:
        return value << POLICY_SHIFT
    return value << NAME_SHIFT


@native
def do_attribute(mm, task, start, length, which, value):
    """Give every VMA in the range the attribute: 0, -EINVAL, or -ENOMEM (a split failed). Holes are skipped.

    Caller holds mmap_lock for write.
    """
    mask = attribute_mask(which)
    if mask == 0 or start & (PAGE_SIZE - 1) or start < 0 or length < 0 or length > (1 << 62) - start:
        return -EINVAL
    end = start + page_align(length)
    bits = attribute_bits(which, value) & mask
    vma = lookup(mm, task, start)
    while vma != NULL and VMA(mm, vma).vm_start < end:
        v = VMA(mm, vma)
        vm_flags = (v.vm_flags & ~mask) | bits
        if vm_flags != v.vm_flags:
            vma = vma_set_flags(mm, vma, max(start, v.vm_start), min(end, v.vm_end), vm_flags)
            if vma < 0:
                return -ENOMEM
        vma = VMA(mm, vma).vm_next
    return 0
