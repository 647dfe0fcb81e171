"""`benchframe host`: a trace becomes a program that stays in its arena, and the running kernel performs it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.space import runner
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.errors import UsageError
from benchframe.events import EVENT, NIL, Kind
from benchframe.host.measure import (
    FAULTS,
    MAPPINGS,
    Counted,
    HostError,
    HostTimes,
    Row,
    counted_json,
    fork_table,
    host_table,
    kernels_table,
    measure,
    measure_forks,
    prepared,
    read_counted,
    rows_of,
    unsupported,
)
from benchframe.host.program import (
    ARENA,
    CALL,
    READ,
    ROOM,
    WRITE,
    machine_code,
    make_program,
    read_program,
    write_program,
)
from benchframe.judge.child import BRK as BRK_CALL
from benchframe.judge.child import SYSCALL
from benchframe.registry import load
from benchframe.report.table import render
from benchframe.trace.trace import Trace

pytestmark = pytest.mark.skipif(bool(unsupported()), reason=unsupported() or "supported")
PAGE = 4096
AT = 0x7F0000000000 + 5 * PAGE
ANONYMOUS, RW = 0x22, 3


def trace_of(rows: Sequence[dict[str, int]]) -> Trace:
    """A trace of one task from the fields that matter."""
    events = np.zeros(len(rows) + 1, EVENT)
    events["file"], events["addr"][0] = NIL, NIL
    for event, row in zip(events[1:], rows, strict=True):
        for name, value in row.items():
            event[name] = value
    trace = Trace(events, setup=1)
    trace.check()
    return trace


def mmap(addr: int, pages: int, prot: int = RW, flags: int = ANONYMOUS) -> dict[str, int]:
    """An mmap that returned ``addr``."""
    return {"kind": Kind.MMAP, "len": pages * PAGE, "prot": prot, "flags": flags, "ret": addr}


def touch(addr: int, access: int = 2) -> dict[str, int]:
    """A fault."""
    return {"kind": Kind.FAULT, "addr": addr, "prot": access, "flags": 1}


def test_each_row_says_what_happened() -> None:
    """Faults are those that the kernel counts, a second touch is none, one outside every VMA ends in a signal, and a
    call that the recorded program did with another result is named."""
    calls = [
        mmap(AT, 3),
        {"kind": Kind.MPROTECT, "addr": AT + 2 * PAGE, "len": PAGE, "prot": 1},
        {"kind": Kind.MUNMAP, "addr": AT + PAGE, "len": PAGE},
        mmap(AT + 2 * PAGE, 1),  # something is there: it cannot have succeeded without MAP_FIXED
    ]
    touches = [touch(AT), touch(AT), touch(AT + 2 * PAGE, 1), touch(AT + 2 * PAGE), touch(AT + PAGE, 1)]
    times = measure(make_program(trace_of([*calls, *touches])), rounds=2)
    fault = times.row(FAULTS)
    assert fault is not None
    assert (fault.events, times.silent, times.signals) == (2, 1, 2)
    assert dict(times.differ) == {"mmap: EEXIST": 1}
    assert [(row.name, row.events) for row in times.rows if row.name in ("mmap", "munmap", "mprotect")] == [
        ("mmap", 1), ("munmap", 1), ("mprotect", 1)
    ]  # fmt: skip
    assert all(len(row.rounds) == 2 and min(row.rounds) > 0 for row in times.rows)


@pytest.mark.parametrize("name", ["python-json", "sqlite-index"])
def test_a_recorded_program_runs_as_it_did(name: str) -> None:
    """Break, stack, files and moved mappings: no call of a shipped trace ends otherwise, and faults are faults."""
    program = make_program(load([]).spec(name).trace(0))
    times = measure(program, rounds=1)
    fault, mapping = times.row(FAULTS), times.row(MAPPINGS)
    assert fault is not None
    assert mapping is not None
    assert not times.differ
    assert times.signals == 0
    assert fault.events + times.silent == int((program.kind == Kind.FAULT).sum())
    assert fault.events > 0.9 * (fault.events + times.silent)
    assert program.brk is not None


_EVENT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([k for k in Kind if k not in (Kind.EXEC, Kind.FORK, Kind.THREAD, Kind.EXIT)]),
        "addr": st.one_of(st.integers(0, 1 << 20), st.integers(0, (1 << 47) - 1), st.just(AT)).map(lambda a: a & -PAGE),
        "len": st.one_of(st.integers(0, 1 << 24), st.integers(0, 1 << 47)),
        "new_len": st.one_of(st.integers(0, 1 << 24), st.integers(0, 1 << 47)),
        "ret": st.one_of(st.sampled_from((0, AT)), st.integers(-4095, -1), st.integers(0, 1 << 35).map(PAGE.__mul__)),
        "offset": st.integers(-(1 << 63), (1 << 63) - 1),
        "prot": st.integers(-(1 << 31), (1 << 31) - 1),
        "flags": st.one_of(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 127)),
    }
)  # fmt: skip


@given(st.lists(_EVENT, min_size=1, max_size=40))
def test_no_trace_leaves_the_arena(rows: list[dict[str, int]]) -> None:
    """Whatever a trace file says, addresses, lengths and targets of all rows lie in the arena, or it is refused."""
    events = np.zeros(len(rows) + 1, EVENT)
    events["file"], events["addr"][0] = NIL, NIL
    for event, row in zip(events[1:], rows, strict=True):
        for key, value in row.items():
            event[key] = value
    try:
        program = make_program(Trace(events, setup=1), most=1 << 10)
    except UsageError:  # too many GiB of addresses
        return
    for code, number, a, b, c, d, e, _ in program.ops.tolist():
        if code in (READ, WRITE):
            assert ARENA <= number < ARENA + ROOM
        elif code == CALL and number == SYSCALL[BRK_CALL]:
            assert a == 0 or ARENA <= a < ARENA + ROOM
        elif code == CALL:
            reach = max(b, c) if number == 25 else b
            assert ARENA <= a <= a + reach <= ARENA + ROOM
            assert number != 25 or d in (0, 3, 7)  # an mremap stays, or goes where it is told
            assert number != 25 or not d or ARENA <= e <= e + c <= ARENA + ROOM
            assert number != 9 or d & 0x100010  # an mmap always says where


def test_no_page_is_poisoned() -> None:
    """Advice that the oracle does not know, such as MADV_HWPOISON, is not performed, nor what makes huge pages."""
    advice = [{"kind": Kind.MADVISE, "addr": AT, "len": PAGE, "flags": number} for number in (4, 25, 100, 101)]
    program = make_program(trace_of([mmap(AT, 1), *advice]))
    assert program.ops[2:, 0].tolist() == [CALL, 0, 0, 0]
    assert program.omitted["advice that is unknown, or that makes huge pages"] == 3


def test_distances_within_a_stretch_are_kept() -> None:
    """Two mappings 5 GiB apart in one reserved stretch stay so; another far away moves near, its offset in its GiB
    kept."""
    far = 0x100000 * PAGE
    whole = 6 << 30
    program = make_program(trace_of([mmap(AT, whole // PAGE, 0), touch(AT + whole - PAGE), mmap(far + PAGE, 1)]))
    first, last, other = (int(row[2] if row[0] == CALL else row[1]) for row in program.ops[1:])
    assert last - first == whole - PAGE
    assert (first - AT) % (1 << 30) == (other - far - PAGE) % (1 << 30) == 0
    assert first - other < 8 << 30  # order and a gap, not 127 TiB
    assert other < first


def test_memory_is_bounded() -> None:
    """Touches, populated mappings and locks count; the trace is cut there, and the program says why."""
    rows = [mmap(AT, 1 << 20), *(touch(AT + n * PAGE) for n in range(5000))]
    program = make_program(trace_of(rows), memory=16 << 20)
    assert 1000 < len(program.ops) < 2100
    assert "could need more than 16 MiB" in program.cut
    locked = [mmap(AT, 1 << 20, RW, ANONYMOUS | 0x8000), touch(AT)]
    assert len(make_program(trace_of(locked), memory=16 << 20).ops) == 1
    assert "more than 2 events" in make_program(trace_of(rows), most=2).cut


def test_the_loops_are_bytes() -> None:
    """Three functions without relocations (the compiler asserts it), which end in a return."""
    code = machine_code()
    assert set(code) == {"run", "trap", "forks"}
    assert all(50 < len(text) < 4096 for text in code.values())


def _times(*rows: Row) -> HostTimes:
    return HostTimes(list(rows), 30.0, 150.0, 0.0, len(rows[0].rounds), 77, 1, 100, 3, 2)


def test_the_sentence_compares_lookup_and_fault() -> None:
    """8 ns of 800 ns are 1 %, and the reasons for what was not performed are told."""
    times = _times(Row(FAULTS, 10, (790.0, 810.0, 800.0), 800.0, 900.0))
    times.differ["mmap: ENOMEM"] = 4
    program = make_program(trace_of([mmap(AT, 1), {"kind": Kind.LOOKUP, "addr": AT}]))
    model = {
        "linux-6.15": {"lookup": {0: 8.0, 1: 8.0}, "fault": {0: 60.0, 1: 62.0}},
        "rbtree": {"lookup": {0: 6.0, 1: 6.0}, "fault": {0: 58.0, 1: 58.0}},
    }
    text = render(host_table(times, program, model, "6.18", "toy"), "text")
    whole = "of a page fault of 800.0 ± 10.0 ns on this kernel (n = 3)"
    assert f"A lookup is 8.00 ± 0.00 ns (linux-6.15 in the model, n = 2) {whole}" in text
    assert "the best strategy can save 1 % [" in text
    assert "A lookup by rbtree takes 2.00 ns less than by linux-6.15: 0.25 % of a fault." in text
    assert "Not performed: 1 lookups outside of a fault." in text
    assert "Calls that ended otherwise than recorded: 4 mmap: ENOMEM." in text
    assert "61.0 ± 1.41" in text


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command_prints_kernel_and_model() -> None:
    """A table as JSON: the kernel's figures, and the model's where it has one."""
    runner("rbtree", "native")
    code, text = call("host", "-w", "mmap-churn:vmas=20,events=200", "-s", "rbtree", "--rounds", "2", "-f", "json")
    assert code == 0, text
    rows = {row["event"]: row for row in json.loads(text)["rows"]}
    assert rows[FAULTS]["mean"] > 0 < rows[FAULTS]["rbtree"]
    assert rows["munmap"]["rbtree"] is None
    assert rows[MAPPINGS]["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["host"], "name one workload"),
        (["host", "-w", "zipf", "-t", "x.parquet"], "name one workload"),
        (["host", "-w", "zipf", "--fork"], "--fork makes VMAs of its own"),
        (["host", "-w", "zipf", "-f", "mail"], "no mail format"),
        (["host", "-w", "zipf", "-s", "rbtre"], "did you mean rbtree?"),
    ],
)
def test_bad_usage_is_told_in_a_line(arguments: list[str], words: str) -> None:
    """Exit code 2, and what to do."""
    code, text = call(*arguments)
    assert code == 2
    assert words in text


def test_fork_and_exit_by_the_number_of_vmas() -> None:
    """A row for each number, untouched and written; the program makes as many VMAs as it says."""
    times = measure_forks((0, 200), rounds=2)
    assert [(row.vmas, row.written) for row in times.rows] == [(0, False), (200, False), (200, True)]
    assert all(len(row.fork) == len(row.exit) == 2 and min(*row.fork, *row.exit) > 0 for row in times.rows)
    assert [len(row.fork_each) for row in times.rows] == [0, 2, 2]
    with prepared(rows_of(200, True), []) as run:
        one = run(None, True, -1, 0)
    assert one.answer["total"] - one.answer["areas"] >= 200
    assert (one.out[-200:, 2] == 1).all()  # each write is one page fault
    table = fork_table(times, "6.18")
    assert [row[0] for row in table.rows] == ["0", "200", "200"]
    assert "shortest of 15 forks" in render(table, "text")


def test_what_cannot_be_forked_is_refused() -> None:
    """The first row is what others are compared with."""
    with pytest.raises(ValueError, match="must be 0"):
        measure_forks((10,), rounds=1)


# ---- other kernels -------------------------------------------------------------------------------------------------


def test_kernels_are_compared_with_their_presets() -> None:
    """Two kernels and two presets: for each pair whether the order is the same, if the presets' processes decide it."""
    found = [
        Counted("6.1.192", {FAULTS: (9, 2000.0, 1.0), MAPPINGS: (4, 5000.0, 0.0)}, 300.0),
        Counted("6.12.117", {FAULTS: (9, 3000.0, 1.0), MAPPINGS: (4, 6000.0, 0.0)}, 310.0),
    ]
    figures = {
        "linux-6.1": {
            "fault": {at: 40.0 + at % 2 for at in range(8)},
            "mapping": {at: 400.0 + at % 2 for at in range(8)},
        },
        "linux-6.12": {
            "fault": {at: 60.25 + at % 2 for at in range(8)},
            "mapping": {at: 300.0 + at % 2 for at in range(8)},
        },
    }
    program = make_program(trace_of([mmap(AT, 2), touch(AT)]))
    text = render(kernels_table(found, program, figures, list(figures), "w"), "text")
    fault = "page fault: Linux 6.12.117 executes 1.50 times the instructions of 6.1.192; linux-6.12 takes 1.50 times"
    words = " ".join(text.split())
    assert f"{fault} the time of linux-6.1: the same order." in words
    assert "linux-6.12 takes 0.75 times the time of linux-6.1: NOT the same order." in words
    figures["linux-6.12"]["mapping"] = {0: 300.0, 1: 550.0}
    noisy = " ".join(render(kernels_table(found, program, figures, list(figures), "w"), "text").split())
    assert "so no order." in noisy.split("mapping call: Linux")[1]
    alone = render(kernels_table(found, program, {}, [], "w"), "text")
    assert "order" not in alone
    assert "2,000 ± 1" in alone


def test_what_a_guest_leaves_is_read(tmp_path: Path) -> None:
    """Instructions are written and read back; anything else is an error of one line."""
    program = make_program(trace_of([mmap(AT, 2), touch(AT), touch(AT + PAGE)]))
    packed = tmp_path / "program.npz"
    write_program(packed, program)
    times = measure(read_program(packed), 2, icount=True)
    path = tmp_path / "counted.json"
    path.write_text(counted_json(times, "6.1.192"))
    read = read_counted(path)
    assert read.rows[FAULTS][0] == 2
    assert read.rows[FAULTS][1] > read.null > 0
    for text in ("good", "[]", '{"kernel": "6.1", "rows": {"a": 1}, "null": 1, "notes": []}'):
        path.write_text(text)
        with pytest.raises(HostError, match="the virtual machine left no figures"):
            read_counted(path)
