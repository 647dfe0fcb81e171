"""Calls that a trace cannot hold: each is named with its place, and blamed for what it can explain and nothing else."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import mapping, stream
from test_builder import IMAGE, area, built, call

from benchframe.engine.session import Session
from benchframe.events import FaultFlag, Kind
from benchframe.oracle import replay
from benchframe.record import records as R
from benchframe.record.procfs import Maps
from benchframe.record.records import Rec, decided_by_driver
from benchframe.trace.meta import BORDERS, MAPPINGS, Snapshot, TraceMeta, Unplayed, meta_from_json, meta_to_json
from benchframe.trace.trace import REPORT, Trace, read_trace, write_trace
from benchframe.trace.verify import clusters, same_memory, verify

PAGE = 4096
BASE = 0x7F0000000000
EXEC = {"kind": Kind.EXEC, "addr": -1}


def trace_of(*rows: dict[str, Any], areas: list[tuple[int, int, int]], unplayed: tuple[Unplayed, ...] = ()) -> Trace:
    """A trace at whose end the kernel showed ``areas`` (first page, end page, prot) above BASE."""
    events = stream(EXEC, *rows)
    shown = tuple((BASE + a * PAGE, BASE + b * PAGE, prot, 0, 0, -1) for a, b, prot in areas)
    return Trace(events, meta=TraceMeta(snapshots=(Snapshot(0, len(events), "exit", shown),), unplayed=unplayed))


def test_a_seal_explains_borders_where_it_was() -> None:
    """Memory of one protection cut up otherwise, touching the sealed range: named, and the trace holds."""
    seal = Unplayed("mseal", 0, 2, BASE + 4 * PAGE, BASE + 6 * PAGE, BORDERS)
    cut = [(0, 4, 3), (4, 6, 3), (6, 16, 3)]
    verdict = verify(trace_of(mapping(BASE, 16), areas=cut, unplayed=(seal,)))
    assert (verdict.good, verdict.snapshots_differ, dict(verdict.explained)) == (True, 0, {"mseal": 1})
    assert "mseal, not replayed, may explain it" in verdict.lines[0]
    assert not verify(trace_of(mapping(BASE, 16), areas=cut)).good


def test_it_explains_nothing_else() -> None:
    """Not another right, not another place, not what came before, not a missing area, not another address space."""
    seal = Unplayed("mseal", 0, 2, BASE + 4 * PAGE, BASE + 6 * PAGE, BORDERS)
    rows = (mapping(BASE, 16), mapping(BASE + 100 * PAGE, 4))
    whole = [(0, 16, 3), (100, 104, 3)]
    for areas in ([(0, 4, 3), (4, 6, 1), (6, 16, 3), whole[1]], [whole[0], (100, 102, 3), (102, 104, 3)], whole[:1]):
        verdict = verify(trace_of(*rows, areas=areas, unplayed=(seal,)))
        assert (verdict.good, verdict.snapshots_differ, dict(verdict.explained)) == (False, 1, {})
    cut = [(0, 4, 3), (4, 16, 3), whole[1]]
    assert verify(trace_of(*rows, areas=cut, unplayed=(seal,))).good
    for other in (replace(seal, row=9), replace(seal, mm=1)):
        assert not verify(trace_of(*rows, areas=cut, unplayed=(other,))).good


def test_one_difference_of_two_is_explained() -> None:
    """Each place is judged alone: one explained, one not, and the line shows the one that is not."""
    seal = Unplayed("mseal", 0, 2, BASE + 4 * PAGE, BASE + 6 * PAGE, BORDERS)
    rows = (mapping(BASE, 16), mapping(BASE + 100 * PAGE, 4))
    areas = [(0, 4, 3), (4, 16, 3), (100, 102, 3), (102, 104, 3)]
    verdict = verify(trace_of(*rows, areas=areas, unplayed=(seal,)))
    assert (verdict.good, verdict.snapshots_differ, verdict.explained["mseal"]) == (False, 1, 1)
    assert f"{BASE + 100 * PAGE:x}" in verdict.lines[-1]


def test_mappings_explain_what_is_missing() -> None:
    """A mapping that nobody could record: an area of the kernel's alone, faults in it, and calls on it."""
    mark = Unplayed("map_shadow_stack", 0, 1, BASE, BASE + 4 * PAGE, MAPPINGS)
    rows = (
        {"kind": Kind.FAULT, "addr": BASE, "prot": 2, "flags": 1},
        {"kind": Kind.MPROTECT, "addr": BASE, "len": PAGE, "prot": 1, "ret": 0},
    )
    verdict = verify(trace_of(*rows, areas=[(0, 4, 3)], unplayed=(mark,)))
    assert (verdict.good, verdict.explained["map_shadow_stack"]) == (True, 3)
    bare = verify(trace_of(*rows, areas=[(0, 4, 3)], unplayed=(replace(mark, sort=BORDERS),)))
    assert (bare.faults_outside, bare.calls_differ, bare.snapshots_differ) == (1, 1, 1)


