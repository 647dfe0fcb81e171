"""Replay: whole streams, several address spaces, and the same answers however the stream is cut or answered."""

import numpy as np
import numpy.typing as npt
import pytest
from support.streams import mapping, stream

from benchframe.events import EVENT, NIL, UNKNOWN, Kind, MapType
from benchframe.oracle import Answers, Oracle, Replayer, replay, replayer

PAGE = 4096
BASE = 0x10000000
Events = npt.NDArray[np.void]


def random_stream(seed: int, rows: int) -> Events:
    """Mappings, stacks, guard regions and many faults, in one mm."""
    rng = np.random.default_rng(seed)
    parts = [stream({"kind": Kind.EXEC, "addr": NIL})]
    for number in range(rows // 400):
        at = BASE + int(rng.integers(0, 512)) * 16 * PAGE
        flags = 0x32 | (0x100 if rng.random() < 0.3 else 0)
        call = mapping(at, int(rng.integers(1, 16)), int(rng.choice([0, 1, 3, 3, 5])), flags)
        advice = {"kind": Kind.MADVISE, "addr": at, "len": PAGE, "flags": 102 + number % 2}
        parts.append(stream(call, *([advice] if rng.random() < 0.05 else [])))
        count = int(rng.integers(1, 800))
        faults = np.zeros(count, EVENT)
        faults["file"], faults["ret"] = NIL, UNKNOWN
        faults["kind"] = np.where(rng.random(count) < 0.8, Kind.FAULT, Kind.LOOKUP)
        faults["addr"] = BASE + rng.integers(0, 512 * 16 * PAGE, count)
        faults["prot"] = rng.choice([0, 1, 2, 4], count)
        parts.append(faults)
    return np.concatenate(parts)


def assert_same(one: Answers, other: Answers) -> None:
    """Every answer and every final layout."""
    for name in ("ret", "vm_start", "vm_end"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.layouts == other.layouts


@pytest.mark.parametrize("seed", range(6))
def test_runs_are_answered_as_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The searchsorted path gives what fault() and find_vma() give row by row, stack growth included."""
    events = random_stream(seed, 8000)
    monkeypatch.setattr(replayer, "_LONG", 1)
    monkeypatch.setattr(replayer, "_SHARE", 1 << 40)
    together = replay(events)
    monkeypatch.setattr(replayer, "_LONG", 1 << 40)
    assert_same(together, replay(events))
    grown = (events["kind"] == Kind.FAULT) & (together.vm_start <= events["addr"]) & (together.ret == 0)
    assert grown.sum() > 100


def test_the_answers_do_not_depend_on_where_a_stream_is_cut() -> None:
    """Fed in pieces, a stream gives the same answers: it can be read from disk bit by bit."""
    events = random_stream(7, 8000)
    whole = replay(events)
    feeder = Replayer()
    pieces = [feeder.feed(events[at : at + 997]) for at in range(0, len(events), 997)]
    np.testing.assert_array_equal(np.concatenate([piece.ret for piece in pieces]), whole.ret)
    np.testing.assert_array_equal(np.concatenate([piece.vm_start for piece in pieces]), whole.vm_start)
    assert pieces[-1].layouts == whole.layouts


def test_first_writes_decide_later_merges() -> None:
    """A written area moved beside another written one stays apart; an unwritten one merges."""
    apart = [mapping(BASE, 2), mapping(BASE + 2 * PAGE, 2, 1)]
    write = {"kind": Kind.FAULT, "addr": BASE, "prot": 2}
    equal = {"kind": Kind.MPROTECT, "addr": BASE + 2 * PAGE, "len": 2 * PAGE, "prot": 3}
    many = [write] * 40
    assert len(replay(stream(*apart, *many, equal)).layouts[0]) == 1
    moved = [mapping(BASE, 2), mapping(BASE + 64 * PAGE, 2)]
    other = {"kind": Kind.FAULT, "addr": BASE + 64 * PAGE, "prot": 2}
    move = {"kind": Kind.MREMAP, "addr": BASE + 64 * PAGE, "len": 2 * PAGE, "new_len": 2 * PAGE, "flags": 3}
    answers = replay(stream(*moved, *many, other, {**move, "offset": BASE + 2 * PAGE}))
    assert len(answers.layouts[0]) == 2
    assert len(replay(stream(*moved, *many, {**move, "offset": BASE + 2 * PAGE})).layouts[0]) == 1


def test_a_recorded_address_is_where_the_mapping_goes() -> None:
    """The kernel's choice is replayed, not searched for again."""
    where = 0x7F1234560000
    answers = replay(stream(mapping(0, 2, flags=0x22, ret=where)))
    assert answers.ret[0] == where
    assert answers.layouts[0][0][:2] == (where, where + 2 * PAGE)


def test_a_recorded_failure_leaves_no_mapping() -> None:
    """Where the kernel failed and the oracle would not, nothing is done and the recorded errno is the answer."""
    answers = replay(stream(mapping(BASE, 2, ret=-12), mapping(BASE + 16 * PAGE, 1)))
    assert answers.ret.tolist() == [-12, BASE + 16 * PAGE]
    assert len(answers.layouts[0]) == 1


def test_a_failure_keeps_its_effects() -> None:
    """mprotect over a hole fails in both, and the part before the hole is changed in both."""
    call = {"kind": Kind.MPROTECT, "addr": BASE, "len": 4 * PAGE, "prot": 1, "ret": -12}
    answers = replay(stream(mapping(BASE, 2), call))
    assert answers.ret[1] == -12
    assert answers.layouts[0] == [(BASE, BASE + 2 * PAGE, 1, 0, 0, NIL)]


def test_processes_live_and_end() -> None:
    """fork copies, a thread keeps its mm alive, the last exit ends it with its layout noted; exec starts anew."""
    events = stream(
        {"kind": Kind.EXEC, "addr": BASE, "task": 0},
        mapping(BASE + (1 << 20), 2),
        {"kind": Kind.THREAD, "len": 1},
        {"kind": Kind.FORK, "addr": 1, "len": 2},
        {"kind": Kind.MUNMAP, "addr": BASE + (1 << 20), "len": PAGE, "mm": 1, "task": 2},
        {"kind": Kind.EXIT, "task": 0},
        {"kind": Kind.FAULT, "addr": BASE + (1 << 20), "prot": 1, "task": 1},
        {"kind": Kind.FAULT, "addr": BASE + (1 << 20), "prot": 1, "task": 2, "mm": 1},
        {"kind": Kind.EXIT, "task": 1},
        {"kind": Kind.EXEC, "addr": NIL, "mm": 2, "task": 2},
        {"kind": Kind.BRK, "addr": 0, "ret": BASE, "mm": 2, "task": 2},
        {"kind": Kind.BRK, "addr": BASE + 5, "ret": BASE + 5, "mm": 2, "task": 2},
    )
    answers = replay(events)
    start = BASE + (1 << 20)
    assert answers.ret[6:8].tolist() == [0, -1]
    assert answers.vm_start[7] == start + PAGE
    assert [row[:2] for row in answers.layouts[0]] == [(start, start + 2 * PAGE)]
    assert [row[:2] for row in answers.layouts[1]] == [(start + PAGE, start + 2 * PAGE)]
    assert [row[:2] for row in answers.layouts[2]] == [(BASE, BASE + PAGE)]
    assert set(answers.spaces) == {1, 2}


def test_what_exec_maps() -> None:
    """A stack grows and is charged, a special mapping never merges, the heap sets the break."""
    top = 0x7FFFFFFFF000
    events = stream(
        {"kind": Kind.EXEC, "addr": NIL},
        {"kind": Kind.MAP, "addr": BASE, "len": PAGE, "prot": 5, "flags": 2, "file": 0},
        {"kind": Kind.MAP, "addr": BASE + PAGE, "len": PAGE, "prot": 5, "flags": 2, "file": 0, "offset": PAGE},
        {"kind": Kind.MAP, "addr": top - 3 * PAGE, "len": 3 * PAGE, "prot": 3, "flags": MapType.STACK},
        {"kind": Kind.MAP, "addr": BASE + (1 << 30), "len": PAGE, "prot": 1, "flags": MapType.SPECIAL},
        {"kind": Kind.FAULT, "addr": top - 9 * PAGE, "prot": 2},
    )
    answers = replay(events)
    assert answers.ret[-1] == 0
    assert answers.vm_start[-1] == top - 9 * PAGE
    space = answers.spaces[0]
    assert space.layout()[0] == (BASE, BASE + 2 * PAGE, 5, 0, 0, 0)
    assert "gd" in space.layout_flags()[-1].split()
    assert "ac" in space.layout_flags()[-1].split()


def test_faults_of_an_unchanged_layout_are_answered_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that does not change is searched with arrays: of 100,000 faults only the first write to a VMA, which
    prepares its anon_vma, is performed by itself."""
    rng = np.random.default_rng(0)
    setup = stream(*(mapping(BASE + number * 16 * PAGE, 8, 3 if number % 7 else 1) for number in range(1000)))
    faults = np.zeros(100_000, EVENT)
    faults["file"], faults["ret"], faults["kind"], faults["prot"] = NIL, UNKNOWN, Kind.FAULT, 2
    faults["addr"] = BASE + rng.integers(0, 1000 * 16 * PAGE, len(faults))
    alone: list[int] = []
    fault = Oracle.fault

    def counted(self: Oracle, addr: int, access: int) -> int:
        alone.append(addr)
        return fault(self, addr, access)

    monkeypatch.setattr(Oracle, "fault", counted)
    answers = replay(np.concatenate([setup, faults]))
    assert 0 < len(alone) <= 1000
    assert set(np.unique(answers.ret[1000:]).tolist()) == {0, -1, -2}


def test_only_event_arrays_are_replayed() -> None:
    """A plain array is refused by name of its type."""
    with pytest.raises(TypeError, match="int64"):
        replay(np.zeros(3, np.int64))  # type: ignore[arg-type]


def hostile_stream(seed: int, rows: int) -> Events:
    """Any kind with any number in any column, many of them just plausible enough to do something."""
    rng = np.random.default_rng(seed)
    events = np.zeros(rows, EVENT)
    pages = rng.integers(0, 64, (6, rows)) * PAGE
    near = rng.random((6, rows)) < 0.85
    edges = np.array([0, 1, PAGE - 1, 1 << 46, (1 << 47) - PAGE, 1 << 47, (1 << 63) - 1, -1, -PAGE, -(1 << 63)])
    for at, name in enumerate(("addr", "len", "offset", "new_len", "ret")):
        wild = rng.choice(edges, rows)
        events[name] = np.where(near[at], pages[at] + (BASE if name in ("addr", "offset", "ret") else 0), wild)
    events["ret"] = np.where(rng.random(rows) < 0.5, UNKNOWN, events["ret"])
    events["kind"] = rng.integers(1, 15, rows)
    events["mm"], events["task"] = rng.integers(0, 3, rows), rng.integers(0, 4, rows)
    events["prot"] = rng.choice([0, 1, 3, 5, 7, 8, -1, 1 << 24], rows)
    events["flags"] = rng.choice([0, 1, 3, 5, 7, 4, 0x22, 0x32, 0x21, 0x132, 2, 102, 103, 14, 23, -1, 1 << 24], rows)
    events["file"] = rng.choice([NIL, NIL, 0, 1, 1 << 30], rows)
    forks = events["kind"] == Kind.FORK
    events["addr"][forks] = rng.integers(0, 3, int(forks.sum()))
    return events


@pytest.mark.parametrize("seed", range(12))
def test_hostile_events_break_nothing(seed: int) -> None:
    """Whatever a stream says, every answer is a number and every list of areas stays sorted and disjoint."""
    answers = replay(hostile_stream(seed, 1500))
    for space in answers.spaces.values():
        space.validate()
        for row in space.layout():
            assert 0 <= row[0] < row[1] <= space.limits.task_size
