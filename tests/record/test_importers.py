"""Importers: what perf, strace and /proc write becomes a trace that replays; what is broken becomes one error."""

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchframe.cli.inspect import load_any, run_trace_convert, run_trace_verify
from benchframe.errors import TraceError
from benchframe.events import Kind
from benchframe.record.stracelog import value_of
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


def imported(tmp_path: Path, data: str | bytes, form: str, allow_loss: bool = False) -> Trace:
    """Write, import, and check what it was taken for."""
    path = tmp_path / "input"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    trace, name = load_any(path, allow_loss)
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
    assert value_of("NULL") == 0
    assert value_of("-1") == 2**64 - 1
    assert value_of("0x7f00<path>") == 0x7F00
    assert value_of("MAP_PRIVATE|MAP_ANONYMOUS|0x8000000") == 0x8000022
    assert value_of("MAP_HUGETLB|21<<MAP_HUGE_SHIFT") == 0x40000 | 21 << 26
    with pytest.raises(ValueError, match="not understood"):
        value_of("rm -rf")


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
    trace = imported(tmp_path, perf_data(EVENTS), "perf.data", allow_loss=True)
    rows = [Kind(k).name for k in trace.events["kind"]]
    assert rows == ["EXEC", "MAP", "FAULT", "MMAP", "THREAD", "FAULT", "EXIT"]
    assert trace.meta.lost == 3
    assert trace.meta.files[0].name == "/usr/bin/x"
    assert verify(trace).faults_outside == 0


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a format"),
        (b"hello\nworld\n", "not a format"),
        (b"\0" * 500, "not a format"),
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


# What people have: nothing is dropped in silence

STDERR_LOG = """\
$ strace -f ./server
execve("./server", ["./server"], 0x7ffd2f0 /* 31 vars */) = 0
brk(NULL)                               = 0x55f000000000
hello from the program
mmap(NULL, 16384, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f1000000000
clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLDstrace: Process 71 attached
, child_tidptr=0x7f1000002a10) = 71
[pid    70] munmap(0x7f1000000000, 4096 <unfinished ...>
[pid    71] mprotect(0x7f1000000000, 4096, PROT_READ) = 0
[pid    70] <... munmap resumed>)       = 0
[pid    71] +++ exited with 0 +++
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=71, si_uid=0} ---
munmap(0x7f1000001000, 4096)            = 0
+++ exited with 0 +++
"""


def test_strace_to_a_terminal(tmp_path: Path) -> None:
    """The first process has no number until a second one exists, and its clone line is cut in two: two tasks, and
    what the first one does before, beside and after the second is one task's."""
    trace = imported(tmp_path, STDERR_LOG, "strace log")
    rows = [(Kind(e["kind"]).name, int(e["task"])) for e in trace.events]
    assert rows == [
        ("EXEC", 0), ("BRK", 0), ("MMAP", 0), ("FORK", 0), ("MPROTECT", 1), ("MUNMAP", 0), ("EXIT", 1), ("MUNMAP", 0),
        ("EXIT", 0),
    ]  # fmt: skip
    assert sorted(set(trace.tid.tolist())) == [70, 71]
    assert trace.meta.counts["lines used"] == 5
    assert trace.meta.counts["not needed: lines that are not strace's"] == 2


@pytest.mark.parametrize(
    "head",
    [
        "", "     0.000123 ", "12:34:56 ", "12:34:56.123456 ", "1700000000.123456 ", "1700000000 ",
        "12:34:56 (+     0.000123) ", "[   9] ", "[00007f190777ead7] ", "[pid  12] ", "[pid 12<a b>]      0.000071 ",
        "12  ", "12<DOM Worker> 1700000000.5 [   9] [00007f190777ead7] ", "12    12:34:56 ", "   12 ",
    ],
)  # fmt: skip
def test_strace_heads(tmp_path: Path, head: str) -> None:
    """Every way in which strace can begin a line: numbers, names, times, positions."""
    call = "mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3</tmp/a, b) = 1>, 0x1000) = 0x7f1000000000 <0.000022>"
    trace = imported(tmp_path, f"{head}{call}\n{head}munmap(0x7f1000000000, 8192) = 0\n", "strace log")
    assert [Kind(k).name for k in trace.events["kind"]][-2:] == ["MMAP", "MUNMAP"]
    assert int(trace.events["offset"][-2]) == 0x1000
    assert trace.meta.files[int(trace.events["file"][-2])].name == "/tmp/a, b) = 1"


