"""Replaying events: turn one event into one call or fault, or into what a refused call had done; the timed loops.

A recorded refusal is always reproduced, even if the model would
have allowed the call: SELinux, a seccomp filter, an rlimit or memory pressure may refuse what the rules allow. Most
refused calls change nothing. But a call that walks its range VMA by VMA stops at the first VMA that it cannot change,
and the VMAs before it stay changed. So the range is inspected: if it has a hole, a missing permission or the like that
explains the recorded errno, the call runs as far as it gets; otherwise nothing happens. In both cases it returns the
recorded errno. The oracle implements the same rule separately (oracle/replayer.py).
"""

from benchframe.dialect.functions import FarCall, native
from benchframe.dialect.primitives import cycles
from benchframe.dialect.records import NULL
from benchframe.events import FaultFlag, Kind, MapType
from benchframe.mm.flags import (
    EACCES,
    EAGAIN,
    EINVAL,
    ENOMEM,
    FAULT_MAPERR,
    FAULT_RETRY,
    FILE_SHMEM,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_TYPE,
    PROT_GROWSDOWN,
    PROT_GROWSUP,
    PROT_KNOWN,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_WRITE,
)
from benchframe.mm.fork import dup_mmap, exit_mmap, mm_init, mm_new, mmdrop, task_init
from benchframe.mm.hooks import (
    index_find,
    lookup,
    madvise_pages,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_get,
    vma_get_locked,
    vma_put,
)
from benchframe.mm.layout import (
    ANSWER,
    ARENA_FILE,
    EVENT,
    EXEC_LIMITS,
    FILE,
    MM,
    PAGE_SHIFT,
    PAGE_SIZE,
    SAMPLE,
    TASK,
    VMA,
    arena_alloc,
)
from benchframe.mm.madvise import NO_FLAGS, advice_flags, advice_known, advice_reads, advise_pages_error, do_madvise
from benchframe.mm.memory import covering, fault_in_vma, page_fault
from benchframe.mm.mmap import do_brk, do_mmap, do_munmap, mmap_flags, mmap_region
from benchframe.mm.mprotect import do_attribute, do_mlock, do_mprotect
from benchframe.mm.mremap import do_mremap
from benchframe.mm.vma import anon_vma_prepare, page_align, read_maps, vma_alloc, vma_link, vma_prev_of


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


# ----------------------------------------------------------------------------------------------------------------------
# Mapping operations from a stream: one call per event, under the locks that the system call takes.
#
# Compiled once for all strategies: the strategy's hooks are reached through the mm's hook entry.

EXEC, MAP, MMAP, MUNMAP = int(Kind.EXEC), int(Kind.MAP), int(Kind.MMAP), int(Kind.MUNMAP)
MPROTECT, MREMAP, BRK, MADVISE = int(Kind.MPROTECT), int(Kind.MREMAP), int(Kind.BRK), int(Kind.MADVISE)
MLOCK, MUNLOCK, FORK, THREAD = int(Kind.MLOCK), int(Kind.MUNLOCK), int(Kind.FORK), int(Kind.THREAD)
EXIT, RLIMIT, ATTR, WALK = int(Kind.EXIT), int(Kind.RLIMIT), int(Kind.ATTR), int(Kind.WALK)
MAP_STACK_TYPE, MAP_SPECIAL, MAP_HEAP = int(MapType.STACK), int(MapType.SPECIAL), int(MapType.HEAP)


@native
def event_mmap(mm, task, index):
    """mmap(2). A shared anonymous mapping gets its own object (shmem_zero_setup)."""
    e = EVENT(mm, index)
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
    vma = vma_alloc(mm, e.addr, end)
    if vma == NULL:
        return -EINVAL
    v = VMA(mm, vma)
    v.vm_flags = (e.prot & VM_ACCESS) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if e.flags & MAP_STACK_TYPE:
        v.vm_flags |= VM_GROWSDOWN | VM_ACCOUNT
        mm.start_stack = end
    else:
        v.vm_flags |= VM_DONTEXPAND | VM_IO
    v.vm_file = 0
    v.vm_pgoff = e.addr >> PAGE_SHIFT
    vma_link(mm, vma, vma_prev_of(mm, lookup(mm, task, e.addr)))
    if e.flags & MAP_STACK_TYPE:  # exec has already written the arguments
        anon_vma_prepare(mm, task, vma)
    return e.addr


