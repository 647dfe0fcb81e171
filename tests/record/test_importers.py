"""Importers: what perf, strace and /proc write becomes a trace that replays; what is broken becomes one error."""

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchframe.cli.trace import load_any, run_trace_convert, run_trace_verify
from benchframe.errors import TraceError
from benchframe.events import Kind
from benchframe.record.stracelog import _value
from benchframe.trace.trace import Trace
from benchframe.trace.verify import verify

MAPS = """\
55d000000000-55d000001000 r--p 00000000 fe:00 260131                     /usr/bin/cat
55d000001000-55d000002000 r--p 00001000 fe:00 260131                     /usr/bin/cat
55d0000a0000-55d0000c1000 rw-p 00000000 00:00 0                          [heap]
7f3d02844000-7f3d02848000 r--p 00000000 00:00 0                          [vvar]
7f3d0284a000-7f3d0284c000 r-xp 00000000 00:00 0                          [vdso]
7ffdfa8ce000-7ffdfa8ef000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""
STRACE = """\
500   1700000000.000100 execve("/usr/bin/x", ["x", "a, b (c)"], 0x7ffd /* 20 vars */) = 0
500   1700000000.000200 brk(NULL)               = 0x5600aa000000
500   1700000000.000300 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f00aa000000
500   1700000000.000400 mprotect(0x7f00aa000000, 4096, PROT_READ) = 0 <0.000011>
500   1700000000.000500 munmap(0x123, 4096)     = -1 EINVAL (Invalid argument)
500   1700000000.000600 openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3
500   1700000000.000700 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</etc/passwd>, 0) = 0x7f00ab000000
500   1700000000.000800 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, exit_signal=0}, 88 <unfinished ...>
501   1700000000.000850 madvise(0x7f00aa000000, 8192, MADV_DONTNEED <unfinished ...>
500   1700000000.000900 <... clone3 resumed> => {parent_tid=[501]}, 88) = 501
501   1700000000.000950 <... madvise resumed>)  = 0
500   1700000000.001000 vfork( <unfinished ...>
500   1700000000.001100 <... vfork resumed>)    = 502
500   1700000000.001200 mremap(0x7f00aa001000, 4096, 8192, MREMAP_MAYMOVE) = 0x7f00ac000000
501   1700000000.001300 +++ exited with 0 +++
500   1700000000.001400 exit_group(0)           = ?
500   1700000000.001500 +++ exited with 0 +++
"""
SCRIPT = """\
# captured on: today
x 700/700  3663.334301: PERF_RECORD_COMM exec: x:700/700
x 700/700  3663.334326: PERF_RECORD_MMAP2 700/700: [0x7ffea12e7000(0x21000) @ 0x7ffffffde000 00:00 0 0]: rw-p [stack]
x 700/700  3663.334330: PERF_RECORD_MMAP2 700/700: [0x400000(0x2000) @ 0 fe:00 4242 9]: r-xp /usr/bin/no such file
x 700/700  3663.334436:     page-faults:     400b70
x 700/700  3663.334440: PERF_RECORD_MMAP2 700/700: [0x7f0000000000(0x3000) @ 0 00:00 0 0]: rw-p //anon
x 700/700  3663.334444:          1 page-faults:u:     7f0000001a80 ffffffff81 symbol (dso)
x   700 [001]  3663.334450: exceptions:page_fault_user: address=0x7f0000002000 ip=0x55 error_code=0x6
x 700/700  3663.334460: PERF_RECORD_FORK(700:701):(700:700)
x 700/701  3663.334470:     page-faults:     7f0000000008
x 700/700  3663.334480: PERF_RECORD_EXIT(700:701):(700:700)
"""


def imported(tmp_path: Path, data: str | bytes, form: str) -> Trace:
    """Write, import, and check what it was taken for."""
    path = tmp_path / "input"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    trace, name = load_any(path)
    assert name == form
    trace.check()
    return trace


def test_maps(tmp_path: Path) -> None:
    """A snapshot becomes a layout that replays to itself."""
    trace = imported(tmp_path, MAPS, "maps snapshot")
    assert trace.setup == len(trace) == 7
    assert trace.events["addr"][0] == 0x55D0000A0000
    verdict = verify(trace)
    assert verdict.good, verdict.lines
    assert verdict.snapshots == 1


def joined(lines: list[str]) -> Iterator[str]:
    """``lines`` with touching anonymous areas of equal rights as one: why the kernel keeps two (an anon_vma each) is
    not in the text, and a replay merges them."""
    held: list[str] = []
    for line in lines:
        words = line.split()
        start, _, end = words[0].partition("-")
        if (
            held
            and (len(words) == 5 or words[-1] == "[heap]")
            and held[0].endswith("-" + start)
            and held[1:] == words[1:]
        ):
            held[0] = held[0].partition("-")[0] + "-" + end
            continue
        if held:
            yield " ".join(held)
        held = words
    yield " ".join(held)


def test_own_maps(tmp_path: Path) -> None:
    """This very process's layout, hundreds of areas, replays to itself."""
    source = Path("/proc/self/maps")
    if not source.exists():
        pytest.skip("no /proc/self/maps here")
    text = "\n".join(joined(source.read_text().splitlines())) + "\n"
    trace = imported(tmp_path, text, "maps snapshot")
    assert len(trace) == text.count("\n") + 1 - text.count("[vsyscall]")
    verdict = verify(trace)
    assert verdict.good, verdict.lines