def test_marks_go_where_the_memory_goes() -> None:
    """mremap takes a mark along, munmap and a new mapping end it, a child inherits it."""
    mark = Unplayed("mbind", 0, 2, BASE, BASE + 4 * PAGE, BORDERS)
    move = {"kind": Kind.MREMAP, "addr": BASE, "len": 4 * PAGE, "new_len": 4 * PAGE, "flags": 3}
    move |= {"offset": BASE + 50 * PAGE, "ret": BASE + 50 * PAGE}
    cut = [(50, 52, 3), (52, 54, 3)]
    assert verify(trace_of(mapping(BASE, 4), move, areas=cut, unplayed=(mark,))).good
    again = mapping(BASE + 50 * PAGE, 4, ret=BASE + 50 * PAGE)
    assert not verify(trace_of(mapping(BASE, 4), move, again, areas=cut, unplayed=(mark,))).good
    gone = {"kind": Kind.MUNMAP, "addr": BASE, "len": 4 * PAGE, "ret": 0}
    back = mapping(BASE, 4, ret=BASE)
    assert not verify(trace_of(mapping(BASE, 4), gone, back, areas=[(0, 2, 3), (2, 4, 3)], unplayed=(mark,))).good
    fork = {"kind": Kind.FORK, "addr": 1, "len": 1}
    child = trace_of(mapping(BASE, 4), fork, areas=[(0, 2, 3), (2, 4, 3)], unplayed=(mark,))
    child.meta = replace(child.meta, snapshots=(replace(child.meta.snapshots[0], mm=1),))
    assert verify(child).good


def test_a_report_is_explained_likewise() -> None:
    """What the kernel reported after a call is one more difference that may touch a mark."""
    mark = Unplayed("mbind", 0, 2, BASE + 4 * PAGE, BASE + 6 * PAGE, BORDERS)
    protect = {"kind": Kind.MPROTECT, "addr": BASE, "len": PAGE, "prot": 3, "ret": 0}
    trace = trace_of(mapping(BASE, 16), protect, areas=[(0, 4, 3), (4, 16, 3)], unplayed=(mark,))
    trace.reports = np.array([(2, BASE, BASE + 4 * PAGE)], REPORT)
    verdict = verify(trace)
    assert (verdict.good, verdict.reports, verdict.explained["mbind"]) == (True, 1, 2)
    trace.meta = replace(trace.meta, unplayed=())
    assert verify(trace).reports_differ == 1


def test_a_fault_in_kernel_mode_may_fail() -> None:
    """write(1, NULL, 10) faults in the kernel and ends in EFAULT: counted, no failure. In user mode it is one."""
    fault = {"kind": Kind.FAULT, "addr": 0, "prot": 1, "flags": 0}
    verdict = verify(trace_of(fault, areas=[]))
    assert (verdict.good, verdict.faults_refused, verdict.faults_outside) == (True, 1, 0)
    assert not verify(trace_of({**fault, "flags": int(FaultFlag.USER)}, areas=[])).good


