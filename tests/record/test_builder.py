"""From records to events: the order of racing threads, identities of tasks and address spaces, and odd arguments."""

import struct
from pathlib import Path

import pytest

from benchframe.events import NIL, FaultFlag, Kind, MapType
from benchframe.record import records as R
from benchframe.record.builder import Builder, load_segments
from benchframe.record.perf import parse_format
from benchframe.record.procfs import Maps, MapsRow, parse_maps
from benchframe.record.recording import GUESSED
from benchframe.record.records import NR, Rec
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace
from benchframe.trace.verify import verify

BASE = 0x7F0000000000
IMAGE = [
    MapsRow(0x400000, 0x401000, 5, False, 0, "fe:00", 7, "/usr/bin/program"),
    MapsRow(0x600000, 0x621000, 3, False, 0, "00:00", 0, "[heap]"),
    MapsRow(0x7FFD00000000, 0x7FFD00021000, 3, False, 0, "00:00", 0, "[stack]"),
]
START = [Rec(100, R.EXEC, 10, (10,)), Rec(200, R.LEAVE, 10, (NR["execve"], 0))]


def built(*recs: Rec, maps: list[Maps] | None = None, calls: bool = True) -> Trace:
    """Records after a first exec, as a trace that passes the checks."""
    builder = Builder([Maps(150, 10, "exec", IMAGE, 0x600000)] if maps is None else maps, calls)
    for rec in sorted([*START, *recs], key=lambda rec: rec.time):
        builder.add(rec)
    trace = builder.trace(TraceMeta())
    trace.check()
    return trace


def call(name: str, tid: int, enter: int, leave: int, ret: int, *args: int) -> list[Rec]:
    """A system call: its entry and its exit."""
    padded = (*args, *([0] * (6 - len(args))))
    return [Rec(enter, R.ENTER, tid, (NR[name], padded)), Rec(leave, R.LEAVE, tid, (NR[name], ret))]


def area(time: int, tid: int, start: int, end: int, name: str = "//anon") -> Rec:
    """A VMA report."""
    return Rec(time, R.AREA, tid, (start, end, 0, 3, 2, (0, 0, 0), name))


def kinds(trace: Trace) -> list[str]:
    """Names of the events after the layout."""
    return [Kind(k).name for k in trace.events["kind"][trace.setup :]]


ANON = (0, 0x3000, 3, 0x22, 2**64 - 1, 0)


def test_exec_builds_the_layout() -> None:
    """An exec becomes EXEC and one MAP per area, with the types that the names tell; the snapshot is held too."""
    trace = built()
    assert [Kind(k).name for k in trace.events["kind"]] == ["EXEC", "MAP", "MAP", "MAP"]
    assert trace.setup == 4
    assert trace.events["addr"][0] == 0x600000
    assert trace.events["flags"].tolist()[1:] == [2, 2 | MapType.HEAP, 2 | MapType.STACK]
    assert trace.events["file"].tolist() == [NIL, 0, NIL, NIL]
    assert trace.meta.files[0].name == "/usr/bin/program"
    assert verify(trace).snapshots == 1
    assert verify(trace).good


def test_lock_decides_the_order() -> None:
    """Two calls that overlap: the one that got the lock first comes first, whoever entered or left first."""
    thread = Rec(250, R.NEW, 10, (11, 0x10F00))
    first = call("mmap", 10, 300, 900, BASE, *ANON)
    second = call("munmap", 11, 310, 400, 0, BASE, 0x1000)
    locks = [Rec(350, R.LOCK, 10, (1, True)), Rec(380, R.LOCK, 11, (1, True))]
    assert kinds(built(thread, *first, *second, *locks)) == ["THREAD", "MMAP", "MUNMAP"]
    locks = [Rec(390, R.LOCK, 10, (1, True)), Rec(380, R.LOCK, 11, (1, True))]
    assert kinds(built(thread, *first, *second, *locks)) == ["THREAD", "MUNMAP", "MMAP"]


