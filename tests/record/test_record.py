"""benchframe record on real programs: each level that works here, threads, children, signals, exit codes, attach.

A level that the machine does not allow is skipped, with the reason that the recorder itself gives.
"""

import contextlib
import functools
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchframe.errors import ENVIRONMENT
from benchframe.events import EVENT, Kind
from benchframe.record import command as recording
from benchframe.record.procfs import ControlGroup
from benchframe.record.recording import Recording
from benchframe.record.records import EXEC, Rec
from benchframe.record.session import RecordError, planned
from benchframe.trace.trace import Trace, read_csv, read_trace, write_trace
from benchframe.trace.verify import verify

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="recording needs Linux")
RUN = """
import sys
from pathlib import Path
from benchframe.record.command import run_record_command
level, output, *rest = sys.argv[1:]
attach = int(rest[1]) if rest[0] == "--attach" else None
sys.exit(run_record_command([] if attach else rest, Path(output), level, attach=attach))
"""
MAPS_LINE = "400000-401000 r-xp 00000000 fe:00 7 /usr/bin/x\n"
STAT = "7 (x) " + " ".join(["0"] * 50)
THREADS = """
import mmap, threading
def work():
    for _ in range(20):
        m = mmap.mmap(-1, 1 << 16)
        m.write(b"x" * 30000)
        m.close()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


@functools.cache
def why_not(level: str) -> str:
    """Why a level does not work here; empty if it does."""
    try:
        with planned(level):
            pass
    except RecordError as error:
        return str(error)
    probe = subprocess.run([sys.executable, "-c", RUN, level, os.devnull + "x", "true"], capture_output=True, text=True)
    return probe.stderr if "ptrace" in probe.stderr or "seccomp" in probe.stderr else ""


@pytest.fixture(params=["full", "user", "strace"])
def level(request: pytest.FixtureRequest) -> str:
    """Each level that works on this machine."""
    reason = why_not(request.param)
    if reason:
        pytest.skip(f"level {request.param}: {reason}")
    return str(request.param)


def elf32(code: bytes) -> bytes:
    """A static i386 program of one segment."""
    start = 0x8048000
    head = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, start + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    size = 84 + len(code)
    return head + struct.pack("<IIIIIIII", 1, 0, start, start, size, size, 5, 4096) + code


def record(
    level: str, output: Path, *command: str, input: str = "", cwd: Path | None = None, grouped: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the recorder as its own process, as a user does: a fork of this one, which has imported all that it needs."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        told.write(input.encode())
        told.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads
            pid = os.fork()
        if not pid:
            code = 99
            try:
                for number, file in enumerate((told, out, err)):
                    os.dup2(file.fileno(), number)
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                if cwd is not None:
                    os.chdir(cwd)
                code = recording.run_record_command(list(command), output, level, grouped=grouped)
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


def checked(output: Path, level: str) -> Trace:
    """The trace, after it has held."""
    trace = read_trace(output)
    verdict = verify(trace)
    assert verdict.good, verdict.lines
    assert trace.meta.level == level
    assert trace.meta.lost == 0
    assert verdict.snapshots >= 2
    assert bool(verdict.faults) == (level != "strace")
    return trace


def test_a_program(level: str, tmp_path: Path) -> None:
    """One process: the trace replays to the kernel's layout, faults agree with getrusage, stdout is the program's, and
    its nice value is what it would be without us, though the recorder's is another."""
    script = "import os; print(input(), os.nice(0))"
    run = record(level, tmp_path / "t.parquet", sys.executable, "-S", "-c", script, input="hello")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"hello {os.nice(0)}\n"
    assert f"level {level}" in run.stderr
    trace = checked(tmp_path / "t.parquet", level)
    assert (trace.tasks, trace.mms) == (1, 1)
    assert trace.setup > 5
    assert trace.meta.command[0] == sys.executable
    assert int((trace.events["kind"] == Kind.MMAP).sum()) > 5
    if level == "full":
        faults = trace.meta.faults
        assert 0 <= faults["expected"] - faults["recorded"] <= 20


