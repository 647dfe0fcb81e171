"""The sums of a counted run's records, operation by operation: integers only, written in the dialect.

It takes one pass over a batch. It counts the records of an operation by kind as they come, keeps the distinct lines of
the operation in TOUCH, sorts them when the operation ends, and walks them once per view.
:mod:`benchframe.engine.cost.tally` owns the memory and reads the sums. About 15 ns per record.
"""

from __future__ import annotations

from benchframe.dialect import fls, native
from benchframe.engine.cost.predictor import predict_branch
from benchframe.engine.cost.records import (
    ATOMIC,
    BRANCH,
    BRANCHES,
    COUNTED,
    DIRTY,
    ENTER,
    EVENT,
    FAR1,
    FAR1_N,
    FAR2,
    FAR2_N,
    FAR_L1,
    FAR_L2,
    FAULT,
    HIT,
    HOOK,
    HOOKS,
    IN_LOOKUP,
    KINDS,
    LEAVE,
    LINE_SHIFT,
    LINES,
    LOAD,
    LOADS,
    LOOKUP,
    LOW,
    MAPPING,
    MISPREDICTED,
    NOW,
    OPERAND,
    OPERATION,
    PARTS,
    RECORD,
    REGION,
    REGIONS,
    REUSE,
    SEEN,
    SHARING,
    SHIFT,
    STEPS,
    SUM,
    SUMS,
    TOUCH,
    WRITTEN,
    WRITTEN_IN_LOOKUP,
    WRONG,
    N,
)
from benchframe.mm.hooks import COUNT_HIT
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING


@native
def tally_records(t, count):
    """Count a batch of ``count`` records; each batch begins with an event."""
    t.operations = 0
    index = 0
    while index < count:
        value = RECORD(t, index).value
        index += 1
        kind = value >> SHIFT
        low = value & LOW
        if kind == EVENT:
            if t.operations > 0:
                finish(t)
            begin(t, low)
        elif kind == ENTER:
            t.depth += 1
        elif kind == LEAVE:
            t.depth -= 1
        else:
            inside = int(t.kind == CLASS_LOOKUP or (t.kind == CLASS_FAULT and t.depth > 0))
            NOW(t, 2 * kind + inside).value += 1
            if kind <= ATOMIC:
                touch_line(t, low >> LINE_SHIFT, inside, int(kind != LOAD))
            elif kind == BRANCH:
                NOW(t, 2 * MISPREDICTED + inside).value += predict_branch(t, low >> 1, low & 1)
            elif kind == COUNTED:
                HOOK(t, low & (HOOKS - 1)).value += 1
                if low == COUNT_HIT:
                    t.hit = 1
    if t.operations > 0:
        finish(t)
    return t.operations


@native
def begin(t, kind):
    """An operation begins."""
    t.kind = kind
    t.depth = 0
    t.hit = 0
    t.touched = 0
    t.latest = -1
    t.serial += 1
    t.operations += 1
    number = 0
    while number < 2 * KINDS:
        NOW(t, number).value = 0
        number += 1
    return 0


@native
def touch_line(t, line, inside, written):
    """The operation touches a line. O(1)."""
    how = inside * IN_LOOKUP + written * WRITTEN + inside * written * WRITTEN_IN_LOOKUP
    if t.latest >= 0 and TOUCH(t, t.latest).line == line:
        TOUCH(t, t.latest).how |= how
        return 0
    s = SEEN(t, line)
    if s.serial == t.serial:
        t.latest = s.slot
        TOUCH(t, s.slot).how |= how
        return 0
    s.serial = t.serial
    s.slot = t.touched
    t.latest = t.touched
    new = TOUCH(t, t.touched)
    new.line = line
    new.how = how
    t.touched += 1
    return 1


@native
def finish(t):
    """The operation ends: add it to the sums of its views."""
    o = OPERATION(t, t.operations - 1)
    o.kind = t.kind
    o.hit = int(t.hit == 1 and t.kind != CLASS_MAPPING)
    o.loads = NOW(t, 2 * LOAD).value + NOW(t, 2 * LOAD + 1).value
    o.lookup_loads = NOW(t, 2 * LOAD + 1).value
    o.lines = t.touched
    o.lookup_lines = 0
    sort_lines(t)
    late = note_times(t)
    if t.kind == CLASS_MAPPING:
        add_events(t, MAPPING, 1)
        walk_lines(t, MAPPING, 0, WRITTEN, late)
        return 0
    add_events(t, LOOKUP, 0)
    o.lookup_lines = walk_lines(t, LOOKUP, IN_LOOKUP, WRITTEN_IN_LOOKUP, late)
    share_lines(t, 0, IN_LOOKUP, WRITTEN_IN_LOOKUP, o.task)
    if o.hit:
        add_events(t, HIT, 0)
        walk_lines(t, HIT, IN_LOOKUP, WRITTEN_IN_LOOKUP, late)
    if t.kind == CLASS_FAULT:
        add_events(t, FAULT, 1)
        walk_lines(t, FAULT, 0, WRITTEN, late)
        share_lines(t, 1, 0, WRITTEN, o.task)
    return 0