def test_strace_exec_by_a_thread(tmp_path: Path) -> None:
    """The thread goes on as the leader: the calls after its exec are those of one new address space."""
    log = (
        '5 execve("/bin/a", ["a"], 0x7ffd) = 0\n'
        "5 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88) = 6\n"
        '6 execve("/bin/b", ["b"], 0x7ffd <unfinished ...>\n'
        "5 +++ superseded by execve in pid 6 +++\n"
        "5 <... execve resumed>) = 0\n"
        "5 brk(NULL) = 0x55f000000000\n5 +++ exited with 0 +++\n"
    )
    trace = imported(tmp_path, log, "strace log")
    rows = [(Kind(e["kind"]).name, int(e["mm"])) for e in trace.events]
    assert rows == [("EXEC", 0), ("THREAD", 0), ("EXIT", 0), ("EXEC", 1), ("BRK", 1), ("EXIT", 1)]


def test_strace_inside_a_pid_namespace(tmp_path: Path) -> None:
    """The number that clone returns is the namespace's, that at the line the host's: still one child."""
    log = (
        '500 execve("/bin/a", ["a"], 0x7ffd) = 0\n500 brk(NULL) = 0x55f000000000\n'
        "500 clone(child_stack=NULL, flags=SIGCHLD) = 7\n501 brk(NULL) = 0x55f000000000\n"
        "500 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n502 brk(NULL) = 0x55f000000000\n"
        "500 <... clone resumed>) = 8\n502 +++ exited with 0 +++\n501 +++ exited with 0 +++\n"
    )
    trace = imported(tmp_path, log, "strace log")
    assert (trace.tasks, trace.mms) == (3, 3)
    assert any("PID namespace" in note for note in trace.meta.notes)


def test_strace_of_32_bits(tmp_path: Path) -> None:
    """mmap2 and old_mmap are mmap; the trace says that the program is a 32-bit one."""
    log = (
        'execve("./w", ["./w"], 0xffd0 /* 4 vars */) = 0\n[ Process PID=9 runs in 32 bit mode. ]\n'
        "mmap2(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3, 0x23000) = 0xf7a00000\n"
        "old_mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0xf7b00000\n"
    )
    trace = imported(tmp_path, log, "strace log")
    assert trace.events["ret"].tolist()[1:] == [0xF7A00000, 0xF7B00000]
    assert int(trace.events["offset"][1]) == 0x23000
    assert any("32-bit" in note for note in trace.meta.notes)


def test_strace_constants_that_are_new(tmp_path: Path) -> None:
    """A flag given as a number is kept; one given by a name that nobody knows is said."""
    log = (
        'execve("./w", ["./w"], 0xffd0 /* 4 vars */) = 0\n'
        "mmap(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS|0x8000000 /* MAP_??? */, -1, 0) = 0x7f0000000000\n"
        "madvise(0x7f0000000000, 4096, MADV_FROM_THE_FUTURE) = -1 EINVAL (Invalid argument)\n"
    )
    trace = imported(tmp_path, log, "strace log")
    assert int(trace.events["flags"][1]) == 0x8000022
    assert any("MADV_FROM_THE_FUTURE" in note for note in trace.meta.notes)


HEADED = "x 700/700  3663.334301: PERF_RECORD_COMM exec: x:700/700\n"
CODE = "x 700/700  3663.334330: PERF_RECORD_MMAP2 700/700: [0x400000(0x9000) @ 0 fe:00 4242 9]: r-xp /usr/bin/x\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x 700  3663.5:  1 page-faults:  401b70 main+0x0 (/usr/bin/x)\n", "without an address"),
        ("x 700  3663.5:  1 page-faults: \n\t  401b70 main+0x0 (/usr/bin/x)\n\n", "without an address"),
        ("".join(f"x 700  3663.5{i}: page-faults:  401b7{i}\n" for i in range(9)), "instruction pointers"),
        ("x 700/700  page-faults:  7f0000\n", "without a thread or a time"),
        ("x 700  3663.5:  250000 cycles:P:  401b70 main (/usr/bin/x)\n", "1 samples of cycles:P"),
        ("x 700 3663.5: exceptions:page_fault_user: address=start+0x10 ip=0x1 error_code=0x6\n", "not a number"),
        ("x 700 3663.4: page-faults: 401000\nx 700 3663.5: PERF_RECORD_LOST lost 44\n", "44 events that perf itself"),
        ("y 900 3663.4: page-faults: 402000\ny 900 3663.5: page-faults: 401000\n", "tasks whose start is not"),
        ("x 700 3663.4: page-faults: ffff800000000\n", "above 2^47"),
    ],
)
def test_perf_script_that_is_no_trace(tmp_path: Path, text: str, what: str) -> None:
    """What is missing is named, with the way out; nothing that looks like a trace is made."""
    path = tmp_path / "input"
    path.write_text(HEADED + CODE + text)
    with pytest.raises(TraceError) as caught:
        load_any(path)
    assert what in str(caught.value)
    assert "perf record" in str(caught.value) or "perf script" in str(caught.value)