def test_threads(level: str, tmp_path: Path) -> None:
    """Threads that map and unmap at once: one address space, every event in an order that replays."""
    run = record(level, tmp_path / "t.parquet", sys.executable, "-S", "-c", THREADS)
    assert run.returncode == 0, run.stderr
    trace = checked(tmp_path / "t.parquet", level)
    assert trace.tasks == 5
    assert trace.mms == 1
    assert int((trace.events["kind"] == Kind.EXIT).sum()) == 5


def test_children(level: str, tmp_path: Path) -> None:
    """fork, vfork and exec: each makes the address space that it makes in the kernel."""
    script = (
        "import os, subprocess\npid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)\n"
        "subprocess.run(['true'])\n"
    )
    run = record(level, tmp_path / "t.parquet", sys.executable, "-S", "-c", script)
    assert run.returncode == 0, run.stderr
    trace = checked(tmp_path / "t.parquet", level)
    kinds = trace.events["kind"].tolist()
    assert kinds.count(Kind.EXEC) == 2
    assert kinds.count(Kind.FORK) >= 1
    assert trace.tasks == 3
    assert trace.mms == 2 + kinds.count(Kind.FORK)


def test_control_group(tmp_path: Path) -> None:
    """At level full a program runs in a control group of its own, which is gone afterwards. A process that leaves the
    group is named and its trace refused; inherited events follow it."""
    try:
        group = ControlGroup()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    if why_not("full"):
        group.close()
        pytest.skip(f"level full: {why_not('full')}")
    assert group.folder.is_dir()
    parent = group.parent
    group.close()
    assert not group.folder.exists()
    shown, output = ("sh", "-c", "env true; exec cat /proc/self/cgroup"), tmp_path / "t.parquet"
    run = record("full", output, *shown)
    assert run.returncode == 0, run.stderr
    assert f"0::{group.path.rpartition('/')[0]}/benchframe-" in run.stdout
    assert checked(output, "full").tasks == 2
    shown_group = run.stdout.split("0::")[1].split()[0].rpartition("/")[2]
    assert shown_group.startswith("benchframe-")
    assert not (parent / shown_group).exists()  # another test's may be there
    leaving = ("sh", "-c", f"sh -c 'echo $$ >{parent}/cgroup.procs; exec true'")
    run = record("full", output, *leaving)
    assert run.returncode == recording.EXIT_FAILED
    assert "programs that changed their control group: 1 (true)" in run.stderr
    assert "--inherit" in run.stderr
    for command in (shown, leaving):
        run = record("full", output, *command, grouped=False)
        assert run.returncode == 0, run.stderr
        assert "/benchframe-" not in run.stdout
        assert checked(output, "full").tasks == 2


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)])
def test_exit_codes(level: str, tmp_path: Path, script: str, code: int) -> None:
    """The program's exit code is ours; a signal's is 128 + n; the trace is there all the same."""
    assert record(level, tmp_path / "t.parquet", "sh", "-c", script).returncode == code
    assert read_trace(tmp_path / "t.parquet").meta.exit_status == (code if code < 128 else 128 - code)


def test_a_32_bit_program(level: str, tmp_path: Path) -> None:
    """i386's own numbers; without PT_GNU_STACK it runs under READ_IMPLIES_EXEC, so its heap and mappings can be
    executed. Its mmap2, brk and munmap are replayed to what the kernel had."""
    code = bytes.fromhex(
        "b82d000000 31db cd80 8d9800300000 b82d000000 cd80 c640ff01"  # brk(0); brk(+3 pages); a store in the last
        "b8c0000000 31db b900200000 ba03000000 be22000000 bfffffffff 31ed cd80 c60001"  # mmap2(0, 2 pages, 3); a store
        "89c3 b85b000000 b900100000 cd80 b801000000 31db cd80"  # munmap(the first page); exit(0)
    )
    program = tmp_path / "narrow"
    program.write_bytes(elf32(code))
    program.chmod(0o755)
    try:
        assert subprocess.run([program]).returncode == 0
    except OSError as error:
        pytest.skip(f"no 32-bit programs here: {error}")
    run = record(level, tmp_path / "t.parquet", str(program))
    assert run.returncode == 0, run.stderr
    assert "1 of the programs is a 32-bit program" in run.stderr
    trace = checked(tmp_path / "t.parquet", level)
    names = [Kind(k).name for k in trace.events["kind"].tolist()]
    assert (names.count("MMAP"), names.count("MUNMAP")) == (2, 1)
    assert set(trace.events["prot"][trace.events["kind"] == Kind.MMAP].tolist()) == {7}


