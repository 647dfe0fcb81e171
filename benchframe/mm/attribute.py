"""Attributes of a VMA that merges compare: seal, userfaultfd, memory policy, name (mm/vma.c vma_modify_*).

The kernel keeps them in separate fields (vm_userfaultfd_ctx, vm_policy, anon_name). Merges only compare them for
equality, so here they are numbers in unused bits of vm_flags.
"""

from benchframe.dialect import NULL, native
from benchframe.events import Attr
from benchframe.mm.flags import EINVAL, ENOMEM, VM_NAME, VM_POLICY, VM_SEALED, VM_USERFAULTFD
from benchframe.mm.hooks import lookup
from benchframe.mm.layout import PAGE_SIZE, VMA
from benchframe.mm.mmap import page_align
from benchframe.mm.vma import vma_set_flags

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