def test_without_locks() -> None:
    """Where no lock was recorded: a report's moment, else entry for munmap and mremap, else exit."""
    thread = Rec(250, R.NEW, 10, (11, 0x10F00))
    fault = Rec(500, R.FAULT, 11, (0x400010, 4, True))
    mapped = call("mmap", 10, 300, 900, BASE, *ANON)
    assert kinds(built(thread, fault, *mapped)) == ["THREAD", "FAULT", "MMAP"]
    assert kinds(built(thread, fault, *mapped, area(400, 10, BASE, BASE + 0x3000))) == ["THREAD", "MMAP", "FAULT"]
    assert kinds(built(thread, fault, *call("munmap", 10, 300, 900, 0, BASE, 4096))) == ["THREAD", "MUNMAP", "FAULT"]
    assert kinds(built(thread, fault, *call("mprotect", 10, 300, 900, 0, 0x400000, 4096, 1)))[1:] == [
        "FAULT",
        "MPROTECT",
    ]


def test_reports_are_kept() -> None:
    """The VMA that the kernel reported inside a call, merged with its neighbours, is held against the replay."""
    one = call("mmap", 10, 300, 310, BASE + 0x3000, *ANON)
    two = call("mmap", 10, 320, 330, BASE, *ANON)
    reports = [area(305, 10, BASE + 0x3000, BASE + 0x6000), area(325, 10, BASE, BASE + 0x6000)]
    trace = built(*one, *two, *reports)
    assert [(int(r["vm_start"]), int(r["vm_end"])) for r in trace.reports] == [
        (BASE + 0x3000, BASE + 0x6000),
        (BASE, BASE + 0x6000),
    ]
    assert verify(trace).reports == 2
    assert verify(trace).good
    wrong = built(*one, *two, reports[0], area(325, 10, BASE, BASE + 0x3000))
    assert verify(wrong).reports_differ == 1


def test_fault_moves_to_its_lock() -> None:
    """A fault that fell back to the mmap_lock takes effect when it got the lock, however long it waited; its own tree
    walk is no lookup."""
    thread = Rec(250, R.NEW, 10, (11, 0x10F00))
    fault = [
        Rec(300, R.FAULT, 10, (0x400010, 6, True)),
        Rec(40_000, R.LOCK, 10, (1, False)),
        Rec(40_100, R.LOOK, 10, (0x400010,)),
    ]
    other = Rec(20_000, R.FAULT, 11, (0x400020, 4, True))
    trace = built(thread, other, *fault)
    assert trace.events["addr"][-2:].tolist() == [0x400020, 0x400010]
    assert "LOOKUP" not in kinds(trace)
    late = [rec._replace(time=rec.time + (rec.what != R.FAULT) * 5_000_000) for rec in fault]
    trace = built(thread, other, *late)
    assert trace.events["addr"][-2:].tolist() == [0x400020, 0x400010]
    assert "LOOKUP" not in kinds(trace)
    # a lock long after a fault that no tree walk follows is another system call's
    trace = built(thread, other, *fault[:2])
    assert trace.events["addr"][-2:].tolist() == [0x400010, 0x400020]


def test_lookups() -> None:
    """Tree walks that belong to no fault are lookups, before the call they are part of; small numbers are not."""
    looks = [Rec(t, R.LOOK, 10, (a,)) for t, a in ((210, 0x400000), (220, 17), (320, BASE), (225, 1 << 60))]
    trace = built(*looks, *call("mmap", 10, 300, 400, BASE, *ANON), Rec(310, R.LOCK, 10, (1, True)))
    assert kinds(trace) == ["LOOKUP", "LOOKUP", "MMAP"]
    assert trace.events["addr"][trace.setup :].tolist() == [0x400000, BASE, 0]


def test_fault_bits() -> None:
    """x86 error codes become access and flags; kernel addresses are left out; a signal marks the fault before it."""
    codes = [(4, 1), (6, 2), (7, 2), (20, 4), (2, 2)]
    recs = [Rec(300 + i, R.FAULT, 10, (0x400000 + i, code, bool(code & 4))) for i, (code, _) in enumerate(codes)]
    recs.append(Rec(400, R.FAULT, 10, (0xFFFF888000000000, 0, False)))
    recs += [Rec(500, R.FAULT, 10, (16, 4, True)), Rec(510, R.SEGV, 10, (16,))]
    faults = built(*recs).events[4:]
    assert faults["prot"].tolist() == [want for _, want in codes] + [1]
    assert [bool(f & FaultFlag.PRESENT) for f in faults["flags"]] == [False, False, True, False, False, False]
    assert [bool(f & FaultFlag.USER) for f in faults["flags"]] == [True, True, True, True, False, True]
    assert [bool(f & FaultFlag.SEGV) for f in faults["flags"]] == [False] * 5 + [True]