def test_csv(tmp_path: Path) -> None:
    """A file that ends in .csv is CSV, not Parquet under a wrong name."""
    assert record("strace", tmp_path / "t.csv", "true").returncode == 0
    assert (tmp_path / "t.csv").read_text().startswith("# benchframe {")
    assert len(read_csv(tmp_path / "t.csv")) > 5


def test_stopping_and_continuing(level: str, tmp_path: Path) -> None:
    """Job control works under the recorder: a stopped child stops, and goes on when told."""
    script = (
        "import os, signal, subprocess\np = subprocess.Popen(['sh', '-c', 'kill -STOP $$; exit 3'])\n"
        "assert os.WIFSTOPPED(os.waitpid(p.pid, os.WUNTRACED)[1])\n"
        "os.kill(p.pid, signal.SIGCONT)\nassert p.wait() == 3\n"
    )
    run = record(level, tmp_path / "t.parquet", sys.executable, "-c", script)
    assert run.returncode == 0, run.stderr


def test_faults_that_end_in_a_signal(level: str, tmp_path: Path) -> None:
    """A load from address 16 is recorded, marked, and no reason to distrust the trace."""
    run = record(level, tmp_path / "t.parquet", sys.executable, "-S", "-c", "import ctypes; ctypes.string_at(16)")
    assert run.returncode == 139
    if level != "strace":
        trace = read_trace(tmp_path / "t.parquet")
        assert verify(trace).good
        marked = trace.events[(trace.events["kind"] == Kind.FAULT) & (trace.events["flags"] & 4 != 0)]
        assert marked["addr"].tolist() == [16]


def _busy(tmp_path: Path) -> subprocess.Popen[str]:
    script = (
        "import mmap, time\nprint('up', flush=True)\nwhile True:\n    m = mmap.mmap(-1, 1 << 16)\n"
        "    m.write(b'x' * 9000)\n    m.close()\n    time.sleep(0.002)\n"
    )
    return subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True)


def test_interrupt_keeps_the_trace(level: str, tmp_path: Path) -> None:
    """Ctrl-C ends the program as it would without us; the trace is whole and valid."""
    script = "import time\nprint('up', flush=True)\ntime.sleep(30)"
    command = [sys.executable, "-c", RUN, level, str(tmp_path / "t.parquet"), sys.executable, "-S", "-c", script]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert run.returncode in (130, 1), errors
    checked(tmp_path / "t.parquet", level)