def test_perf_script_with_more_fields(tmp_path: Path) -> None:
    """Addresses are found beside symbols, instruction pointers and call chains; build ids stand for inodes."""
    build_id = CODE.replace("fe:00 4242 9", "<15dfff3239aa7c3b16a71e6b2e3b6e4009dab998>")
    text = (
        "x 700 3663.41: 1 page-faults: 400b70 [unknown] (/usr/bin/x)  400b70 main+0x1 (/usr/bin/x)\n"
        "x 700 3663.42: 1 page-faults: 401b70 __TMC_END__+0x0 (/usr/bin/x)\n\tffffffff81775b9a elf_load+0x28a ([k])\n"
        "x 700 3663.43: minor-faults:u: 402b70 ffffffff81775b9a\n"
        "x 700 3663.44: raw_syscalls:sys_enter: NR 9 (0, 1000, 3, 22, ffffffff, 0)\n"
        "x 700 3663.45: raw_syscalls:sys_exit: NR 9 = 139637976727552\n"
    )
    trace = imported(tmp_path, HEADED + build_id + text, "perf script text")
    assert [Kind(k).name for k in trace.events["kind"]] == ["EXEC", "MAP", "FAULT", "FAULT", "FAULT", "MMAP"]
    assert trace.events["addr"].tolist()[2:5] == [0x400B70, 0x401B70, 0x402B70]
    assert verify(trace).faults_outside == 0


def test_perf_data_without_addresses(tmp_path: Path) -> None:
    """A software event without addresses is refused, and so are other events than faults: with what to do."""
    kept = [event for event in EVENTS if event[:4] != struct.pack("<I", 2)]
    bare = perf_data(kept).replace(struct.pack("<Q", SAMPLE), struct.pack("<Q", SAMPLE & ~8))
    clock = perf_data(kept).replace(struct.pack("<IIQQ", 1, 112, 2, 1), struct.pack("<IIQQ", 1, 112, 0, 1))
    for data, what in ((bare, "perf record -d adds it"), (clock, "samples of cpu-clock")):
        (tmp_path / "input").write_bytes(data)
        with pytest.raises(TraceError, match=what):
            load_any(tmp_path / "input")


def test_perf_data_from_a_pipe(tmp_path: Path) -> None:
    """``perf record -o -``: the events are described by records, not by a table in front."""
    attr = struct.pack("<IIQQQ", 1, 112, 2, 1, SAMPLE).ljust(112, b"\0") + struct.pack("<Q", 55)
    described = struct.pack("<IHH", 64, 0, 8 + len(attr)) + attr
    data = struct.pack("<8sQ", b"PERFILE2", 16) + described + b"".join(EVENTS)
    trace = imported(tmp_path, data, "perf.data", allow_loss=True)
    assert [Kind(k).name for k in trace.events["kind"]] == ["EXEC", "MAP", "FAULT", "MMAP", "THREAD", "FAULT", "EXIT"]


def test_perf_data_that_is_packed(tmp_path: Path) -> None:
    """``perf record -z``: records in a zstd stream that perf never ends; where that fails, the way out is said."""
    import pyarrow as pa  # type: ignore[import-untyped]

    plain = b"".join(EVENTS)
    packed = pa.Codec("zstd").compress(plain, asbytes=True)
    record_of = lambda body: struct.pack("<IHH", 81, 0, 8 + len(body)) + body  # noqa: E731
    trace = imported(tmp_path, perf_data([record_of(packed[:50]), record_of(packed[50:])]), "perf.data", True)
    assert [Kind(k).name for k in trace.events["kind"]] == ["EXEC", "MAP", "FAULT", "MMAP", "THREAD", "FAULT", "EXIT"]
    (tmp_path / "input").write_bytes(perf_data([record_of(b"\0" * 24)]))
    with pytest.raises(TraceError, match="without -z"):
        load_any(tmp_path / "input")
