"""Replaying a stream: the loops that an engine times, checks or samples.

The stream is ``EVENT(root, i)``; ``root`` is MM record 1. Faults and lookups run here, with the strategy's hot hooks
inlined; every other event goes through the compiled mapping operations (:data:`far_mapping`).
"""

from benchframe.dialect import NULL, FarCall, cycles, native
from benchframe.events import FaultFlag, Kind
from benchframe.mm.dispatch import mapping_event
from benchframe.mm.fault import covering, fault_in_vma, page_fault
from benchframe.mm.flags import FAULT_MAPERR, FAULT_RETRY
from benchframe.mm.hooks import index_find, vma_get, vma_get_locked, vma_put
from benchframe.mm.layout import ANSWER, EVENT, MM, SAMPLE, TASK, VMA

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
    """A LOOKUP event: with USER through the strategy's accessor, else find_vma under the lock."""
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
    class changes. Gives how many it read. What the events answered is summed up and stored: a lookup whose answer
    nobody uses and whose walk surely ends is no code at all to the compiler."""
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
    """Run events [first, last) and write what each answered to ANSWER: the result (0 or FAULT_* for a fault), the
    bounds of the first VMA with addr < vm_end afterwards (faults and lookups), and its index."""
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
    """Run events [first, last) and write the cycles of each, and whether the cache answered, to SAMPLE. The answers are
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
    """vma_get of a replay that knows the answers: what the checked replay found, in order."""
    root = MM(mm, 1)
    cursor = root.replay_cursor
    root.replay_cursor = cursor + 1
    return ANSWER(mm, cursor).vma


@native
def nothing(mm, task, vma):
    """vma_put of a replay that knows the answers."""
    return 0


@native
def nothing_found(mm, addr):
    """index_find of a replay that knows the answers: never called."""
    return 0


@native
def nothing_done(mm, vma):
    """index_insert and index_erase likewise."""
    return 0


KNOWN = {
    "vma_get": known_answer,
    "vma_get_locked": known_answer,
    "vma_put": nothing,
    "index_find": nothing_found,
    "index_insert": nothing_done,
    "index_erase": nothing_done,
}
"""A replay without lookups: what is left is the fault's own work. The answers come from :func:`replay_checked`,
compacted to the faults and lookups."""