@native
def event_brk(mm, task, index):
    """brk(2). If start_brk is not known, the first recorded result becomes it."""
    e = EVENT(mm, index)
    if mm.start_brk < 0 or (e.addr == 0 and e.ret >= 0 and e.ret != mm.brk):
        first = e.ret
        if e.ret < 0:
            first = max(e.addr, 0)
        if mm.start_brk < 0 or first < mm.start_brk:
            mm.start_brk = first
        mm.brk = first
        return first
    if e.addr != 0 and e.ret >= 0 and e.ret != e.addr:  # the kernel refused: the break does not move
        return e.ret
    return do_brk(mm, task, e.addr)


@native
def event_mremap(mm, task, index):
    """mremap(2)."""
    e = EVENT(mm, index)
    return do_mremap(mm, task, e.addr, e.len, e.new_len, e.flags, e.offset, e.ret)


@native
def locked_event(mm, task, index):
    """One call under mmap_lock for write."""
    e = EVENT(mm, index)
    kind = e.kind
    if failed(e.ret) and kind != MAP and kind != FORK:
        return refused_call(mm, task, index)
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
    if kind == ATTR:
        return do_attribute(mm, task, e.addr, e.len, e.flags, e.prot)
    return -EINVAL


@native
def event_exec(mm, index):
    """A program begins with an empty mm, which is allocated here unless it is the trace's first."""
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
    m.stack_limit = EXEC_LIMITS(mm, 0).stack_limit
    task_init(m, e.task + 1)
    return 0


@native
def mapping_event(root, index):
    """Run event ``index`` of the stream, of any kind except FAULT and LOOKUP; returns the call's result.

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
    if kind == EXIT or kind == RLIMIT:
        if kind == RLIMIT:
            mm.stack_limit = e.len
            return 0
        if e.len > 0:
            exit_mmap(mm)
        TASK(mm, task).mm = 0
        if e.len > 0:
            mmdrop(mm)
        return 0
    if kind == WALK:
        return read_maps(mm, task, e.addr, e.len, e.new_len)
    if kind == MADVISE and advice_reads(e.flags):
        if not failed(e.ret):
            return madvise_pages(mm, task, e.addr, e.len, e.flags)
        mmap_read_lock(mm, task)
        result = refused_call(mm, task, index)
        mmap_read_unlock(mm, task)
        return result
    mmap_write_lock(mm, task)
    result = locked_event(mm, task, index)
    mmap_write_unlock(mm, task)
    return result


# ----------------------------------------------------------------------------------------------------------------------
# Replaying a stream: the loops that an engine times, checks or samples.
#
# The stream is ``EVENT(root, i)``; ``root`` is MM record 1. Faults and lookups run here, with the strategy's hot hooks
# inlined; every other event goes through the compiled mapping operations (:data:`far_mapping`).

FAULT, LOOKUP, USER = int(Kind.FAULT), int(Kind.LOOKUP), int(FaultFlag.USER)
CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING = 0, 1, 2

far_mapping = FarCall("mapping_entry", mapping_event)
"""mapping_event(root, index), compiled once for all strategies and called through its address."""


@native
def kernel_fault(mm, task, addr, access):
    """A fault taken in kernel mode: no speculation (RFC 4/4 speculates for user mode only)."""
    if addr < 0 or addr >= mm.task_size:
        return FAULT_MAPERR
    result = FAULT_RETRY
    vma = NULL
    while result == FAULT_RETRY:
        vma = covering(mm, task, vma_get_locked(mm, task, addr), addr)
        result = fault_in_vma(mm, task, vma, addr, access)
        vma_put(mm, task, vma)
    if result != 0:
        return result
    return vma


@native
def bare_lookup(mm, task, addr, flags):
    """A LOOKUP event: with USER through the strategy's vma_get, else find_vma under the lock."""
    if flags & USER:
        vma = vma_get(mm, task, addr)
    else:
        vma = vma_get_locked(mm, task, addr)
    vma_put(mm, task, vma)
    return vma


@native
def one_event(root, index):
    """Event ``index``: a VMA or FAULT_* for a fault, a VMA or NULL for a lookup, else the call's result."""
    e = EVENT(root, index)
    kind = e.kind
    if kind == FAULT:
        if e.flags & USER:
            return page_fault(MM(root, e.mm + 1), e.task + 1, e.addr, e.prot)
        return kernel_fault(MM(root, e.mm + 1), e.task + 1, e.addr, e.prot)
    if kind == LOOKUP:
        return bare_lookup(MM(root, e.mm + 1), e.task + 1, e.addr, e.flags)
    return far_mapping(root, index)


