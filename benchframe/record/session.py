"""A recording session: a program that runs under a recorder until it ends or is interrupted, and what was recorded."""

import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchframe.errors import BenchframeError
from benchframe.record import perf, ptrace
from benchframe.record import records as R
from benchframe.record.builder import Builder
from benchframe.record.perf import PerfError, Source, TracefsError, Tracepoint, function_names, tracefs, tracepoint
from benchframe.record.procfs import ControlGroup, proc, read_raw
from benchframe.record.recording import Recording
from benchframe.record.records import Journal, merged, tracepoint_filter
from benchframe.trace.meta import TraceMeta

GRACE = 3.0
"""Seconds that a program may take to end after Ctrl-C or SIGTERM; what runs longer goes on unrecorded."""
NICE = -10
"""The nice value of the recorder while it records, as root."""
EVENT_BYTES = 48
"""Bytes of a perf record at least: how ``max_events`` is noticed while recording (the trace is cut exactly)."""
FRONT_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
CONTROL = (*FRONT_SIGNALS, signal.SIGUSR1, signal.SIGCHLD)
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


def _nap(seconds: float) -> None:
    signal.sigtimedwait(CONTROL, seconds)


@dataclass(frozen=True)
class Ends:
    """When a recording ends before its program does: after seconds, after events, with the program itself (what it
    left running goes on)."""

    duration: float = 0.0
    max_events: int = 0
    detach: bool = False