def test_process_tree() -> None:
    """fork copies, vfork shares until exec, a thread stays, exit ends: with dense numbers in order of appearance."""
    fork = [
        Rec(300, R.ENTER, 10, (NR["fork"], (0,) * 6)),
        Rec(310, R.LOCK, 10, (1, True)),
        Rec(330, R.NEW, 10, (20, 0)),
    ]
    vfork = [Rec(400, R.NEW, 10, (30, 0x4100)), Rec(410, R.FAULT, 30, (0x400000, 4, True)), Rec(420, R.EXEC, 30, (30,))]
    ends = [Rec(500 + i, R.GONE, tid) for i, tid in enumerate((20, 30, 10))]
    child = Rec(340, R.FAULT, 20, (0x400000, 4, True))
    exit_ = Maps(495, 30, "exit", IMAGE, 0x600000)
    maps = [Maps(150, 10, "exec", IMAGE, 0x600000), Maps(425, 30, "exec", IMAGE, 0x600000), exit_]
    trace = built(*fork, child, *vfork, *ends, Rec(430, R.LEAVE, 30, (NR["execve"], 0)), maps=maps)
    rows = [(Kind(e["kind"]).name, int(e["task"]), int(e["mm"])) for e in trace.events[4:] if e["kind"] != Kind.MAP]
    assert rows == [
        ("FORK", 0, 0), ("FAULT", 1, 1), ("THREAD", 0, 0), ("FAULT", 2, 0), ("EXEC", 2, 2), ("EXIT", 1, 1),
        ("EXIT", 2, 2), ("EXIT", 0, 0),
    ]  # fmt: skip
    assert trace.tid.tolist()[5] == 20
    assert [(s.mm, s.when) for s in trace.meta.snapshots] == [(0, "exec"), (2, "exec"), (2, "exit")]
    assert verify(trace).good


def test_strangers_and_odd_arguments() -> None:
    """Tasks outside the tree are ignored; failing calls keep their errno, with arguments that the format can hold."""
    odd = call("munmap", 10, 300, 310, -22, 2**64 - 1, 2**64 - 1)
    odd += call("mmap", 10, 320, 330, -12, 1, 2**63, 2**40, 2**35, 2**32 - 1, 2**63 + 5)
    odd += call("mremap", 10, 340, 350, -14, 5, 6, 7, 1, 2**64 - 1)
    trace = built(Rec(300, R.FAULT, 99, (5, 4, True)), *odd)
    assert trace.events["ret"][4:].tolist() == [-22, -12, -14]
    assert trace.events["offset"][-1] == 0  # no MREMAP_FIXED: the fifth argument means nothing
    assert kinds(trace) == ["MUNMAP", "MMAP", "MREMAP"]


def test_what_cannot_be_replayed_is_said() -> None:
    """Calls without an event of their own are counted in the notes; failed ones changed nothing."""
    recs = call("mbind", 10, 300, 310, 0) + call("mbind", 10, 320, 330, -22) + call("shmat", 10, 340, 350, BASE)
    assert built(*recs).meta.notes == ("not replayed: 1 x shmat",)


def test_files_are_open_files() -> None:
    """Two opens of one file are two files; two mappings of one open file are one."""
    where = (1, 77, "/usr/lib/x.so", 500)
    recs = []
    for i, fd in enumerate((3, 3, 4)):
        at = BASE + i * 0x10000
        enter = Rec(300 + 20 * i, R.ENTER, 10, (NR["mmap"], (0, 4096, 1, 2, fd, 0, where)))
        recs += [enter, Rec(305 + 20 * i, R.LEAVE, 10, (NR["mmap"], at))]
    trace = built(*recs)
    assert trace.events["file"][4:].tolist() == [1, 1, 2]
    assert (trace.meta.files[1].name, trace.meta.files[1].size) == ("/usr/lib/x.so", 500)


