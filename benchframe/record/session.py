"""`benchframe record`: a program run under a recorder until it ends or is interrupted."""

import contextlib
import os
import platform
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchframe.errors import BenchframeError, TraceError
from benchframe.events import FaultFlag, Kind
from benchframe.record import perf, ptrace
from benchframe.record import perf as R
from benchframe.record.builder import GUESSED, Builder, Maps, guess_access, read_maps
from benchframe.record.perf import (
    PerfError,
    Source,
    TracefsError,
    Tracepoint,
    function_names,
    tracefs,
    tracepoint,
    tracepoint_filter,
)
from benchframe.trace.csvfile import write_csv
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace, write_trace

# ----------------------------------------------------------------------------------------------------------------------
# One recording: start or seize the program, gather its records at the level that works, build the trace.

LEVELS = ("full", "user", "strace")
RING_PAGES = {"full": 4096, "user": 64}
"""Ring size per CPU: 16 MiB for root; 64 pages stay under kernel.perf_event_mlock_kb (516) for everyone else."""
RING_TOTAL = 1 << 16
"""Pages of all rings together, 256 MiB: on many CPUs each gets less, and the same faults spread over more rings."""
BASE_POINTS = (
    "exceptions:page_fault_user", "exceptions:page_fault_kernel", "raw_syscalls:sys_enter", "raw_syscalls:sys_exit",
    "task:task_newtask",
)  # fmt: skip
MORE_POINTS = ("maple_tree:ma_read", "mmap_lock:mmap_lock_acquire_returned")


def ring_pages(level: str) -> int:
    """Pages of each CPU's ring, a power of two."""
    pages = RING_PAGES[level]
    while pages > 128 and pages * (os.cpu_count() or 1) > RING_TOTAL:
        pages //= 2
    return pages


class RecordError(BenchframeError):
    """A recording that cannot be made: one line, with what to do."""


@dataclass
class Plan:
    """What a level will use: perf sources, their readers, and what had to be given up."""

    level: str
    sources: list[Source] = field(default_factory=list)
    points: dict[str, Tracepoint] = field(default_factory=dict)
    functions: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def planned(level: str) -> Iterator[Plan]:
    """Choose the level (``auto``: the best that works) and hold what it needs; raises RecordError."""
    if level not in ("auto", *LEVELS):
        raise RecordError(f"--level {level}: there are auto, {', '.join(LEVELS)}")
    missing: list[str] = []
    with contextlib.ExitStack() as stack:
        plan = None
        if level in ("auto", "full"):
            try:
                plan = _full(stack)
            except (TracefsError, OSError) as error:
                missing.append(f"full: {error}")
        if plan is None and level in ("auto", "user"):
            try:
                plan = _user()
            except OSError as error:
                missing.append(f"user: {error}")
        if plan is None and level in ("auto", "strace"):
            plan = Plan("strace", notes=["layout only: page faults were not recorded"])
        if plan is None:
            raise RecordError(f"level {level} does not work here ({'; '.join(missing)}); try --level auto")
        plan.notes = [f"not used: {text}" for text in missing] + plan.notes
        yield plan


def _full(stack: contextlib.ExitStack) -> Plan:
    root, done = stack.enter_context(tracefs())
    plan = Plan("full", functions=function_names(root), notes=[done] if done else [])
    for name in BASE_POINTS + MORE_POINTS:
        try:
            plan.points[name] = tracepoint(root, name)
        except TracefsError as error:
            if name in BASE_POINTS:
                raise
            plan.notes.append(f"{error}: lookups outside faults or the lock order are not recorded")
    calls = tracepoint_filter()
    for name, point in plan.points.items():
        text = calls if name.startswith("raw_syscalls") else ""
        plan.sources.append(Source(name, perf.TYPE_TRACEPOINT, point.id, filter=text))
    _probe(plan.sources[0])
    return plan