class Worker:
    """The recorder process: follows the program and fills the journal."""

    def __init__(
        self, plan: Plan, journal: Journal, ends: Ends, tell: int, parent: int, group: ControlGroup | None
    ) -> None:
        self.plan, self.journal, self.ends, self._tell, self._parent = plan, journal, ends, tell, parent
        self._group = group
        self._left: Counter[str] = Counter()
        full = plan.level == "full"
        self.tracer = ptrace.Tracer(
            syscalls=not full, filtered=not full, record=journal.record, look=self._look, layout=journal.layout,
            only_signals=full,
        )  # fmt: skip
        self.recorder: perf.Recorder | None = None
        self.end: dict[str, Any] | None = None
        self.orphan = False
        self._started = time.monotonic()
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._asked: float | None = None
        self._at_once = False
        self._full: OSError | None = None
        # All signals wait until they are asked for (sigtimedwait): none is lost between a look and a sleep.
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, CONTROL)
        ptrace.die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            self._ask(signal.SIGTERM)

    def _look(self, pid: int, when: str, time: int, tid: int) -> dict[str, Any] | None:
        """Read a layout; notice a process that has left the group, whose events are missing."""
        raw = read_raw(pid, when, time, tid)
        if raw is not None and self._group is not None and not self._group.holds(pid):
            self._left[raw.get("command", "").split("\0")[0] or str(pid)] += 1
        return raw

    def guarded(self, work: Callable[["Worker"], None]) -> None:
        """Do the work and tell how it ended."""
        try:
            work(self)
            self._finish()
        except (BenchframeError, OSError) as error:
            if self.tracer.root and self.tracer.filtered:
                with contextlib.suppress(OSError):
                    os.kill(self.tracer.root, signal.SIGKILL)
            text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self.end = {"error": text if isinstance(error, BenchframeError) else f"recording failed: {text}"}
            self.tracer.release_all(ptrace.DETACH)
        self.restore_priority()
        if self._group is not None:
            self._group.close()
        with contextlib.suppress(OSError):
            os.write(self._tell, (json.dumps(self.end) + "\n").encode())
            os.close(self._tell)

    # -- a new program ----------------------------------------------------------------------------------------

    def run(self, program: str, command: list[str]) -> None:
        """Start the program and follow it; raises RecordError, OSError."""
        child, go, failed = self._fork(program, command)
        self.tracer.seize(child, child)
        self._raise_priority()
        if self.plan.sources:
            self._open_new(child)
        os.write(go, b"g")
        self.tracer.run(self._ended, self._wait)
        os.set_blocking(failed, False)
        with contextlib.suppress(BlockingIOError):
            reason = os.read(failed, 4)
            if reason:
                text = os.strerror(int.from_bytes(reason, sys.byteorder))
                raise RecordError(f"{program} cannot be run ({text})")
        os.close(go)
        os.close(failed)

    def _raise_priority(self) -> None:
        """Run before others, where we may: the program stands still while we are asked, and a ring that is drained late
        loses events."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, min(NICE, self._nice))

    def restore_priority(self) -> None:
        """The recording is over: run as we were started."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self._nice)

    def _open_new(self, child: int) -> None:
        """Open the events of a program that has not begun: those of its control group, or such as it passes on."""
        if self._group is not None:
            try:
                self._group.take(child)
                self._open([], on_exec=False)
            except OSError:  # such as a kernel whose perf events belong to the groups of version 1
                self._group.close()
                self._group = None
            else:
                assert self.recorder is not None
                self.recorder.enable()
                return
        self._open([child], on_exec=True)

    def _open(self, tids: list[int], on_exec: bool) -> None:
        group = -1 if self._group is None else self._group.fd
        self.recorder = perf.Recorder(
            self.plan.sources, tids, ring_pages(self.plan.level), on_exec, self.journal.ring, self.journal.flush, group
        )
        self.journal.identify({number: source.name for number, source in self.recorder.ids.items()})
        self.recorder.start()

    def _fork(self, program: str, command: list[str]) -> tuple[int, int, int]:
        wait, go = os.pipe()
        failed, fail = os.pipe()
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
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; programs expect the default
                signal.signal(number, signal.SIG_DFL)
            if self.tracer.filtered:
                ptrace.install_filter()
            os.execv(program, command)
        except OSError as error:
            os.write(fail, (error.errno or 1).to_bytes(4, sys.byteorder))
        finally:
            os._exit(127)

    # -- a program that runs already ----------------------------------------------------------------------------

    def attach(self, pid: int, tree: bool) -> None:
        """Seize what runs and follow it; raises RecordError, OSError."""
        self._raise_priority()
        # A filter cannot be put into a program from outside: every system call stops, as strace would do it.
        self.tracer.filtered = False
        # Threads may start more threads until all are held: look again until there is none that is new.
        while new := [(tid, p) for p in self._family(pid, tree) for tid in _threads(p) if tid not in self.tracer.tasks]:
            for tid, process in new:
                with contextlib.suppress(ProcessLookupError):  # it has ended since
                    self.tracer.seize(tid, process, attach=True)
            self.tracer.halt()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        threads = {p: _threads(p) for p in self._family(pid, tree)}
        layouts = [raw for raw in (read_raw(p, "attach", now) for p in threads) if raw is not None and raw["maps"]]
        if not layouts:
            raise RecordError(f"process {pid}: its /proc/{pid}/maps cannot be read")
        self.journal.begin_threads({raw["pid"]: threads[raw["pid"]] for raw in layouts})
        for raw in layouts:
            self.journal.layout(raw)
        if self.plan.sources:
            self._open([tid for raw in layouts for tid in threads[raw["pid"]]], on_exec=False)
            assert self.recorder is not None
            self.recorder.enable()
        self.tracer.release_all(ptrace.SYSCALL if self.tracer.syscalls else ptrace.CONT)
        self._parent_of_all = False
        self.tracer.run(self._ended, self._wait)

    _parent_of_all = True

    @staticmethod
    def _family(pid: int, tree: bool) -> list[int]:
        """``pid`` and, with ``tree``, the processes below it."""
        family = [pid]
        for process in family if tree else ():
            for tid in _threads(process):
                with contextlib.suppress(OSError):
                    text = (proc() / str(process) / "task" / str(tid) / "children").read_text()
                    family += [int(word) for word in text.split() if int(word) not in family]
        return family

    # -- the end ----------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Sleep until a task stops, a signal comes or the time is over."""
        got = signal.sigtimedwait(CONTROL, seconds)
        if got is not None and got.si_signo in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
            self._ask(got.si_signo)

    def _ask(self, number: int) -> None:
        if os.getppid() != self._parent:
            self.orphan = self._at_once = True
            return
        if self._asked is not None or not self._parent_of_all:
            self._at_once = True
        self._asked = time.monotonic()
        if number != signal.SIGUSR1 and self._parent_of_all and not self.tracer.root_gone:
            with contextlib.suppress(OSError):
                os.kill(self.tracer.root, number)

    def _ended(self) -> bool:
        if self._at_once or self.tracer.refused:
            return True
        if self._asked is not None:
            return self.tracer.root_gone or time.monotonic() > self._asked + GRACE
        if self.recorder is not None and self.recorder.error is not None:
            return True
        ends = self.ends
        if ends.duration and time.monotonic() > self._started + ends.duration:
            return True
        if ends.max_events and self.recorder is not None and self.recorder.drained > ends.max_events * EVENT_BYTES:
            return True
        return ends.detach and self.tracer.root_gone

    def _finish(self) -> None:
        """What still runs goes on without us, after a last look at its layouts."""
        notes = []
        tracer = self.tracer
        left = len(tracer.of)
        if tracer.refused:
            with contextlib.suppress(OSError):
                os.kill(tracer.root, signal.SIGKILL)
            raise RecordError(tracer.refused)
        if tracer.tasks:
            tracer.halt()
            if self.recorder is not None:
                self.recorder.disable()
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            for process in sorted({task.pid for task in tracer.tasks.values() if not task.borrowed}):
                raw = read_raw(process, "exit", now)
                if raw is not None and self._full is None:
                    self.journal.layout(raw)
            tracer.muted = True
            tracer.release_all(ptrace.CONT if tracer.filtered else ptrace.DETACH)
            notes.append(f"the recording ended while {left} of its processes still ran")
        lost = 0
        if self.recorder is not None:
            self.recorder.stop()
            lost = self.recorder.lost
            if self.recorder.error is not None:
                reason = self.recorder.error.strerror or str(self.recorder.error)
                notes.append(f"the recording was ended early: what it keeps in {self.journal.folder} ({reason})")
            self.recorder.close()
        self.journal.close()
        self.end = {
            "status": tracer.root_status,
            "lost": lost,
            "notes": notes,
            "minding": bool(tracer.filtered and tracer.tasks),
            "running": self._parent_of_all and not tracer.root_gone,
        }
        if self._left:
            names = ", ".join(sorted(self._left)[:5])
            self.end["left"] = f"programs that changed their control group: {len(self._left)} ({names})"

    def mind(self) -> None:
        """A program whose calls a filter stops cannot go on without a tracer: help it along, and record nothing."""
        self.journal.release()
        if not (self.tracer.muted and self.tracer.filtered and self.tracer.tasks):
            return
        with open(os.devnull, "r+b") as null:  # noqa: PTH123
            for descriptor in (0, 1, 2):
                os.dup2(null.fileno(), descriptor)
        self.tracer.run(lambda: False, _nap)