rows = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.sampled_from([1, 3])), max_size=6)


@given(rows, rows)
def test_clusters_are_disjoint_and_complete(one: list[tuple[int, int, int]], other: list[tuple[int, int, int]]) -> None:
    """Every differing area is in one group, groups do not overlap, and equal layouts have none."""

    def layout(told: list[tuple[int, int, int]]) -> list[tuple[int, int, int, int, int, int]]:
        out, end = [], 0
        for hole, pages, prot in told:
            out.append((end + hole, end + hole + pages, prot, 0, 0, -1))
            end += hole + pages
        return out

    ours, theirs = layout(one), layout(other)
    groups = clusters(ours, theirs)
    assert sorted(a for mine, others in groups for a in mine + others) == sorted(
        [a for a in ours if a not in theirs] + [a for a in theirs if a not in ours]
    )
    spans = [(min(a[0] for a in m + o), max(a[1] for a in m + o)) for m, o in groups]
    assert all(low[1] <= high[0] for low, high in pairwise(spans))
    assert not clusters(ours, ours)
    assert all(same_memory(mine, mine) for mine, _ in groups)


def test_what_a_recording_names() -> None:
    """Harmless calls are not named; the others with their range, in their address space, before the next event."""
    recs = [
        *call("prctl", 10, 300, 310, 0, 15, BASE),
        *call("arch_prctl", 10, 312, 314, 0, 0x1002, BASE),
        *call("mbind", 10, 320, 330, 0, BASE, 3 * PAGE, 2),
        *call("prctl", 10, 340, 350, 0, 0x53564D41, 0, BASE, PAGE),
        *call("mlockall", 10, 360, 370, 0, 1),
        *call("mseal", 10, 380, 390, -1, BASE, PAGE),
        *call("mseal", 10, 392, 394, 0, BASE, PAGE),
    ]
    trace = built(*recs, *call("brk", 10, 400, 410, 0x600000, 0))
    assert [(u.name, u.start, u.end, u.sort) for u in trace.meta.unplayed] == [
        ("mbind", BASE, BASE + 3 * PAGE, BORDERS),
        ("prctl(PR_SET_VMA)", BASE, BASE + PAGE, BORDERS),
        ("mlockall", 0, 0, BORDERS),
    ]
    assert [u.row - trace.setup for u in trace.meta.unplayed] == [1, 2, 2]
    made = trace.events[trace.events["kind"] == Kind.ATTR]
    assert [(int(e["flags"]), int(e["prot"])) for e in made] == [(3, 2), (4, 0), (1, 1)]
    names = ("mlockall",)
    assert trace.meta.notes == tuple(f"not replayed: 1 x {name}" for name in names)


def test_shared_memory_is_replayed() -> None:
    """shmat and io_setup are mappings of their own, as the kernel reported them; shmdt and io_destroy unmap them."""
    at, ring = BASE + 64 * PAGE, BASE + 128 * PAGE
    recs = [
        *call("shmat", 10, 300, 320, at, 5, 0, 0),
        area(310, 10, at, at + 3 * PAGE, "/SYSV00000000 (deleted)"),
        *call("io_setup", 10, 330, 350, 0, 128, BASE),
        area(340, 10, ring, ring + PAGE, "/[aio] (deleted)"),
    ]
    held = replay(built(*recs).events).layouts[0]
    assert [row[:4] for row in held if row[0] in (at, ring)] == [(at, at + 3 * PAGE, 3, 1), (ring, ring + PAGE, 3, 1)]
    recs += [*call("shmdt", 10, 400, 410, 0, at), *call("io_destroy", 10, 420, 430, 0, ring)]
    assert not [row for row in replay(built(*recs).events).layouts[0] if row[0] in (at, ring)]