@native
def add_events(t, view, outside):
    """Add operations, loads, stores, atomics, barriers, branches; those outside the lookup too if ``outside``."""
    base = view * SUMS
    SUM(t, base + N).value += 1
    kind = LOAD
    while kind < BRANCH:  # loads, stores, atomics, barriers, in the order of the sums
        SUM(t, base + LOADS + kind).value += NOW(t, 2 * kind + 1).value + outside * NOW(t, 2 * kind).value
        kind += 1
    kind = BRANCH
    while kind <= OPERAND:
        SUM(t, base + BRANCHES).value += NOW(t, 2 * kind + 1).value + outside * NOW(t, 2 * kind).value
        kind += 1
    wrong = NOW(t, 2 * MISPREDICTED + 1).value + outside * NOW(t, 2 * MISPREDICTED).value
    SUM(t, base + WRONG).value += wrong
    return 0


@native
def sort_lines(t):
    """Sort TOUCH by line: Shell's sort, with gaps 3 k + 1. Most operations touch about ten lines."""
    count = t.touched
    gap = 1
    while gap * 3 + 1 < count:
        gap = gap * 3 + 1
    while gap > 0:
        at = gap
        while at < count:
            line = TOUCH(t, at).line
            how = TOUCH(t, at).how
            place = at
            while place >= gap and TOUCH(t, place - gap).line > line:
                TOUCH(t, place).line = TOUCH(t, place - gap).line
                TOUCH(t, place).how = TOUCH(t, place - gap).how
                place -= gap
            TOUCH(t, place).line = line
            TOUCH(t, place).how = how
            at += 1
        gap = gap // 3
    return 0


@native
def note_times(t):
    """When each line was last touched: into REUSE, and FAR_* for lines that a cache has probably lost. Returns the
    levels (FAR_*) for which this can be known, the window being long enough."""
    age = t.clock - t.began
    late = int(age >= t.time_l1) * FAR_L1 + int(age >= t.time_l2) * FAR_L2
    index = 0
    while index < t.touched:
        one = TOUCH(t, index)
        s = SEEN(t, one.line)
        ago = t.clock - s.when
        unknown = s.when < t.began
        if not unknown:
            REUSE(t, reuse_class(ago)).value += 1
        if unknown or ago > t.time_l1:
            one.how |= late & FAR_L1
        if unknown or ago > t.time_l2:
            one.how |= late & FAR_L2
        s.when = t.clock
        t.clock += 1
        index += 1
    return late


@native
def reuse_class(ago):
    """PARTS classes per power of two: 8 * bits of ``ago`` + the three bits below its highest one."""
    bits = max(fls(ago), 1)
    return bits * PARTS + (((ago << 4) >> bits) & (PARTS - 1))


@native
def walk_lines(t, view, chosen, written, late):
    """Distinct lines of a view (``chosen`` is a bit of ``how``, 0 for all), its steps, and lines written. Returns the
    number of lines."""
    base = view * SUMS
    lines = 0
    steps = 0
    dirty = 0
    far1 = 0
    far2 = 0
    last = -1  # the step of the line before, among walked ones; likewise for far ones
    last1 = -1
    last2 = -1
    number = 0
    index = 0
    while index < t.touched:
        one = TOUCH(t, index)
        index += 1
        how = one.how
        if chosen and not how & chosen:
            continue
        while REGION(t, number + 1).first <= one.line:
            number += 1
        r = REGION(t, number)
        step = r.first + (one.line - r.first) // r.step
        lines += 1
        SUM(t, base + REGIONS + number).value += 1
        if r.walked and step != last:
            last = step
            steps += 1
        if how & written:
            dirty += 1
        if how & FAR_L1 and step != last1:
            last1 = step
            far1 += 1
        if how & FAR_L2 and step != last2:
            last2 = step
            far2 += 1
    SUM(t, base + LINES).value += lines
    SUM(t, base + STEPS).value += steps
    SUM(t, base + DIRTY).value += dirty
    SUM(t, base + FAR1).value += far1
    SUM(t, base + FAR2).value += far2
    SUM(t, base + FAR1_N).value += int((late & FAR_L1) != 0)
    SUM(t, base + FAR2_N).value += int((late & FAR_L2) != 0)
    return lines


@native
def share_lines(t, which, chosen, written, task):
    """Which other operations touch the lines: ``which`` 0 among lookups, 1 among faults. A write counts once another
    operation has touched the line too, before or after it."""
    number = 0
    index = 0
    shared = 0
    between = 0
    while index < t.touched:
        one = TOUCH(t, index)
        index += 1
        if chosen and not one.how & chosen:
            continue
        while REGION(t, number + 1).first <= one.line:
            number += 1
        wrote = int((one.how & written) != 0 and REGION(t, number).own == 0)
        s = SHARING(t, which * t.lines + one.line)
        s.touches += 1
        s.writes += wrote
        if s.touches == 2:
            shared += s.writes
        elif s.touches > 2:
            shared += wrote
        if s.toucher == 0:
            s.toucher = task + 1
        elif s.toucher > 0 and s.toucher != task + 1:
            s.toucher = -1
            between += s.writes
        elif s.toucher < 0:
            between += wrote
    if which == 0:
        t.shared_lookup += shared
        t.between_lookup += between
    else:
        t.shared_fault += shared
        t.between_fault += between
    return 0