class Session:
    """Record one command, or one process that runs already: :meth:`run` or :meth:`attach`, then :attr:`recording`.

    Two processes share the work. The *recorder* starts (or seizes) the program, follows it and keeps all that comes in
    the files of a :class:`~benchframe.record.records.Journal`; this process waits, passes signals on, and builds the
    trace from the journal. So a trace survives the death of either: a killed recorder leaves its journal, and a
    recorder whose parent was killed ends the recording and calls ``orphaned`` to build and write the trace.
    """

    def __init__(
        self,
        plan: Plan,
        ends: Ends | None = None,
        orphaned: "Callable[[Session], None] | None" = None,
        grouped: bool = True,
    ) -> None:
        """``grouped``: in a control group where that is possible; else each new process inherits the events."""
        self.plan = plan
        self.grouped = grouped
        self.ends = ends or Ends()
        self.orphaned = orphaned
        self.journal = Journal.make()
        self.group: ControlGroup | None = None
        self.recorder_pid = 0
        self.signals: list[int] = []

    def run(self, command: list[str]) -> None:
        """Run ``command`` to its end, or as long as ``ends`` says; raises RecordError."""
        program = shutil.which(command[0])
        if program is None:
            raise RecordError(f"{command[0]}: no such program; give its path, or check PATH")
        if self.plan.level == "full" and self.grouped:
            with contextlib.suppress(OSError):
                self.group = ControlGroup()
        try:
            self._record(tuple(command), lambda worker: worker.run(program, command))
        finally:
            if self.group is not None:
                self.group.close()

    def attach(self, pid: int, tree: bool = False) -> None:
        """Record ``pid`` (with ``tree`` its descendants too) until it ends or Ctrl-C; it goes on afterwards."""
        try:
            _threads(pid)
            command = tuple(
                (proc() / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            )
        except OSError as error:
            raise RecordError(f"process {pid}: {error.strerror}") from None
        self._record(command, lambda worker: worker.attach(pid, tree))

    def _record(self, command: tuple[str, ...], work: Callable[[Worker], None]) -> None:
        self.journal.describe(
            level=self.plan.level, command=command, notes=self.plan.notes, limits=_limits(), tool=tool(),
            points={name: [p.id, p.fields] for name, p in self.plan.points.items()}, functions=self.plan.functions,
            kernel=f"{platform.system()} {platform.release()} {platform.version()}",
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs", max_events=self.ends.max_events,
        )  # fmt: skip
        told, tell = os.pipe()
        sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        before = {number: signal.getsignal(number) for number in FRONT_SIGNALS}
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:  # nohup asked for that
                    signal.signal(number, self._on_signal)
        except ValueError:  # not in the main thread: leave the handlers alone
            before = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads
                pid = os.fork()
            if pid == 0:
                os.close(told)
                self._recorder(work, tell, os.getppid())
            self.recorder_pid = pid
            os.close(tell)
            tell = -1
            answer = b""
            while part := os.read(told, 1 << 16):  # EOF: the recorder is done with the recording, or dead
                answer += part
            end = json.loads(answer) if answer.endswith(b"\n") else {}
            if not end:
                _, status = os.waitpid(pid, 0)
                what = (
                    f"the recorder was ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "it failed"
                )
                end = {"killed": what}
            elif not end.get("minding"):
                os.waitpid(pid, 0)
            if end.get("error"):
                raise RecordError(end["error"])
            self.journal.end(end)
        finally:
            os.close(told)
            if tell >= 0:
                os.close(tell)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        """Ctrl-C reached the program too, by the terminal; SIGTERM and SIGHUP it gets from the recorder."""
        self.signals.append(number)
        if self.recorder_pid:
            with contextlib.suppress(OSError):
                os.kill(self.recorder_pid, signal.SIGUSR1 if number in (signal.SIGINT, signal.SIGQUIT) else number)

    def _recorder(self, work: Callable[[Worker], None], tell: int, parent: int) -> None:
        """The recorder process: never returns."""
        code = 1
        try:
            worker = Worker(self.plan, self.journal, self.ends, tell, parent, self.group)
            worker.guarded(work)
            if worker.orphan and self.orphaned is not None and worker.end is not None and not worker.end.get("error"):
                self.journal.end(worker.end)
                self.journal.hold()  # in our own name now
                with open(os.devnull, "r+b") as null:  # noqa: PTH123
                    for descriptor in (0, 1, 2):  # nobody reads us any more
                        os.dup2(null.fileno(), descriptor)
                self.orphaned(self)
            worker.mind()
            code = 0
        except BaseException:
            import traceback

            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()
        finally:
            os._exit(code)

    # -- the trace --------------------------------------------------------------------------------------------

    def recording(self, progress: Callable[[float], None] | None = None) -> Recording:
        """What was recorded, in order. Raises RecordError."""
        return read_journal(self.journal, progress)

    def close(self) -> None:
        """Remove the journal."""
        self.journal.remove()


def read_journal(journal: Journal, progress: Callable[[float], None] | None = None) -> Recording:
    """Build the recording that a journal holds; O(records log records). Raises RecordError, OSError."""
    about, end = journal.about(), journal.ended()
    points = {name: Tracepoint(name, number, {k: (v[0], v[1]) for k, v in fields.items()})
              for name, (number, fields) in about["points"].items()}  # fmt: skip
    functions = {int(address): name for address, name in about["functions"].items()}
    ids = {int(number): name for number, name in journal.ids().items()}
    reader = R.Reader(ids, points, functions)
    recs, maps = journal.tracer()
    full = about["level"] == "full"
    start = next((seen for seen in maps if seen.when == "attach"), None)
    builder = Builder(maps, numbers_of_i386=full, began=False)
    since = start.time if start is not None else 0
    if start is not None:
        builder.attach_all([seen for seen in maps if seen.when == "attach"], journal.threads())
    # With tracepoints, perf tells of tasks and calls and ptrace only of layouts and signals; else the reverse.
    wanted = None if full else (R.FAULT, R.AREA)
    for faults, others in merged(reader, journal.streams(), recs, wanted, progress):
        builder.add_window(faults, others, since)
    notes = list(about["notes"])
    lost = max(end.get("lost", 0), reader.lost) + reader.bad
    if end.get("killed"):
        notes.append(f"{end['killed']}: the trace ends there, and what the kernel lost is not known")
    notes += end.get("notes", [])
    meta = TraceMeta(
        command=tuple(about["command"]), kernel=about["kernel"], date=about["date"], machine=about["machine"],
        level=about["level"], lost=lost, limits=about["limits"], tool=about["tool"], notes=tuple(notes),
        exit_status=os.waitstatus_to_exitcode(end.get("status", 0)),
    )  # fmt: skip
    return builder.recording(meta, about.get("max_events", 0))


def _threads(pid: int) -> list[int]:
    """The process's threads, its leader first; raises OSError."""
    return sorted((int(p.name) for p in (proc() / str(pid) / "task").iterdir()), key=lambda tid: (tid != pid, tid))


def _limits() -> dict[str, int]:
    limits = {}
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    limits["stack"] = -1 if stack == resource.RLIM_INFINITY else min(stack, (1 << 63) - 1)
    for name in ("max_map_count", "mmap_min_addr"):
        with contextlib.suppress(OSError, ValueError):
            limits[name] = int(Path(f"/proc/sys/vm/{name}").read_text())
    return limits


@cache
def tool() -> str:
    """The name and version that made a trace."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"benchframe {version('benchframe')}"
    except PackageNotFoundError:
        return "benchframe"
