"""mmap, brk and munmap: mm/mmap.c."""

from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL
from benchframe.mm.defaults import list_gap_above
from benchframe.mm.flags import (
    EACCES,
    EEXIST,
    EINVAL,
    ENOMEM,
    EOPNOTSUPP,
    EPERM,
    FILE_NOWRITE,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    MAP_VALIDATED,
    RULE_DROPPABLE,
    RULE_NOREPLACE_417,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)
from benchframe.mm.hooks import (
    cache_brk,
    cache_detached,
    cache_munmap,
    index_erase,
    index_erase_range,
    index_gap_below,
    index_prepare,
    lookup,
    vma_detach,
    vma_free,
    vma_start_write,
)
from benchframe.mm.layout import FILE, PAGE_SHIFT, PAGE_SIZE, VMA
from benchframe.mm.memory import ZAP, change_range, populate_range
from benchframe.mm.pagetable import free_pgtables
from benchframe.mm.vma import (
    list_remove,
    note_hole,
    page_align,
    split_vma_unchecked,
    start_gap,
    unlink_anon_vmas,
    vma_alloc,
    vma_link,
    vma_merge_new,
    vma_next_of,
    vma_prev_of,
)

# ----------------------------------------------------------------------------------------------------------------------
# munmap (mm/mmap.c do_munmap, 2.6.32 to 6.0; the same steps in mm/vma.c since).


@native
def do_munmap(mm, task, start, length):
    """Unmap [start, start + length): 0, -EINVAL, or -ENOMEM (a hole in one VMA at the map_count limit; no memory for
    the index: what was split stays split).

    Split the first and the last VMA, remove all in between from the index, clear their entries, free the tables that no
    neighbour needs, free the VMAs. O(VMAs and pages in the range + log n). Caller holds mmap_lock for write.
    """
    if start & (PAGE_SIZE - 1) or start < 0 or start > mm.task_size or length < 0 or length > mm.task_size - start:
        return -EINVAL
    length = page_align(length)
    if length == 0:
        return -EINVAL
    end = start + length
    vma = lookup(mm, task, start)
    if vma == NULL or VMA(mm, vma).vm_start >= end:
        return 0
    cache_munmap(mm, start, end, vma)
    prev = VMA(mm, vma).vm_prev
    if start > VMA(mm, vma).vm_start:
        if end < VMA(mm, vma).vm_end and mm.map_count >= mm.max_map_count:
            return -ENOMEM
        error = split_vma_unchecked(mm, vma, start, 0)
        if error != 0:
            return error
        prev = vma
    last = lookup(mm, task, end)
    if last != NULL and end > VMA(mm, last).vm_start:
        error = split_vma_unchecked(mm, last, end, 1)
        if error != 0:
            return error
    if index_prepare(mm, start, end):
        return -ENOMEM
    detach_range(mm, prev, start, end)
    return 0


@native
def detach_range(mm, prev, start, end):
    """Remove every VMA after ``prev`` that begins below ``end``; none of them extends beyond it."""
    first = vma_next_of(mm, prev)
    vma = first
    while vma != NULL and VMA(mm, vma).vm_start < end:
        vma_start_write(mm, vma)
        following = VMA(mm, vma).vm_next
        list_remove(mm, vma)
        index_erase(mm, vma)
        VMA(mm, vma).detached = 1
        vma_detach(mm, vma)
        mm.map_count -= 1
        vma = following
    following = vma
    index_erase_range(mm, start, end)
    cache_detached(mm)
    change_range(mm, mm.owner, start, end, ZAP, 0)
    floor = 0
    if prev != NULL:
        floor = VMA(mm, prev).vm_end
    ceiling = 0
    if following != NULL:
        ceiling = VMA(mm, following).vm_start
    free_pgtables(mm, start, end, floor, ceiling)
    vma = first
    while vma != following:
        after = VMA(mm, vma).vm_next
        unlink_anon_vmas(mm, vma)
        vma_free(mm, vma)
        vma = after
    note_hole(mm, following)
    return 0


# ----------------------------------------------------------------------------------------------------------------------
# mmap and brk (mm/mmap.c do_mmap, get_unmapped_area, mmap_region, sys_brk; checks in the kernel's order).

ANYWHERE = -(1 << 62)
"""``at`` of a call whose result was not recorded: the model chooses the address (benchframe.events.UNKNOWN)."""