def test_huge_pages_are_whole() -> None:
    """MAP_HUGETLB of 5 MiB is 6 MiB of a file of its own; two of them stay apart."""
    size = 5 << 20
    recs = call("mmap", 10, 300, 310, BASE, 0, size, 3, 0x40022, 2**64 - 1, 0)
    recs += call("mmap", 10, 320, 330, BASE + (6 << 20), 0, size, 3, 0x40022, 2**64 - 1, 0)
    trace = built(*recs)
    layout = [row[:2] for row in replay(trace.events).layouts[0] if row[0] >= BASE and row[1] < 0x7FF000000000]
    assert layout == [(BASE, BASE + (6 << 20)), (BASE + (6 << 20), BASE + (12 << 20))]
    assert {u.name for u in trace.meta.unplayed} == {"mmap(MAP_HUGETLB)"}


def test_readable_is_executable() -> None:
    """Under READ_IMPLIES_EXEC a readable mapping is executable, but for a file that the kernel reports otherwise."""
    recs = call("personality", 10, 300, 310, 0, 0x0400000)
    recs += call("mmap", 10, 320, 330, BASE, 0, PAGE, 1, 0x22, 2**64 - 1, 0)
    recs += call("mprotect", 10, 340, 350, 0, BASE, PAGE, 3)
    noexec = Rec(365, R.AREA, 10, (BASE + PAGE, BASE + 2 * PAGE, 0, 1, 2, (8, 1, 5), "/noexec/file"))
    recs += [*call("mmap", 10, 360, 370, BASE + PAGE, 0, PAGE, 1, 2, 3, 0), noexec]
    trace = built(*recs)
    assert trace.events["prot"][trace.setup :].tolist() == [5, 7, 1]
    assert not trace.meta.unplayed


def test_the_heap_of_an_executable_program() -> None:
    """brk under READ_IMPLIES_EXEC, which an i386 program has from its exec on, gives executable memory: in children
    too, and back to plain memory when it is switched off."""
    start = IMAGE[1].end
    now = Maps(150, 10, "exec", [*IMAGE[:1], *IMAGE[2:]], start, personality=0x0400000)
    recs = [*call("brk", 10, 300, 310, start + 3 * PAGE, start + 3 * PAGE), Rec(320, R.NEW, 10, (11, 0))]
    recs += call("brk", 11, 330, 340, start + 4 * PAGE, start + 4 * PAGE)
    recs += call("brk", 10, 350, 360, start + PAGE + 5, start + PAGE + 5)
    recs += call("personality", 10, 370, 375, 0x0400000, 0)
    recs += call("brk", 10, 380, 390, start + 5 * PAGE, start + 5 * PAGE)
    trace = built(*recs, maps=[now])
    heaps = [
        [area[:3] for area in layout if start <= area[0] < BASE] for layout in replay(trace.events).layouts.values()
    ]
    assert heaps == [
        [(start, start + 2 * PAGE, 7), (start + 2 * PAGE, start + 5 * PAGE, 3)],
        [(start, start + 4 * PAGE, 7)],
    ]
    now = replace(now, personality=0)
    assert {row[2] for row in replay(built(*recs[:2], maps=[now]).events).layouts[0] if row[0] == start} == {3}


@pytest.mark.parametrize(
    ("name", "driver"),
    [("/dev/dri/card0", True), ("anon_inode:[perf_event]", True), ("/dev/shm/x", False), ("/lib/x.so", False)],
)
def test_whose_flags_a_driver_decides(name: str, driver: bool) -> None:
    """A device's VMAs may be special; tmpfs below /dev and files are not."""
    assert decided_by_driver(name) is driver


def deep(limit: int, *more: Rec) -> Trace:
    """A program whose stack reaches 20 MiB below its image, recorded under a limit of 8 MiB; seen ``limit`` at exit."""
    top = IMAGE[-1].start
    maps = [
        Maps(150, 10, "exec", IMAGE, 0x600000, 0, stack_limit=8 << 20),
        Maps(900, 10, "exit", IMAGE, 0x600000, 0, stack_limit=limit),
    ]
    faults = [Rec(500 + i, R.FAULT, 10, (top - (i << 20), 6, True)) for i in range(21)]
    trace = built(*more, *faults, maps=maps)
    trace.meta = replace(trace.meta, snapshots=trace.meta.snapshots[:1])
    return trace


