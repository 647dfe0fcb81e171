"""Mapping operations from a stream: one event to one call, with the locks around it as the system calls take them.

Compiled once for all strategies: the strategy's hooks are reached through the mm's hook entry.
"""

from benchframe.dialect import NULL, native
from benchframe.events import Kind, MapType
from benchframe.mm.anon import anon_vma_prepare
from benchframe.mm.arena import arena_alloc
from benchframe.mm.flags import (
    EINVAL,
    FILE_SHMEM,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_TYPE,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
)
from benchframe.mm.fork import dup_mmap, exit_mmap, mm_init, mm_new, mmdrop, task_init
from benchframe.mm.hooks import lookup, mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock
from benchframe.mm.layout import ARENA_FILE, EVENT, FILE, MM, PAGE_SHIFT, PAGE_SIZE, TASK, VMA
from benchframe.mm.madvise import advice_reads, do_madvise
from benchframe.mm.mmap import do_brk, do_mmap, mmap_flags, mmap_region
from benchframe.mm.mprotect import do_mlock, do_mprotect
from benchframe.mm.mremap import do_mremap
from benchframe.mm.munmap import do_munmap, page_align
from benchframe.mm.records import vma_alloc, vma_link, vma_prev_of

EXEC, MAP, MMAP, MUNMAP = int(Kind.EXEC), int(Kind.MAP), int(Kind.MMAP), int(Kind.MUNMAP)
MPROTECT, MREMAP, BRK, MADVISE = int(Kind.MPROTECT), int(Kind.MREMAP), int(Kind.BRK), int(Kind.MADVISE)
MLOCK, MUNLOCK, FORK, THREAD = int(Kind.MLOCK), int(Kind.MUNLOCK), int(Kind.FORK), int(Kind.THREAD)
EXIT = int(Kind.EXIT)
MAP_STACK_TYPE, MAP_SPECIAL, MAP_HEAP = int(MapType.STACK), int(MapType.SPECIAL), int(MapType.HEAP)


@native
def failed(ret):
    """Did the recorded call fail?"""
    return ret < 0 and ret > -4096


@native
def event_mmap(mm, task, index):
    """mmap(2). A shared anonymous mapping gets an object of its own (shmem_zero_setup)."""
    e = EVENT(mm, index)
    if failed(e.ret):
        return e.ret
    file = e.file + 1
    offset = e.offset
    if e.flags & MAP_ANONYMOUS:
        file = 0
        offset = offset & (PAGE_SIZE - 1)
        if (e.flags & MAP_TYPE) == MAP_SHARED and e.len > 0 and e.len <= mm.task_size:
            file = arena_alloc(mm, ARENA_FILE)
            if file == NULL:
                return -EINVAL
            FILE(mm, file).size = page_align(e.len)
            FILE(mm, file).flags = FILE_SHMEM
    return do_mmap(mm, task, e.addr, e.len, e.prot, e.flags, file, offset, e.ret)


@native
def event_map(mm, task, index):
    """A mapping that exec made: program image, [stack], [vdso], [heap]."""
    e = EVENT(mm, index)
    end = e.addr + page_align(e.len)
    if e.flags & MAP_HEAP:
        mm.start_brk = e.addr
        mm.brk = e.addr + e.len
    if not e.flags & (MAP_STACK_TYPE | MAP_SPECIAL):
        kind = e.flags & MAP_TYPE
        if kind == 0:
            kind = MAP_PRIVATE
        flags = mmap_flags(mm, e.prot, (e.flags & 0xFFFFF0) | kind, e.file + 1)
        if flags < 0:
            return flags
        pgoff = e.addr >> PAGE_SHIFT
        if e.file >= 0:
            pgoff = e.offset >> PAGE_SHIFT
        return mmap_region(mm, task, e.addr, end - e.addr, flags, e.file + 1, pgoff)
    error = do_munmap(mm, task, e.addr, end - e.addr)
    if error != 0:
        return error
    vma = vma_alloc(mm)
    if vma == NULL:
        return -EINVAL
    v = VMA(mm, vma)
    v.vm_start = e.addr
    v.vm_end = end
    v.vm_flags = (e.prot & VM_ACCESS) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if e.flags & MAP_STACK_TYPE:
        v.vm_flags |= VM_GROWSDOWN | VM_ACCOUNT
        mm.start_stack = end
    else:
        v.vm_flags |= VM_DONTEXPAND | VM_IO
    v.vm_file = 0
    v.vm_pgoff = e.addr >> PAGE_SHIFT
    vma_link(mm, vma, vma_prev_of(mm, lookup(mm, task, e.addr)))
    if e.flags & MAP_STACK_TYPE:  # exec has written the arguments
        anon_vma_prepare(mm, vma)
    return e.addr