def _user() -> Plan:
    flags = perf.EXCLUDE_KERNEL | perf.EXCLUDE_HV
    source = Source("page-faults:u", perf.TYPE_SOFTWARE, perf.COUNT_SW_PAGE_FAULTS, flags, sample=perf.SAMPLE_ADDR)
    _probe(source)
    note = "faults raised in kernel mode and the kernel's own lookups were not recorded"
    return Plan("user", [source], notes=[note])


def _probe(source: Source) -> None:
    """Open the event on ourselves once: what the kernel refuses, it refuses here."""
    try:
        os.close(perf.open_event(source, 0, -1, 0, 4096, False))
    except PerfError as error:
        hint = "root, CAP_PERFMON or a lower kernel.perf_event_paranoid would allow it"
        raise PerfError(error.errno, f"{error.strerror} ({hint})") from None


class Session:
    """Record one command, or one process that runs already; use :meth:`run`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.status = 0
        self.interrupted = 0
        self.tracer = ptrace.Tracer(syscalls=plan.level != "full", filtered=plan.level != "full")
        self.recorder: perf.Recorder | None = None

    # -- a new program ----------------------------------------------------------------------------------------

    def run(self, command: list[str]) -> Trace:
        """Run ``command`` to its end and return its trace; raises RecordError."""
        program = shutil.which(command[0])
        if program is None:
            raise RecordError(f"{command[0]}: no such program; give its path, or check PATH")
        child, go, failed = self._fork(program, command)
        try:
            self.tracer.seize(child, child)
            if self.plan.sources:
                self.recorder = perf.Recorder(self.plan.sources, [child], ring_pages(self.plan.level))
                self.recorder.start()
            with self._signals(child):
                os.write(go, b"g")
                self.tracer.run()
            reason = os.read(failed, 4)
            if reason:
                raise RecordError(f"{program} cannot be run ({os.strerror(int.from_bytes(reason, sys.byteorder))})")
            self.status = self.tracer.root_status
            return self._finish(tuple(command), None)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
            raise RecordError(f"recording failed: {error.strerror or error}") from None
        finally:
            os.close(go)
            os.close(failed)
            if self.recorder is not None:
                self.recorder.close()

    def _fork(self, program: str, command: list[str]) -> tuple[int, int, int]:
        wait, go = os.pipe()
        failed, fail = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads; the child only execs
            child = os.fork()
        if child:
            os.close(wait)
            os.close(fail)
            return child, go, failed
        try:
            os.close(go)
            os.close(failed)
            if os.read(wait, 1) != b"g":
                os._exit(127)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; programs expect the default
                signal.signal(number, signal.SIG_DFL)
            if self.tracer.filtered:
                ptrace.install_filter()
            os.execv(program, command)
        except OSError as error:
            os.write(fail, (error.errno or 1).to_bytes(4, sys.byteorder))
        finally:
            os._exit(127)

    @contextlib.contextmanager
    def _signals(self, child: int) -> Iterator[None]:
        """The terminal sends Ctrl-C to the program too: we wait for it. The third one kills it. 0: no child of ours."""

        def on_interrupt(number: int, frame: object) -> None:
            self.interrupted += 1
            if not child:
                return  # attached: the first one ends the recording
            if self.interrupted >= 3 or number == signal.SIGTERM:
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL if self.interrupted >= 3 else signal.SIGTERM)

        numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
        try:
            before = [signal.signal(number, on_interrupt) for number in numbers]
        except ValueError:  # not in the main thread: leave the handlers alone
            yield
            return
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    # -- a program that runs already ----------------------------------------------------------------------------

    def attach(self, pid: int) -> Trace:
        """Record ``pid`` from now until it ends or Ctrl-C; the program goes on afterwards."""
        try:
            tids = _threads(pid)
            command = tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
        except OSError as error:
            raise RecordError(f"process {pid}: {error.strerror}") from None
        # A filter cannot be put into a program from outside: every system call stops, as strace would do it.
        self.tracer.filtered = False
        try:
            # Threads may start more threads until all are held: look again until there is none that is new.
            while new := [tid for tid in tids if tid not in self.tracer.tasks]:
                for tid in new:
                    with contextlib.suppress(ProcessLookupError):  # it has ended since
                        self.tracer.seize(tid, pid, attach=True)
                self.tracer.halt()
                tids = _threads(pid)
            start = read_maps(pid, "attach", time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            if start is None:
                raise RecordError(f"process {pid}: its /proc/{pid}/maps cannot be read")
            self.tracer.maps.append(start)
            if self.plan.sources:
                self.recorder = perf.Recorder(self.plan.sources, tids, ring_pages(self.plan.level), on_exec=False)
                self.recorder.start()
                self.recorder.enable()
            with self._signals(0):
                self.tracer.release_all(ptrace.SYSCALL if self.tracer.syscalls else ptrace.CONT)
                self.tracer.run(lambda: self.interrupted > 0)
            if self.tracer.tasks:
                self._let_go(pid)
            return self._finish(command, (start, tids))
        except OSError as error:
            raise RecordError(f"process {pid} cannot be recorded: {error.strerror or error}") from None
        finally:
            self.tracer.release_all(ptrace.DETACH)
            if self.recorder is not None:
                self.recorder.close()

    def _let_go(self, pid: int) -> None:
        """End an attached recording: all stand still while the last layouts are read, then go on without us."""
        self.tracer.halt()
        if self.recorder is not None:
            self.recorder.disable()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for process in sorted({task.pid for task in self.tracer.tasks.values()}):
            seen = read_maps(process, "exit", now)
            if seen is not None:
                self.tracer.maps.append(seen)
        self.tracer.release_all(ptrace.DETACH)

    # -- the trace --------------------------------------------------------------------------------------------

    def _finish(self, command: tuple[str, ...], attached: tuple[Maps, list[int]] | None) -> Trace:
        found: list[R.Rec] = []
        lost = 0
        if self.recorder is not None:
            self.recorder.stop()
            reader = R.Reader(self.recorder.ids, self.plan.points, self.plan.functions)
            for stream in self.recorder.streams():
                found.extend(reader.read(stream))
            lost = max(self.recorder.lost, reader.lost) + reader.bad
        full = self.plan.level == "full"
        # With tracepoints, perf tells of tasks and calls and ptrace only of layouts and signals; else the reverse.
        ours = (R.SEGV,) if full else (R.SEGV, R.ENTER, R.LEAVE, R.NEW, R.EXEC, R.GONE)
        kept = found if full else [rec for rec in found if rec.what in (R.FAULT, R.AREA)]
        kept = kept + [rec for rec in self.tracer.records if rec.what in ours]
        if attached is not None:  # what happened while everybody was brought to a halt is in the layout already
            kept = [rec for rec in kept if rec.time >= attached[0].time]
        kept.sort(key=lambda rec: rec.time)
        builder = Builder(self.tracer.maps)
        if attached is not None:
            builder.attach(*attached)
        for rec in kept:
            builder.add(rec)
        code = os.waitstatus_to_exitcode(self.status)
        meta = TraceMeta(
            command=command,
            kernel=f"{platform.system()} {platform.release()} {platform.version()}",
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
            level=self.plan.level,
            lost=lost,
            limits=_limits(),
            exit_status=code,
            tool=tool(),
            notes=tuple(self.plan.notes),
        )
        trace = builder.trace(meta)
        trace.meta = _with_faults(trace, self.tracer.maps)
        if guess_access(trace):
            trace.meta = replace(trace.meta, notes=(*trace.meta.notes, GUESSED))
        return trace


def _with_faults(trace: Trace, maps: list[Maps]) -> TraceMeta:
    """Compare recorded faults with the kernel's own count (getrusage) between each process's first exec and its end.

    The kernel counts one more per exec (it writes the arguments with no event), and faults that get_user_pages makes;
    it does not count a fault that ended in a signal.
    """
    first: dict[int, Maps] = {}
    expected = 0
    root = maps[0].pid if maps else 0
    for seen in maps:
        if seen.when == "exit":
            base = first[root].faults if seen.pid == root and root in first else 0
            expected += seen.faults - base
        elif seen.pid in first:
            expected -= 1
        else:
            first[seen.pid] = seen
            expected -= 0 if seen.pid == root else 1
    kind = trace.events["kind"]
    good = (kind == Kind.FAULT) & ((trace.events["flags"] & FaultFlag.SEGV) == 0)
    setup = min((s.row for s in trace.meta.snapshots), default=0)
    faults = {"recorded": int(good[setup:].sum()), "expected": max(expected, 0)}
    return replace(trace.meta, faults=faults)


def _threads(pid: int) -> list[int]:
    """The process's threads, its leader first; raises OSError."""
    return sorted((int(p.name) for p in Path(f"/proc/{pid}/task").iterdir()), key=lambda tid: (tid != pid, tid))