def test_calls_of_a_32_bit_program() -> None:
    """Numbers of i386 as the kernel gives them (mmap2 counts pages, shmat comes through ipc), or as ptrace translated
    them: the same events."""
    program = [Maps(150, 10, "exec", IMAGE, 0x600000, bits=32)]
    attach = area(365, 10, BASE + 0x3000, BASE + 0x4000, "/SYSV00000000")

    def numbered(kernel: bool) -> Trace:
        mmap = (192, (0, 0x3000, 3, 0x22, 2**32 - 1, 7)) if kernel else (NR["mmap"], (0, 0x3000, 3, 0x22, 2**32 - 1, 0))
        shmat = (117, (21, 5, 0, 0xFF00, 0, 0)) if kernel else (NR["shmat"], (5, 0, 0, 0, 0, 0))
        builder = Builder(program, numbers_of_i386=kernel)
        recs = [*START, Rec(300, R.ENTER, 10, mmap), Rec(310, R.LEAVE, 10, (mmap[0], BASE)), attach]
        recs += [Rec(360, R.ENTER, 10, shmat), Rec(370, R.LEAVE, 10, (shmat[0], 0))]
        for rec in sorted(recs, key=lambda rec: rec.time):
            builder.add(rec)
        return builder.trace(TraceMeta())

    assert kinds(numbered(True)) == ["MMAP", "MMAP"]
    assert numbered(True).digest == numbered(False).digest


def test_numbers_of_processes_are_used_again() -> None:
    """Two processes of one number: each has its own faults, and the kernel's count is the sum of both."""
    one, two = Maps(150, 10, "exec", IMAGE, started=1), Maps(560, 11, "exec", IMAGE, started=9, faults=1)
    ends = [Maps(450, 11, "exit", IMAGE, started=5, faults=20), Maps(660, 11, "exit", IMAGE, started=9, faults=41)]
    recs = [
        Rec(400, R.NEW, 10, (11, 0)),
        Rec(460, R.GONE, 11),
        Rec(500, R.NEW, 10, (11, 0)),
        Rec(560, R.EXEC, 11, (11,)),
    ]
    recs += [Rec(570, R.LEAVE, 11, (NR["execve"], 0)), Rec(670, R.GONE, 11)]
    trace = built(*recs, maps=[one, ends[0], two, ends[1]])
    assert trace.meta.faults["expected"] == 20 + 41 - 1
    assert [(p.mm, p.pid, p.faults) for p in trace.meta.processes] == [
        (0, 10, -1),
        (1, 11, 20),
        (2, 11, 41),
        (3, 11, 40),
    ]