def test_attach(level: str, tmp_path: Path) -> None:
    """A running process: its layout is the trace's beginning, Ctrl-C the end, and it runs on, untraced."""
    with _busy(tmp_path) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            command = [sys.executable, "-c", RUN, level, str(tmp_path / "t.parquet"), "--attach", str(busy.pid)]
            run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 20
            while "TracerPid:\t0\n" in Path(f"/proc/{busy.pid}/status").read_text():
                assert run.poll() is None, run.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.7)
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=30)
            assert run.returncode == 0, errors
            assert busy.poll() is None
            assert "TracerPid:\t0" in Path(f"/proc/{busy.pid}/status").read_text()
        finally:
            busy.kill()
    trace = checked(tmp_path / "t.parquet", level)
    assert {s.when for s in trace.meta.snapshots} == {"attach", "exit"}
    assert int((trace.events["kind"] == Kind.MMAP).sum()) > 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_privileges(tmp_path: Path) -> None:
    """An unprivileged user gets level user (or strace), is told what is missing, and the trace holds."""
    reason = why_not("user")
    if reason:
        pytest.skip(reason)
    setpriv, python = shutil.which("setpriv"), shutil.which("python3", path="/usr/bin:/bin")
    if setpriv is None or python is None:
        pytest.skip("setpriv and a system python3 are needed")
    paths = os.pathsep.join(p for p in sys.path if p)
    root = str(Path(__file__).resolve().parents[2])
    drop = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", f"PYTHONPATH={root}:{paths}"]
    probe = subprocess.run([*drop, python, "-c", "import benchframe.record.command, pyarrow"], capture_output=True)
    if probe.returncode:
        pytest.skip("this interpreter's packages are not readable by others")
    folder = Path("/tmp") / f"benchframe-test-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        output = folder / "t.parquet"
        run = subprocess.run([*drop, python, "-c", RUN, "auto", str(output), "ls"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "not used: full" in run.stderr
        checked(output, "user")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("auto", "t.parquet", "/no/such/program"), "no such program"),
        (("wrong", "t.parquet", "true"), "there are auto, full, user, strace"),
        (("auto", "none/t.parquet", "true"), "not a writable folder"),
        (("auto", "t.parquet", "--attach", "999999999"), "process 999999999"),
        (("auto", ".", "true"), "is a folder; name a file with -o"),
    ],
)
def test_own_failures(tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    """Our own failures are one line on stderr, exit code 125, and no file."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, arguments[0], str(tmp_path / arguments[1]), *arguments[2:]],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 125
    assert what in run.stderr
    assert run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"lost": 5}, "5 events were lost"),
        ({"faults": {"recorded": 62, "expected": 210}}, "only 62 of 210 page faults were recorded"),
    ],
)
def test_incomplete_recordings_are_refused(
    values: dict[str, Any],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A trace with holes, or with far fewer faults than the kernel counted, is not written unless asked for."""
    from benchframe.record.session import Session

    def run(self: Session, argv: list[str]) -> None:
        self.journal.describe(
            level="full", command=argv, notes=[], limits={}, tool="", points={}, functions={}, kernel="", date="",
            machine="", max_events=0,
        )  # fmt: skip
        self.journal.layout({"time": 5, "pid": 7, "when": "exec", "maps": MAPS_LINE, "stat": STAT, "command": "x"})
        self.journal.record(Rec(6, EXEC, 7, (7,)))
        self.journal.close()
        self.journal.end({"lost": values.get("lost", 0)})

    whole = Recording._described
    monkeypatch.setattr(
        Recording,
        "_described",
        lambda self, meta: replace(whole(self, meta), faults=values.get("faults", {})),
    )
    monkeypatch.setattr(Session, "run", run)
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    assert recording.run_record_command(["true"], tmp_path / "t.parquet", "strace") == recording.EXIT_FAILED
    assert what in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [kept]
    (journal,) = kept.iterdir()
    recover = {"output": tmp_path / "t.parquet", "recover": journal}
    assert recording.run_record_command([], **recover) == recording.EXIT_FAILED
    assert recording.run_record_command([], **recover, allow_loss=True) == 0
    assert list(kept.iterdir()) == []
    assert read_trace(tmp_path / "t.parquet").meta.lost == values.get("lost", 0)


def test_ring_that_overflows_says_so() -> None:
    """Events that the kernel dropped are counted, by a ring that nobody drains."""
    from benchframe.record import perf
    from benchframe.record.perf import Recorder, Source

    reason = why_not("user")
    if reason:
        pytest.skip(reason)
    flags = perf.EXCLUDE_KERNEL | perf.EXCLUDE_HV
    source = Source("page-faults:u", perf.TYPE_SOFTWARE, perf.COUNT_SW_PAGE_FAULTS, flags, sample=perf.SAMPLE_ADDR)
    recorder = Recorder([source], [os.getpid()], 1, on_exec=False)
    try:
        if not recorder.counts_lost:
            pytest.skip("this kernel has no PERF_FORMAT_LOST")
        recorder.enable()
        block = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # fresh pages, never the heap's
        block.madvise(mmap.MADV_NOHUGEPAGE)
        block[::4096] = b"x" * 1024
        recorder.stop()
        assert recorder.lost > 500
    finally:
        recorder.close()


# A recording always ends, and is never lost


def started(tmp_path: Path, level: str, *program: str, **options: Any) -> subprocess.Popen[str]:
    """The recorder, running, with its program up: it has printed a line."""
    command = [sys.executable, "-c", RUN, level, str(tmp_path / "t.parquet"), *program]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    return run


def end(pid: int) -> None:
    """End a process that a recording left running."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_signal_ends_what_an_orphan_would_hold_open(level: str, tmp_path: Path) -> None:
    """The program has ended, a child of it runs on: the first signal ends the recording, the trace holds, and the child
    lives on, with calls that work."""
    child = (
        "import mmap, time\nfor i in range(600):\n m = mmap.mmap(-1, 1 << 16); m.write(b'x' * 9000); m.close()\n"
        " open(f'{i}.tick', 'w').close()\n time.sleep(0.05)\n"
    )
    script = f'cd {tmp_path}; {sys.executable} -S -c "{child}" >/dev/null 2>&1 & echo $! > pid; echo up'
    run = started(tmp_path, level, "sh", "-c", script)
    pid = 0
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "3.tick").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        run.send_signal({"full": signal.SIGTERM, "user": signal.SIGHUP, "strace": signal.SIGINT}[level])
        _, errors = run.communicate(timeout=60)
        assert "still ran" in errors
        assert run.returncode == 0
        checked(tmp_path / "t.parquet", level)
        for tick in tmp_path.glob("*.tick"):
            tick.unlink()
        while not list(tmp_path.glob("*.tick")):
            assert time.monotonic() < deadline + 30
            time.sleep(0.02)
    finally:
        end(pid)


def test_program_that_ignores_signals(tmp_path: Path) -> None:
    """What does not end on SIGTERM goes on unrecorded; a second signal does not wait for it."""
    run = started(
        tmp_path,
        "auto",
        "sh",
        "-c",
        f"trap '' TERM; echo up; echo $$ > {tmp_path / 'pid'}; sleep 60 >/dev/null 2>&1 & wait",
    )
    try:
        time.sleep(0.3)
        run.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=60) == 128 + signal.SIGTERM
        assert len(read_trace(tmp_path / "t.parquet")) > 5
        for pipe in (run.stdout, run.stderr):  # the program holds them too, so there is no end to wait for
            assert pipe is not None
            pipe.close()
    finally:
        end(int((tmp_path / "pid").read_text()))


def test_killed_recorder(level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL of the command that the user started: the trace so far is written all the same, and nothing is left
    mounted or lying about. Until then nobody else can make a trace of it."""
    kept = tmp_path / "tmp"
    kept.mkdir()
    mounts = Path("/proc/self/mounts").read_text().count("benchframe")
    script = "import os, time\nprint('up', flush=True)\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    run = started(
        tmp_path, level, sys.executable, "-S", "-c", script, cwd=tmp_path, env={**os.environ, "TMPDIR": str(kept)}
    )
    try:
        (journal,) = kept.iterdir()
        assert recording.run_record_command([], tmp_path / "r.parquet", recover=journal) == recording.EXIT_FAILED
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"still runs, or its trace is being written (process {run.pid})" in said
        assert not (tmp_path / "r.parquet").exists()
        time.sleep(0.3)
        run.kill()
        run.wait()
        for pipe in (run.stdout, run.stderr):
            assert pipe is not None
            pipe.close()
        deadline = time.monotonic() + 30
        while not (tmp_path / "t.parquet").exists() or list(kept.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        checked(tmp_path / "t.parquet", level)
        assert Path("/proc/self/mounts").read_text().count("benchframe") == mounts
    finally:
        end(int((tmp_path / "pid").read_text()))


def test_nobody_listens(tmp_path: Path) -> None:
    """A full or closed stderr costs no trace: it is written before anything is said."""
    full = tmp_path / "full.parquet"
    with Path("/dev/full").open("w") as sink:
        run = subprocess.run([sys.executable, "-c", RUN, "auto", str(full), "true"], stderr=sink)
    assert run.returncode == 0
    closed = tmp_path / "closed.parquet"
    run = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", RUN, "auto", str(closed), "true"])
    assert run.returncode == 0
    assert len(read_trace(full)) > 5
    assert len(read_trace(closed)) > 5


def test_full_disk_keeps_the_journal(tmp_path: Path) -> None:
    """A trace that cannot be written stays a journal; --recover makes the trace of it, and then it goes."""
    kept = tmp_path / "tmp"
    kept.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", RUN.replace("import sys", "import sys, benchframe.record.command as c\n"
         "def refuse(*a): raise OSError(28, 'No space left on device')\nc.write_batches = refuse", 1),
         "auto", str(tmp_path / "t.parquet"), "true"],
        capture_output=True, text=True, env={**os.environ, "TMPDIR": str(kept)},
    )  # fmt: skip
    assert run.returncode == 125
    assert "No space left on device" in run.stderr
    assert "--recover" in run.stderr
    (journal,) = kept.iterdir()
    assert recording.run_record_command([], tmp_path / "t.parquet", recover=journal) == 0
    assert len(read_trace(tmp_path / "t.parquet")) > 5
    assert list(kept.iterdir()) == []