def _limits() -> dict[str, int]:
    limits = {}
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    limits["stack"] = -1 if stack == resource.RLIM_INFINITY else min(stack, (1 << 63) - 1)
    for name in ("max_map_count", "mmap_min_addr"):
        with contextlib.suppress(OSError, ValueError):
            limits[name] = int(Path(f"/proc/sys/vm/{name}").read_text())
    return limits


def tool() -> str:
    """The name and version that made a trace."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"benchframe {version('benchframe')}"
    except PackageNotFoundError:
        return "benchframe"


# ----------------------------------------------------------------------------------------------------------------------
# ``benchframe record``: the command behind the command line.

EXIT_FAILED = 125
"""Our own failure, as in env(1) and timeout(1): a code that programs rarely use, since theirs is passed on."""


def run_record_command(
    command: list[str],
    output: Path,
    level: str = "auto",
    allow_lost: bool = False,
    attach: int | None = None,
    split: bool = False,
) -> int:
    """Record ``command`` (or process ``attach``) to ``output`` (CSV if it ends so); returns the program's exit code.

    The program keeps its stdin, stdout, signals and exit code (128 + n if signal n ended it); we speak on stderr.
    ``split`` writes one file per address space, ``NAME.0.parquet`` and so on. A trace that lost events is refused
    unless ``allow_lost``. Our own failures end in one line and exit code 125.
    """
    if bool(command) == (attach is not None):
        return _fail("give a command after --, or --attach PID")
    if not sys.platform.startswith("linux"):
        return _fail("recording needs Linux; traces recorded there can be replayed anywhere")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        return _fail(f"{output.parent}: not a writable folder; choose another with -o")
    if output.is_dir():
        return _fail(f"{output} is a folder; name a file with -o, such as {output / 'trace.parquet'}")
    try:
        with planned(level) as plan:
            session = Session(plan)
            trace = session.attach(attach) if attach is not None else session.run(command)
        _say(f"level {plan.level}: {summary(trace)}")
        for note in trace.meta.notes:
            _say(note)
        if trace.meta.lost and not allow_lost:
            return _fail(
                f"{trace.meta.lost} events were lost, so nothing was written; --allow-lost accepts such a trace"
            )
        for path, part in _outputs(output, trace, split):
            (write_csv if path.suffix == ".csv" else write_trace)(path, part)
            _say(f"wrote {path} ({path.stat().st_size / 1024:.1f} KiB)")
    except (RecordError, TraceError) as error:
        return _fail(str(error))
    code = trace.meta.exit_status
    return code if code >= 0 else 128 - code


def summary(trace: Trace) -> str:
    """One line: events, tasks, address spaces, lost events, faults against getrusage."""
    faults = trace.meta.faults
    return (
        f"{len(trace)} events, {trace.tasks} tasks, {trace.mms} address spaces, {trace.meta.lost} lost, "
        f"faults {faults.get('recorded', 0)} recorded, {faults.get('expected', 0)} by getrusage"
    )


def _outputs(output: Path, trace: Trace, split: bool) -> list[tuple[Path, Trace]]:
    if not split or trace.mms < 2:
        return [(output, trace)]
    from benchframe.trace.trace import split_trace

    return [(output.with_suffix(f".{i}{output.suffix}"), part) for i, part in enumerate(split_trace(trace))]


def _say(text: str) -> None:
    print(f"benchframe record: {text}", file=sys.stderr)


def _fail(text: str) -> int:
    _say(text)
    return EXIT_FAILED