def test_cut_where_a_reader_would_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tasks or address spaces than a trace may have: the trace ends before the first one too many, and says so."""
    from benchframe.record import recording as module

    monkeypatch.setattr(module, "MAX_MMS", 3)
    forks = [
        rec for i in range(5) for rec in (Rec(300 + 10 * i, R.NEW, 10, (11 + i, 0)), Rec(305 + 10 * i, R.GONE, 11 + i))
    ]
    trace = built(*forks)
    assert kinds(trace) == ["FORK", "EXIT", "FORK", "EXIT"]
    assert any(note.startswith("cut after 8 events") for note in trace.meta.notes)


def test_stack_growth_report() -> None:
    """A report outside any call belongs to the fault that made the stack grow."""
    stack = 0x7FFD00000000
    fault = Rec(300, R.FAULT, 10, (stack - 0x1000, 6, True))
    trace = built(fault, area(310, 10, stack - 0x1000, stack + 0x21000, "[stack]"))
    assert int(trace.reports["row"][0]) == len(trace) - 1
    assert verify(trace).good


def test_alike_areas_stay_apart() -> None:
    """Areas that the kernel keeps apart though maps shows no difference are not merged by the replay."""
    rows = [
        MapsRow(0x400000, 0x401000, 1, False, 0, "fe:00", 7, "/a"),
        MapsRow(0x401000, 0x402000, 1, False, 0x1000, "fe:00", 7, "/a"),
        MapsRow(0x500000, 0x501000, 3, False, 0, "00:00", 0, ""),
        MapsRow(0x501000, 0x502000, 3, False, 0, "00:00", 0, ""),
    ]
    trace = built(maps=[Maps(150, 10, "exec", rows)])
    assert verify(trace).snapshots == 1
    assert verify(trace).good


def test_image_from_reports(tmp_path: Path) -> None:
    """Without /proc, a layout comes from reports: later ones lie over earlier, the first is clamped by the ELF."""
    image = tmp_path / "program"
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segments = b"".join(
        struct.pack("<IIQQQQQQ", 1, 5, off, off, off, size, size, 4096) for off, size in ((0, 0x800), (0x3000, 0x1000))
    )
    image.write_bytes(header + segments)
    assert load_segments(str(image)) == [(0, 0, 0x800), (0x3000, 0x3000, 0x1000)]
    where = (254, 0, 5)
    recs = [
        Rec(110, R.AREA, 10, (BASE, BASE + 0x4000, 0, 1, 2, where, str(image))),
        Rec(120, R.AREA, 10, (BASE + 0x3000, BASE + 0x4000, 0x3000, 3, 2, where, str(image))),
        Rec(130, R.AREA, 10, (0x7FFD00000000, 0x7FFD00021000, 0, 3, 2, (0, 0, 0), "[stack]")),
    ]
    trace = built(*recs, maps=[])
    maps = trace.events[trace.events["kind"] == Kind.MAP]
    assert [(int(m["addr"]) - BASE, int(m["len"])) for m in maps[:2]] == [(0, 0x1000), (0x3000, 0x1000)]
    assert maps["flags"][2] == 2 | MapType.STACK


def test_not_elf(tmp_path: Path) -> None:
    """Anything but a 64-bit ELF file has no segments, and raises nothing."""
    for data in (b"", b"\x7fELF\x01" + b"\0" * 100, b"#!/bin/sh\n", b"\x7fELF\x02" + b"\xff" * 59):
        (tmp_path / "x").write_bytes(data)
        assert load_segments(str(tmp_path / "x")) == []
    assert load_segments("/no/such\0file") == []


def test_reports_stand_for_calls() -> None:
    """A recording without system calls: each report is the mapping it tells of."""
    trace = built(area(300, 10, BASE, BASE + 0x3000), Rec(310, R.FAULT, 10, (BASE, -1, True)), calls=False)
    assert kinds(trace) == ["MMAP", "FAULT"]
    assert verify(trace).faults_outside == 0


def test_guessed_access() -> None:
    """Unknown accesses follow the mapping: write if writable, execute if executable, else read. Known ones stay."""
    starts = {0x400000: 1, 0x410000: 5, 0x420000: 3, 0x430000: 7}
    rows = [MapsRow(at, at + 4096, prot, False, 0, "fe:00", at, "/a") for at, prot in starts.items()]
    recs = [Rec(300 + i, R.FAULT, 10, (0x400000 + i * 0x10000, -1, True)) for i in range(4)]
    trace = built(*recs, Rec(400, R.FAULT, 10, (0x420000, 4, True)), maps=[Maps(150, 10, "exec", rows)])
    assert GUESSED in trace.meta.notes
    assert trace.events["prot"][5:].tolist() == [1, 4, 2, 2, 1]


def test_maps_lines() -> None:
    """Names with spaces, deleted files and [vsyscall] are understood; nonsense is refused with its line."""
    text = (
        "00400000-00401000 r-xs 00001000 fe:00 12 /a b (deleted)\n\n7f0000000000-7f0000001000 ---p 00000000 00:00 0 \n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"
    )
    rows = parse_maps(text)
    assert [(r.name, r.prot, r.shared, r.offset) for r in rows] == [
        ("/a b (deleted)", 5, True, 4096),
        ("", 0, False, 0),
    ]
    for bad in ("hello", "2000-1000 r--p 0 00:00 0", "1000-3000 r--p 0 00:00 0\n2000-4000 r--p 0 00:00 0"):
        with pytest.raises(ValueError, match=r"line|order"):
            parse_maps(bad)


def test_tracepoint_formats() -> None:
    """Field places are read from the kernel's text, arrays and dynamic strings too."""
    text = (
        "format:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
        "\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n"
        "\tfield:__data_loc const char * memcg_path;\toffset:24;\tsize:4;\tsigned:0;\n"
    )
    assert parse_format(text) == {"common_type": (0, 2), "args": (16, 48), "memcg_path": (24, 4)}