@native
def event_brk(mm, task, index):
    """brk(2). Where nobody told start_brk, the first recorded result does."""
    e = EVENT(mm, index)
    if mm.start_brk < 0 or (e.addr == 0 and e.ret >= 0 and e.ret != mm.brk):
        first = e.ret
        if e.ret < 0:
            first = max(e.addr, 0)
        if mm.start_brk < 0 or first < mm.start_brk:
            mm.start_brk = first
        mm.brk = first
        return first
    if e.addr != 0 and e.ret >= 0 and e.ret != e.addr:  # the kernel refused: the break stays
        return mm.brk
    return do_brk(mm, task, e.addr)


@native
def event_mremap(mm, task, index):
    """mremap(2)."""
    e = EVENT(mm, index)
    if failed(e.ret):
        return e.ret
    return do_mremap(mm, task, e.addr, e.len, e.new_len, e.flags, e.offset, e.ret)


@native
def locked_event(mm, task, index):
    """One call under mmap_lock for write."""
    e = EVENT(mm, index)
    kind = e.kind
    if kind == MMAP:
        return event_mmap(mm, task, index)
    if kind == MUNMAP:
        return do_munmap(mm, task, e.addr, e.len)
    if kind == MPROTECT:
        return do_mprotect(mm, task, e.addr, e.len, e.prot)
    if kind == MADVISE:
        return do_madvise(mm, task, e.addr, e.len, e.flags)
    if kind == BRK:
        return event_brk(mm, task, index)
    if kind == MREMAP:
        return event_mremap(mm, task, index)
    if kind == MLOCK:
        return do_mlock(mm, task, e.addr, e.len, 1)
    if kind == MUNLOCK:
        return do_mlock(mm, task, e.addr, e.len, 0)
    if kind == MAP:
        return event_map(mm, task, index)
    if kind == FORK:
        return dup_mmap(mm, e.addr + 1, e.len + 1) - 1
    return -EINVAL


@native
def event_exec(mm, index):
    """A program begins: its mm is empty; made here if it is not the trace's first."""
    e = EVENT(mm, index)
    new = e.mm + 1
    m = MM(mm, new)
    if m.pgd == 0:
        if mm_new(mm, new) == NULL:
            return -EINVAL
    elif m.mmap != NULL:
        exit_mmap(m)
        mm_init(m)
    m.start_brk = e.addr
    m.brk = e.addr
    task_init(m, e.task + 1)
    return 0


@native
def mapping_event(root, index):
    """Run event ``index`` of the stream, any kind but FAULT and LOOKUP: what the call returns.

    ``root`` is MM record 1; the event names its own mm. Results are those of benchframe.events.
    """
    e = EVENT(root, index)
    kind = e.kind
    task = e.task + 1
    if kind == EXEC:
        return event_exec(root, index)
    mm = MM(root, e.mm + 1)
    if kind == THREAD:
        return task_init(mm, e.len + 1)
    if kind == EXIT:
        if e.len > 0:
            exit_mmap(mm)
        TASK(mm, task).mm = 0
        if e.len > 0:
            mmdrop(mm)
        return 0
    if kind == MADVISE and advice_reads(e.flags):
        mmap_read_lock(mm, task)
        result = do_madvise(mm, task, e.addr, e.len, e.flags)
        mmap_read_unlock(mm, task)
        return result
    mmap_write_lock(mm, task)
    result = locked_event(mm, task, index)
    mmap_write_unlock(mm, task)
    return result
