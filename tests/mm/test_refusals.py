"""A recorded refusal is taken as it was, by the model and by the oracle alike, whatever call and errno it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.space import BASE, PAGE, registry, strategy
from support.streams import mapping, stream
from test_random_calls import FILES, HEAP, STACK, Op, fresh, lengths, operations, places

from benchframe.engine.session import Session
from benchframe.events import CALLS, EVENT, NIL, UNKNOWN, Kind
from benchframe.oracle import Replayer, replay
from benchframe.oracle.calls import Oracle
from benchframe.verify import oracle

COLUMNS = {
    "mmap": ("addr", "len", "prot", "flags", "file", "offset"),
    "munmap": ("addr", "len"),
    "mprotect": ("addr", "len", "prot"),
    "mremap": ("addr", "len", "new_len", "flags", "offset"),
    "brk": ("addr",),
    "madvise": ("addr", "len", "flags"),
    "mlock": ("addr", "len"),
    "munlock": ("addr", "len"),
    "attr": ("addr", "len", "flags", "prot"),
    "fault": ("addr", "prot"),
}
ERRNOS = st.sampled_from([1, 4, 11, 12, 12, 12, 13, 14, 16, 22, 22, 38, 95, 4095])
"""EPERM, EINTR, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, EINVAL, ENOSYS, EOPNOTSUPP, and the last of all."""
LIMIT = 1 << 47
attributes = st.tuples(st.just("attr"), places, lengths, st.integers(0, 5), st.sampled_from([0, 1, 2, 17, 200]))
anything: st.SearchStrategy[Op] = st.one_of(operations, operations, operations, operations, attributes)


def columns(op: Op, ret: int) -> dict[str, int]:
    """The event of an operation; lengths as a trace holds them."""
    names = COLUMNS[op[0]]
    values = dict(zip(names, op[1:], strict=False))
    values["len"], values["new_len"] = min(values.get("len", 0), LIMIT), min(values.get("new_len", 0), LIMIT)
    return {"kind": int(Kind[op[0].upper()]), "ret": ret, **values}


def same(ops: list[tuple[Op, int | None]], **parameters: int) -> None:
    """Model and oracle agree after every operation, performed or refused, in result, layout and flags."""
    kit = fresh("rbtree", "native", **parameters)
    right: Oracle = oracle(kit.machine.parameters)
    for number, size, writable in FILES:
        right.set_file(number, size, True, writable)
    kit.exec(HEAP)
    right.start_brk = right.brk_now = HEAP
    for side in (kit, right):
        side.exec_map(STACK, 4 * PAGE, 3, 1 << 24)
    replayer = Replayer()
    replayer.spaces[0] = right
    for number, (op, errno) in enumerate(ops):
        if op[0] == "fork":
            continue
        event = columns(op, UNKNOWN if errno is None or op[0] == "fault" else -errno)
        got = kit.machine.call(**event)
        wanted = replayer.feed(stream(event)).ret[0]
        assert got == wanted, f"op {number} {op} refused with {errno}: {got}, the oracle {wanted}"
        assert errno is None or op[0] == "fault" or got == -errno
        assert kit.layout() == right.layout(), f"op {number} {op} refused with {errno}"
        assert kit.layout_flags() == right.layout_flags(), f"op {number} {op} refused with {errno}"
    kit.validate()


@given(st.lists(st.tuples(anything, st.none() | ERRNOS), max_size=40))
def test_any_call_may_be_refused_with_any_errno(ops: list[tuple[Op, int | None]]) -> None:
    """The model's answer and its layout are the oracle's, and the answer is the recorded errno."""
    same(ops)


@given(st.lists(st.tuples(anything, st.none() | ERRNOS), max_size=40))
def test_any_call_may_be_refused_near_the_map_count_limit(ops: list[tuple[Op, int | None]]) -> None:
    """The same where a split may be what failed."""
    same(ops, max_map_count=6)


@pytest.mark.parametrize("name", ["python-json", "redis-load", "mt-alloc"])
def test_any_call_of_a_recorded_trace_may_be_refused(name: str) -> None:
    """A third of a shipped trace's calls refused with any errno: every engine answer is still the oracle's."""
    trace = registry().spec(name).trace(1)
    rng = np.random.default_rng(12)
    events = trace.events.copy()
    rows = np.flatnonzero(np.isin(events["kind"], CALLS))
    rows = rows[rng.random(len(rows)) < 0.3]
    events["ret"][rows] = -rng.integers(1, 134, len(rows))
    verdict = Session(strategy("rbtree"), replace(trace, events=events)).verify()
    assert verdict.ok, verdict.what
    np.testing.assert_array_equal(replay(events).ret[rows], events["ret"][rows])


def refusal(call: dict[str, Any], *before: dict[str, Any]) -> list[tuple[int, ...]]:
    """The layout after ``before`` and a refused ``call``."""
    answers = replay(stream(*before, call))
    assert answers.ret[-1] == call["ret"]
    return [row[:3] for row in answers.layouts[0]]


def test_what_the_range_explains_has_its_effect() -> None:
    """A hole, a file that may not be written, a locked area: the part before it is changed. Else nothing is."""
    two = (mapping(BASE, 2), mapping(BASE + 3 * PAGE, 1))
    protect = {"kind": Kind.MPROTECT, "addr": BASE, "len": 4 * PAGE, "prot": 1}
    assert refusal({**protect, "ret": -12}, *two)[0] == (BASE, BASE + 2 * PAGE, 1)
    assert refusal({**protect, "ret": -13}, *two)[0] == (BASE, BASE + 2 * PAGE, 3), "no right is missing"
    lock = {"kind": Kind.MLOCK, "addr": BASE + PAGE, "len": PAGE, "ret": -12}
    assert len(refusal(lock, mapping(BASE, 2))) == 1, "RLIMIT_MEMLOCK: nothing happened"
    assert len(refusal({**lock, "len": 4 * PAGE}, mapping(BASE, 2))) == 2, "a hole: what is before it is locked"
    fork = {"kind": Kind.MADVISE, "addr": BASE + PAGE, "len": 4 * PAGE, "flags": 10, "ret": -12}
    assert len(refusal(fork, mapping(BASE, 2))) == 2
    assert len(refusal({**fork, "ret": -22}, mapping(BASE, 2))) == 1


def test_a_refused_brk_leaves_the_break() -> None:
    """brk has no errno, but a seccomp filter has: both kinds of refusal are the answer, and the heap stays."""
    start = {"kind": Kind.BRK, "addr": 0, "ret": BASE}
    grow = {"kind": Kind.BRK, "addr": BASE + PAGE, "ret": BASE + PAGE}
    for ret in (BASE + PAGE, -1, -12):
        answers = replay(stream(start, grow, {"kind": Kind.BRK, "addr": BASE + 9 * PAGE, "ret": ret}))
        assert answers.ret.tolist() == [BASE, BASE + PAGE, ret]
        assert answers.layouts[0] == [(BASE, BASE + PAGE, 3, 0, 0, NIL)]


def test_a_refusal_costs_no_copy() -> None:
    """A thousand refused calls among thousands of areas touch only their ranges: O(range), not O(areas)."""
    events = np.zeros(6000, EVENT)
    events["file"], events["ret"], events["kind"] = NIL, UNKNOWN, Kind.MMAP
    events["addr"] = BASE + np.arange(6000) * 2 * PAGE
    events["len"], events["prot"], events["flags"] = PAGE, 3, 0x32
    events["kind"][5000:], events["ret"][5000:], events["prot"][5000:] = Kind.MPROTECT, -13, 1
    replayer = Replayer()
    looked = 0
    replayer.feed(events[:5000])
    areas = replayer.spaces[0].areas

    class Watched(list):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            nonlocal looked
            looked += 1
            return list.__getitem__(self, at)

    replayer.spaces[0].areas = Watched(areas)
    replayer.feed(events[5000:])
    assert looked < 40 * 1000


def test_attributes_are_what_merges_compare() -> None:
    """mseal, mbind, a name and a userfaultfd cut an area; the same value joins it again; a child has no userfaultfd."""
    seal = {"kind": Kind.ATTR, "addr": BASE + PAGE, "len": PAGE, "flags": 1, "prot": 1, "ret": 0}
    for which in (1, 2, 3, 4):
        cut = {**seal, "flags": which}
        assert len(replay(stream(mapping(BASE, 3), cut)).layouts[0]) == 3
        assert len(replay(stream(mapping(BASE, 3), cut, {**cut, "prot": 0})).layouts[0]) == 1
        rest = [{**cut, "addr": BASE}, {**cut, "addr": BASE + 2 * PAGE}]
        assert len(replay(stream(mapping(BASE, 3), cut, *rest)).layouts[0]) == 1
        assert len(replay(stream(mapping(BASE, 3), {**cut, "ret": -1})).layouts[0]) == 1
    protect = {"kind": Kind.MPROTECT, "addr": BASE, "prot": 1, "len": 3 * PAGE, "mm": 1, "task": 1, "ret": 0}
    fork = {"kind": Kind.FORK, "addr": 1, "len": 1}
    for which, left in ((2, 1), (1, 3)):
        answers = replay(stream(mapping(BASE, 3), {**seal, "flags": which}, fork, protect))
        assert len(answers.layouts[1]) == left