def test_strace(tmp_path: Path) -> None:
    """Calls with names or numbers, split lines, errors, threads, vfork and exits become events in the log's order."""
    trace = imported(tmp_path, STRACE, "strace log")
    rows = [Kind(k).name for k in trace.events["kind"]]
    assert rows == [
        "EXEC", "BRK", "MMAP", "MPROTECT", "MUNMAP", "MMAP", "THREAD", "MADVISE", "THREAD", "MREMAP", "EXIT", "EXIT",
    ]  # fmt: skip
    assert trace.events["ret"].tolist()[4] == -22
    assert trace.events["prot"].tolist()[2] == 3
    assert trace.events["flags"].tolist()[2] == 0x22
    assert trace.events["file"].tolist()[5] >= 0
    assert trace.mms == 1
    assert verify(trace).calls_differ == 0


def test_strace_numbers() -> None:
    """Arguments as strace prints them: hexadecimal, octal, names, comments, flags that it does not know."""
    assert _value("NULL") == 0
    assert _value("-1") == 2**64 - 1
    assert _value("0x7f00<path>") == 0x7F00
    assert _value("MAP_PRIVATE|MAP_ANONYMOUS|0x8000000") == 0x8000022
    assert _value("MAP_HUGETLB|21<<MAP_HUGE_SHIFT") == 0x40000 | 21 << 26
    with pytest.raises(ValueError, match="not understood"):
        _value("rm -rf")


def test_perf_script(tmp_path: Path) -> None:
    """Faults of the software event and of the tracepoint, mappings, threads: each fault in what perf reported."""
    trace = imported(tmp_path, SCRIPT, "perf script text")
    rows = [Kind(k).name for k in trace.events["kind"]]
    assert rows == ["EXEC", "MAP", "MAP", "FAULT", "MMAP", "FAULT", "FAULT", "THREAD", "FAULT", "EXIT"]
    assert trace.events["prot"].tolist()[3] == 4  # guessed: r-x
    assert trace.events["prot"].tolist()[6] == 2  # recorded: error code 6
    assert trace.time.tolist()[3] == 135_000
    verdict = verify(trace)
    assert verdict.good, verdict.lines
    assert verdict.faults == 4


SAMPLE = 0x10000 | 2 | 4 | 8


def perf_data(events: list[bytes], ids: int = 1) -> bytes:
    """A perf.data file with one software page-fault event."""
    attr = struct.pack("<IIQQQ", 1, 112, 2, 1, SAMPLE).ljust(112, b"\0") + struct.pack("<QQ", 104, 8 * ids)
    at = 104 + 8
    data = b"".join(events)
    header = struct.pack("<8s6Q", b"PERFILE2", 104, 128, at, 128, at + 128, len(data)).ljust(104, b"\0")
    return header + struct.pack("<Q", 55) + attr + data