@native
def unmapped_area(mm, task, hint, length, at):
    """The address for ``length`` bytes: ``at`` if it is known, the hint if it is free, else the highest hole below
    mmap_base, else the lowest above TASK_SIZE / 3. An address or -ENOMEM (arch_get_unmapped_area_topdown)."""
    if length > mm.task_size:
        return -ENOMEM
    if at != ANYWHERE:
        return at
    if hint != 0 and hint <= mm.task_size - length:
        vma = lookup(mm, task, hint)
        prev = vma_prev_of(mm, vma)
        if (vma == NULL or hint + length <= start_gap(mm, vma)) and (prev == NULL or VMA(mm, prev).vm_end <= hint):
            return hint
    addr = index_gap_below(mm, length, max(PAGE_SIZE, mm.mmap_min_addr), mm.mmap_base)
    if addr < 0:
        addr = list_gap_above(mm, length, page_align(mm.task_size // 3), mm.task_size)
    if addr < 0:
        return -ENOMEM
    return addr


@native
def mmap_flags(mm, prot, flags, file):
    """VM_* of a new mapping, or -EACCES, -EINVAL, -EOPNOTSUPP (calc_vm_prot_bits, calc_vm_flag_bits, do_mmap's switch
    over the type)."""
    kind = flags & MAP_TYPE
    vm_flags = (prot & VM_ACCESS) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | mm.def_flags
    if flags & MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & MAP_LOCKED:
        vm_flags |= VM_LOCKED
    if flags & MAP_STACK:
        vm_flags |= VM_NOHUGEPAGE
    if kind == MAP_SHARED or (kind == MAP_SHARED_VALIDATE and file != 0):
        if kind == MAP_SHARED_VALIDATE and flags & ~MAP_VALIDATED:
            return -EOPNOTSUPP
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if file != 0 and FILE(mm, file).flags & FILE_NOWRITE:
            if prot & VM_WRITE:
                return -EACCES
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    elif kind == MAP_DROPPABLE and file == 0 and mm.rules & RULE_DROPPABLE:
        if vm_flags & (VM_LOCKED | VM_GROWSDOWN):
            return -EINVAL
        vm_flags |= VM_DROPPABLE | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP
    elif kind != MAP_PRIVATE:
        return -EINVAL
    if vm_flags & VM_GROWSDOWN and (file != 0 or vm_flags & VM_SHARED):
        return -EINVAL
    if flags & MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    if (vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE)) == VM_WRITE:
        vm_flags |= VM_ACCOUNT
    return vm_flags


@native
def mmap_region(mm, task, addr, length, vm_flags, file, pgoff):
    """Map [addr, addr + length): unmap what is there, then merge with neighbours, else make a new VMA. ``addr`` or
    -ENOMEM."""
    error = do_munmap(mm, task, addr, length)
    if error != 0:
        return error
    prev = vma_prev_of(mm, lookup(mm, task, addr))
    merged = vma_merge_new(mm, prev, addr, addr + length, vm_flags, 0, 0, file, pgoff, 0)
    if merged == NULL:
        vma = vma_alloc(mm, addr, addr + length)
        if vma == NULL:
            return -ENOMEM
        v = VMA(mm, vma)
        v.vm_flags = vm_flags
        v.vm_file = file
        v.vm_pgoff = pgoff
        vma_link(mm, vma, prev)
    return addr


@native
def do_mmap(mm, task, addr, length, prot, flags, file, offset, at):
    """mmap(2) of ``file`` (0: anonymous; a shared anonymous object is a file of its own, made by the caller).

    The address, or -EINVAL, -ENOMEM, -EPERM, -EEXIST, -EACCES. Caller holds mmap_lock for write.
    """
    if offset & (PAGE_SIZE - 1) or length == 0:
        return -EINVAL
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if length < 0 or length > mm.task_size:
        return -ENOMEM
    if not flags & MAP_FIXED:
        addr &= ~(PAGE_SIZE - 1)
        if addr != 0 and addr < mm.mmap_min_addr:
            addr = page_align(mm.mmap_min_addr)
    length = page_align(length)
    if mm.map_count > mm.max_map_count or length > mm.task_size:
        return -ENOMEM
    if not flags & MAP_FIXED:
        addr = unmapped_area(mm, task, addr, length, at)
        if addr < 0 and addr > -4096:
            return addr
    if addr < 0 or addr > mm.task_size - length:
        return -ENOMEM
    if addr & (PAGE_SIZE - 1):
        return -EINVAL
    if addr < mm.mmap_min_addr:
        return -EPERM
    if flags & MAP_FIXED_NOREPLACE:
        vma = lookup(mm, task, addr)
        end = addr + length
        if mm.rules & RULE_NOREPLACE_417:
            end = addr + 1
        if vma != NULL and VMA(mm, vma).vm_start < end:
            return -EEXIST
    vm_flags = mmap_flags(mm, prot, flags, file)
    if vm_flags < 0:
        return vm_flags
    pgoff = offset >> PAGE_SHIFT
    if file == 0:
        pgoff = addr >> PAGE_SHIFT
    addr = mmap_region(mm, task, addr, length, vm_flags, file, pgoff)
    if addr > 0 and (vm_flags & VM_LOCKED or (flags & (MAP_POPULATE | MAP_NONBLOCK)) == MAP_POPULATE):
        populate_range(mm, task, addr, addr + length, 1)
    return addr


@native
def do_brk(mm, task, addr):
    """brk(2): the new break, or the old one if the range is not free. Caller holds mmap_lock for write."""
    old = mm.brk
    if mm.start_brk < 0 or addr < mm.start_brk or addr > mm.task_size:
        return old
    new_end = page_align(addr)
    old_end = page_align(old)
    if new_end < old_end:
        vma = lookup(mm, task, new_end)
        if vma == NULL or VMA(mm, vma).vm_start >= old_end:
            return old
        if do_munmap(mm, task, new_end, old_end - new_end) != 0:
            return old
    elif new_end > old_end:
        vma = lookup(mm, task, old_end)
        prev = vma_prev_of(mm, vma)
        if vma != NULL and new_end + PAGE_SIZE > start_gap(mm, vma):
            return old
        if mm.map_count > mm.max_map_count:
            return old
        cache_brk(mm, old_end, new_end)
        vm_flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_ACCOUNT | mm.def_flags
        merged = NULL
        if prev != NULL and VMA(mm, prev).vm_end > mm.start_brk:
            merged = vma_merge_new(mm, prev, old_end, new_end, vm_flags, 0, 0, 0, old_end >> PAGE_SHIFT, 1)
        if merged == NULL:
            vma = vma_alloc(mm, old_end, new_end)
            if vma == NULL:
                return old
            v = VMA(mm, vma)
            v.vm_flags = vm_flags
            v.vm_file = 0
            v.vm_pgoff = old_end >> PAGE_SHIFT
            vma_link(mm, vma, prev)
        if vm_flags & VM_LOCKED:
            populate_range(mm, task, old_end, new_end, 1)
    mm.brk = addr
    return addr