def test_the_stack_limit_is_the_programs_own() -> None:
    """setrlimit and prlimit64 of RLIMIT_STACK count from then on, with the value that /proc shows at the next stop."""
    assert verify(deep(8 << 20)).faults_outside == 13
    for name, args in (("setrlimit", (3, BASE)), ("prlimit64", (0, 3, BASE, 0)), ("prlimit64", (10, 3, BASE, 0))):
        trace = deep(64 << 20, *call(name, 10, 300, 310, 0, *args))
        assert trace.events["len"][trace.events["kind"] == Kind.RLIMIT].tolist() == [64 << 20]
        assert verify(trace).good
    for name, args in (("setrlimit", (4, BASE)), ("prlimit64", (99, 3, BASE, 0)), ("prlimit64", (0, 3, 0, BASE))):
        assert not verify(deep(64 << 20, *call(name, 10, 300, 310, 0, *args))).good


def test_an_exec_under_another_limit() -> None:
    """The first program's limit is the trace's; a later exec under another one says so, and its fork inherits it."""
    later = Maps(460, 10, "exec", IMAGE, 0x600000, 0, stack_limit=1 << 47)
    first = Maps(150, 10, "exec", IMAGE, 0x600000, 0, stack_limit=1 << 20)
    recs = [Rec(450, R.EXEC, 10, (10,)), Rec(470, R.LEAVE, 10, (59, 0)), Rec(480, R.NEW, 10, (11, 0))]
    recs += [Rec(500, R.FAULT, 11, (IMAGE[-1].start - (30 << 20), 6, True))]
    trace = built(*recs, maps=[first, later])
    assert trace.meta.limits["stack"] == 1 << 20
    assert replay(trace.events).ret[-1] == 0
    assert verify(trace).faults_outside == 0


def test_engines_follow_the_limit() -> None:
    """A compiled strategy gives the oracle's answers before and after a limit changes, and an exec begins anew."""
    from support.space import strategy

    top = 0x7FFFFFFFF000
    stack = {"kind": Kind.MAP, "addr": top - 4 * PAGE, "len": 4 * PAGE, "prot": 3, "flags": 1 << 24}
    fault = {"kind": Kind.FAULT, "addr": top - (20 << 20), "prot": 2, "flags": 1}
    raised = {"kind": Kind.RLIMIT, "len": 64 << 20, "ret": 0}
    fork, child = {"kind": Kind.FORK, "addr": 1, "len": 1}, {**fault, "mm": 1, "task": 1}
    again = [{**row, "mm": 2} for row in (EXEC, stack, fault)]
    events = stream(EXEC, stack, fault, raised, fault, fork, child, *again)
    trace = Trace(events)
    assert replay(events).ret[[2, 4, 6, 9]].tolist() == [-1, 0, 0, -1]
    assert Session(strategy("rbtree"), trace).verify().ok


def test_unplayed_calls_travel_with_the_file(tmp_path: Path) -> None:
    """Written and read again they are the same; forged ones are refused."""
    trace = trace_of(
        mapping(BASE, 4), areas=[(0, 4, 3)], unplayed=(Unplayed("mseal", 0, 1, BASE, BASE + PAGE, BORDERS),)
    )
    write_trace(tmp_path / "t.parquet", trace)
    assert read_trace(tmp_path / "t.parquet").meta.unplayed == trace.meta.unplayed
    text = meta_to_json(trace.meta)
    for bad in (["x", 0, 0, 0, 0, 7], ["x", 0, 0, 1 << 60, 0, 1], ["x", -1, 0, 0, 0, 1], ["x"]):
        with pytest.raises(ValueError, match="unplayed"):
            meta_from_json(text.replace('["mseal",0,1,', f"{bad},".replace("'", '"') + '["mseal",0,1,'))