def record(kind: int, body: bytes, misc: int = 0, time: int = 0, tid: int = 9) -> bytes:
    """One record; all but samples end in pid, tid, time, identifier."""
    if kind != 9:
        body += struct.pack("<IIQQ", 9, tid, time, 55)
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


EVENTS = [
    record(3, struct.pack("<II8s", 9, 9, b"x"), 1 << 13, 1000),
    record(
        10,
        struct.pack("<IIQQQIIQQII", 9, 9, 0x400000, 0x3000, 0, 8, 1, 77, 0, 5, 2) + b"/usr/bin/x\0\0\0\0\0\0",
        0,
        1100,
    ),
    record(9, struct.pack("<QIIQQ", 55, 9, 9, 2000, 0x401234)),
    record(10, struct.pack("<IIQQQIIQQII", 9, 9, 0x7F0000000000, 0x2000, 0, 0, 0, 0, 0, 3, 2) + b"//anon\0\0", 0, 2100),
    record(7, struct.pack("<IIIIQ", 9, 9, 10, 9, 2150), 0, 2150),
    record(9, struct.pack("<QIIQQ", 55, 9, 10, 2200, 0x7F0000001FFF)),
    record(2, struct.pack("<QQ", 55, 3), 0, 2300),
    record(4, struct.pack("<IIIIQ", 9, 9, 10, 9, 2400), 0, 2400),
]


def test_perf_data(tmp_path: Path) -> None:
    """A perf.data file is read without perf: faults, mappings, threads, and the events that perf lost."""
    trace = imported(tmp_path, perf_data(EVENTS), "perf.data")
    rows = [Kind(k).name for k in trace.events["kind"]]
    assert rows == ["EXEC", "MAP", "FAULT", "MMAP", "THREAD", "FAULT", "EXIT"]
    assert trace.meta.lost == 3
    assert trace.meta.files[0].name == "/usr/bin/x"
    assert verify(trace).faults_outside == 0


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no form"),
        (b"hello\nworld\n", "no form"),
        (b"\0" * 500, "no form"),
        (b"PERFILE2", "cut short"),
        (b"PERFILE2" + b"\xff" * 200, "makes no sense"),
        (perf_data(EVENTS)[:-40], "closed properly"),
        (perf_data([b"\0" * 64]), "makes no sense"),
        (perf_data([EVENTS[0], struct.pack("<IHH", 9, 0, 16) + b"\0" * 8]), "unpack"),
        (perf_data(EVENTS, 1 << 40), "outside the file"),
        (b"1000-3000 r--p 0 00:00 0\n2000-4000 r--p 0 00:00 0\n", "not in order"),
        (STRACE.encode() + b"500 1.0 mmap(rm -rf, 4096, 3, 34, -1, 0) = 0x1000\n", "not understood"),
        (b"x 700/700  1.0: page-faults: 400b70\n" + b"x" * 100_000, ""),
    ],
)
def test_broken_input(tmp_path: Path, data: bytes, what: str) -> None:
    """Broken input is one line that says what is wrong; junk lines between good ones are passed over."""
    path = tmp_path / "input"
    path.write_bytes(data)
    if not what:
        assert len(load_any(path)[0]) == 2
        return
    with pytest.raises(TraceError, match=what) as caught:
        load_any(path)
    assert "\n" not in str(caught.value)


@pytest.mark.needs_debian("strace")
def test_real_strace(tmp_path: Path) -> None:
    """A log that the strace of this machine writes is understood, threads and children included."""
    log = tmp_path / "log"
    run = subprocess.run(
        ["strace", "-f", "-o", str(log), "sh", "-c", "ls >/dev/null; true"], capture_output=True, text=True
    )
    if run.returncode:
        pytest.skip(f"strace does not work here: {run.stderr.strip()[:100]}")
    assert run_trace_convert(log, tmp_path / "t.parquet") == 0
    assert run_trace_verify(tmp_path / "t.parquet") == 0
    assert load_any(tmp_path / "t.parquet")[0].mms >= 2