@native
def class_of(kind):
    """CLASS_* of an event kind."""
    if kind == FAULT:
        return CLASS_FAULT
    if kind == LOOKUP:
        return CLASS_LOOKUP
    return CLASS_MAPPING


@native
def replay_timed(root, first, last):
    """Run events [first, last) and add the cycles of each class to root.replay_*; the clock is read only where the
    class changes. Returns the number of clock reads. The results are summed up and stored, because the compiler would
    remove a lookup whose result is not used."""
    answered = 0
    fault = 0
    lookup = 0
    mapping = 0
    switches = 0
    current = -1
    start = cycles()
    began = start
    index = first
    while index < last:
        kind = class_of(EVENT(root, index).kind)
        if kind != current:
            now = cycles()
            if current == CLASS_FAULT:
                fault += now - start
            elif current == CLASS_LOOKUP:
                lookup += now - start
            elif current == CLASS_MAPPING:
                mapping += now - start
            start = now
            current = kind
            switches += 1
        answered += one_event(root, index)
        index += 1
    now = cycles()
    if current == CLASS_FAULT:
        fault += now - start
    elif current == CLASS_LOOKUP:
        lookup += now - start
    elif current == CLASS_MAPPING:
        mapping += now - start
    ANSWER(root, first).ret = answered
    root.replay_fault += fault
    root.replay_lookup += lookup
    root.replay_mapping += mapping
    root.replay_clock += now - began
    root.clock_now = now
    root.replay_switches += switches
    return switches


@native
def replay_checked(root, first, last):
    """Run events [first, last) and write each answer to ANSWER: the result (0 or FAULT_* for a fault), the bounds of
    the first VMA with addr < vm_end afterwards (faults and lookups), and its index."""
    index = first
    while index < last:
        e = EVENT(root, index)
        kind = e.kind
        result = one_event(root, index)
        a = ANSWER(root, index)
        a.vm_start = -1
        a.vm_end = -1
        a.vma = 0
        a.ret = result
        if kind == FAULT or kind == LOOKUP:
            mm = MM(root, e.mm + 1)
            vma = result
            if kind == LOOKUP or result >= 0:
                a.ret = 0
            if result < 0:
                vma = index_find(mm, e.addr)
            if vma > 0:
                a.vm_start = VMA(mm, vma).vm_start
                a.vm_end = VMA(mm, vma).vm_end
                a.vma = vma
        index += 1
    return 0


@native
def replay_sampled(root, first, last):
    """Run events [first, last) and write to SAMPLE the cycles of each, and whether the cache answered. The answers are
    used as in :func:`replay_timed`."""
    answered = 0
    index = first
    while index < last:
        e = EVENT(root, index)
        t = TASK(root, e.task + 1)
        hits = t.nr_hits
        start = cycles()
        answered += one_event(root, index)
        s = SAMPLE(root, index)
        s.cycles = cycles() - start
        s.hit = t.nr_hits - hits
        index += 1
    ANSWER(root, first).ret = answered
    return 0


@native
def replay_entry(root, first, last, mode):
    """The counted unit: ``mode`` 0 checks, 1 samples."""
    if mode == 0:
        return replay_checked(root, first, last)
    return replay_sampled(root, first, last)


@native
def known_answer(mm, task, addr):
    """vma_get of a replay with known answers: returns what the checked replay found, in order."""
    root = MM(mm, 1)
    cursor = root.replay_cursor
    root.replay_cursor = cursor + 1
    return ANSWER(mm, cursor).vma


@native
def nothing(mm, task, vma):
    """vma_put of a replay with known answers."""
    return 0


@native
def nothing_found(mm, addr):
    """index_find of a replay with known answers: never called."""
    return 0


@native
def nothing_done(mm, vma):
    """index_insert and index_erase of a replay with known answers."""
    return 0


KNOWN = {
    "vma_get": known_answer,
    "vma_get_locked": known_answer,
    "vma_put": nothing,
    "index_find": nothing_found,
    "index_insert": nothing_done,
    "index_erase": nothing_done,
}
"""A replay without lookups: only the rest of the fault remains. The answers come from :func:`replay_checked`, reduced
to the faults and lookups."""