def test_ends_by_time_and_by_events(tmp_path: Path) -> None:
    """--duration and --max-events end the recording; the program goes on; the trace is cut at the event."""
    from benchframe.record.session import Ends

    with _busy(tmp_path) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            output = tmp_path / "t.parquet"
            assert recording.run_record_command([], output, attach=busy.pid, ends=Ends(duration=0.4)) == 0
            assert verify(read_trace(output)).good
            assert recording.run_record_command([], output, attach=busy.pid, ends=Ends(max_events=40)) == 0
            assert len(read_trace(output)) == 40
            assert busy.poll() is None
        finally:
            busy.kill()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="root and unshare make the namespace")
@pytest.mark.parametrize("mount", [["--mount-proc"], []])
def test_inside_a_pid_namespace(level: str, mount: list[str], tmp_path: Path) -> None:
    """In a container all is recorded, with a /proc of its own or without: children, their faults, their layouts."""
    space = ["unshare", "-p", "-f", *mount]
    if subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace can be made here")
    run = subprocess.run(
        [*space, sys.executable, "-c", RUN, level, str(tmp_path / "t.parquet"), "sh", "-c", "true; ls / >/dev/null; :"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    trace = checked(tmp_path / "t.parquet", level)
    assert trace.tasks >= 2
    assert int((trace.events["kind"] == Kind.EXEC).sum()) >= 2
    if level != "strace":
        assert trace.meta.faults["recorded"] > 0.8 * trace.meta.faults["expected"]


def test_small_address_space(tmp_path: Path) -> None:
    """Under a small ulimit -v, record, info and run end with a line that names the limit, and with their own exit code:
    the libraries do not fit, or the rings. What was recorded by then is kept, or there is nothing."""
    kept = tmp_path / "tmp"
    kept.mkdir()
    trace = tmp_path / "t.parquet"
    write_trace(trace, Trace(np.zeros(0, EVENT)))
    limited = {
        **os.environ,
        "TMPDIR": str(kept),
        "OPENBLAS_NUM_THREADS": "1",
    }  # else numpy's buffers depend on the number of CPUs
    for command, code in (
        (["trace", "info", str(trace)], ENVIRONMENT),
        (["run", "--trace", str(trace), "-s", "mmap_cache", "-o", str(tmp_path / "runs")], ENVIRONMENT),
        (["record", "-o", str(tmp_path / "r.parquet"), "--", "true"], recording.EXIT_FAILED),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "benchframe", *command], capture_output=True, text=True, env=limited,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (190 << 20, 190 << 20)),
        )  # fmt: skip
        assert run.returncode == code, run.stderr
        assert "Traceback" not in run.stderr
        assert "ulimit -v" in run.stderr.splitlines()[-1]
    for journal in kept.iterdir():
        assert recording.run_record_command([], tmp_path / "r.parquet", recover=journal) == 0
        assert len(read_trace(tmp_path / "r.parquet")) > 5
    assert not (tmp_path / "runs").exists()
