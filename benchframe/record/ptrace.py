"""Following a process tree with ptrace(2): layouts at exec and exit, new tasks; without tracepoints, system calls.

Stops are few: exec, exit, clone, signals; and with ``syscalls=True`` the mm system calls alone, picked by a seccomp
filter in the child (SECCOMP_RET_TRACE) so that all others run at full speed. Numbers: include/uapi/linux/ptrace.h,
seccomp.h, filter.h.
"""

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchframe.record.procfs import proc, read_raw
from benchframe.record.records import (
    ARCH_I386,
    ARCH_X86_64,
    CLONE_VM,
    CLONES,
    ENTER,
    EXEC,
    EXECS,
    GONE,
    I386,
    LEAVE,
    MM_CALLS,
    NEW,
    NR,
    SEGV,
    Rec,
    from_i386,
)

CONT, DETACH, SYSCALL, GETEVENTMSG, GETSIGINFO, SEIZE, INTERRUPT, LISTEN, GET_SYSCALL_INFO = (
    7, 17, 24, 0x4201, 0x4202, 0x4206, 0x4207, 0x4208, 0x420E,
)  # fmt: skip
O_SYSGOOD, O_FORK, O_VFORK, O_CLONE, O_EXEC, O_EXIT, O_SECCOMP, O_EXITKILL = 1, 2, 4, 8, 16, 64, 128, 1 << 20
E_FORK, E_VFORK, E_CLONE, E_EXEC, E_EXIT, E_SECCOMP, E_STOP = 1, 2, 3, 4, 6, 7, 128
WALL = 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
PATIENCE = 50_000_000
"""ns that a call may keep others waiting before they run beside it."""
HALT_PATIENCE = 2_000_000_000
"""ns to wait for tasks that do not stop (in an uninterruptible sleep)."""
SPIN = 150_000
"""ns to look for the next stop without sleeping, in a storm of them: waking costs more than handling a stop."""
STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, tid: int, addr: int = 0, data: "int | ctypes.Array[ctypes.c_char]" = 0) -> int:
    """One ptrace call; raises OSError (ESRCH when the task was killed meanwhile: callers expect that)."""
    pointer = data if isinstance(data, int) else ctypes.addressof(data)
    result = int(_libc.ptrace(request, tid, addr, pointer))
    if result == -1 and (code := ctypes.get_errno()):
        raise OSError(code, os.strerror(code))
    return result


def install_filter() -> None:
    """In the child before exec: stop for the tracer at mm, clone and exec system calls, and at no others."""
    program = filter_program()
    code = ctypes.create_string_buffer(program, len(program))
    about = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    if os.geteuid() != 0:  # root keeps set-user-id programs working; others must give that up
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(PR_SET_SECCOMP, 2, about, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def die_with_parent(signum: int) -> None:
    """Have the kernel send ``signum`` to this process when its parent dies (PR_SET_PDEATHSIG)."""
    _libc.prctl(1, int(signum), 0, 0, 0)


def filter_program() -> bytes:
    """The classic BPF program: by architecture (a 32-bit program has numbers of its own), then by number."""
    lists = ((ARCH_X86_64, sorted(MM_CALLS | CLONES | EXECS)), (ARCH_I386, sorted(I386.values())))
    code = [struct.pack("=HBBI", 0x20, 0, 0, 4)]  # load the architecture
    for arch, numbers in lists:
        count = len(numbers)
        code.append(struct.pack("=HBBI", 0x15, 0, count + 3, arch))
        code.append(struct.pack("=HBBI", 0x20, 0, 0, 0))  # load the system call's number
        code += [struct.pack("=HBBI", 0x15, count - i, 0, number) for i, number in enumerate(numbers)]
        code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))  # SECCOMP_RET_ALLOW
        code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x7FF00000))  # SECCOMP_RET_TRACE
    code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    return b"".join(code)


@dataclass
class Task:
    """A traced thread: its process, and the system call it is in (number, args) if that was asked for."""

    tid: int
    pid: int
    call: tuple[int, tuple[int, ...]] | None = None
    borrowed: bool = False  # lives in its maker's address space (vfork, posix_spawn) until it execs


@dataclass
class Turn:
    """Whose mm system call runs in a process, since when, and which threads wait at their entry for it to end."""

    tid: int
    since: int
    waiting: list[tuple[Task, tuple[object, ...]]] = field(default_factory=list)


@dataclass
class Tracer:
    """Follows what it was given with :meth:`seize` until all is gone (:meth:`run`).

    ``record`` is called with NEW, EXEC, GONE and SEGV (and ENTER, LEAVE with ``syscalls``). At exec and at the end
    ``look`` reads what /proc shows (as :func:`~benchframe.record.procfs.read_raw`) while the task stands still, and
    ``layout`` is called with that, once the task runs again where it can. Without the
    kernel's lock events nobody could tell the order of two calls that overlap, so mm calls of one process take turns.
    """

    syscalls: bool = False
    filtered: bool = False
    record: Callable[[Rec], None] = lambda rec: None
    look: Callable[[int, str, int, int], dict[str, Any] | None] = read_raw
    layout: Callable[[dict[str, Any]], None] = lambda raw: None
    only_signals: bool = False  # tasks and execs are recorded by perf
    muted: bool = False  # the recording is over: programs that a filter stops are only helped along
    tasks: dict[int, Task] = field(default_factory=dict)
    root: int = 0
    root_status: int = 0
    root_gone: bool = False
    halting: set[int] = field(default_factory=set)
    newborn: set[int] = field(default_factory=set)
    turns: dict[int, Turn] = field(default_factory=dict)
    of: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Threads by process."""
    ending: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Those of them that have begun to end."""
    leaving: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    """The last processes that were let go of while they ended."""
    refused: str = ""
    """Why a program cannot be recorded at all; empty if all can."""

    def options(self, attach: bool) -> int:
        """PTRACE_O_* bits."""
        bits = O_SYSGOOD | O_FORK | O_VFORK | O_CLONE | O_EXEC | O_EXIT
        if self.filtered:
            bits |= O_SECCOMP
        # A filtered program cannot go on without us (its mm calls would fail); any other can.
        return bits | (O_EXITKILL if self.filtered and not attach else 0)

    def seize(self, tid: int, pid: int, attach: bool = False) -> None:
        """Begin to trace one thread; raises OSError."""
        try:
            ptrace(SEIZE, tid, 0, self.options(attach))
        except ProcessLookupError:
            raise
        except OSError as error:
            hint = "another tracer, kernel.yama.ptrace_scope or a container's seccomp profile forbids it"
            raise OSError(error.errno, f"ptrace of {tid} is refused ({error.strerror}: {hint})") from None
        self._add(tid, pid)
        self.root = self.root or pid

    def _add(self, tid: int, pid: int) -> Task:
        task = self.tasks.get(tid)
        if task is None:
            task = self.tasks[tid] = Task(tid, pid)
        elif task.pid != pid:
            self.of[task.pid].discard(tid)
            task.pid = pid
        self.of[pid].add(tid)
        return task

    def _drop(self, tid: int) -> Task | None:
        task = self.tasks.pop(tid, None)
        if task is not None:
            for threads in (self.of, self.ending):
                threads[task.pid].discard(tid)
                if not threads[task.pid]:
                    del threads[task.pid]
        return task

    def _note(self, rec: Rec) -> None:
        if not self.muted and (rec.what == SEGV or not self.only_signals):
            self.record(rec)

    def run(self, ended: Callable[[], bool], wait: Callable[[float], None] = time.sleep) -> None:
        """Handle stops until every task is gone or ``ended``; ``wait(seconds)`` may return early, as signals come.

        While stops follow each other within :data:`SPIN`, it looks for the next without sleeping (on one CPU never).
        """
        spin = SPIN if len(os.sched_getaffinity(0)) > 1 else 0
        last, gap = 0, spin
        while self.tasks and not ended():
            try:
                tid, status = os.waitpid(-1, WALL | os.WNOHANG)
            except ChildProcessError:
                break
            now = _now()
            if tid:
                gap = now - last
                self._handle(tid, status)
                last = _now()
                continue
            if not (self.turns and any(turn.waiting for turn in self.turns.values())):
                if gap >= spin or now - last >= spin:
                    wait(0.25)
                continue
            late = now - PATIENCE
            for pid in [pid for pid, turn in self.turns.items() if turn.waiting and turn.since < late]:
                self._next_turn(pid)  # it waits for something else: perhaps for one of those that wait for it
            wait(0.0002)
        self._await_ends()

    def _handle(self, tid: int, status: int) -> None:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._gone(tid)
            if tid == self.root:
                self.root_status, self.root_gone = status, True
            return
        task = self.tasks.get(tid)
        if task is None:  # the first stop of a new task came before its maker's event: it waits for that
            self._add(tid, tid)
            self.newborn.add(tid)
            return
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            self._stopped(task, status >> 16, os.WSTOPSIG(status))

    def _stopped(self, task: Task, event: int, signum: int) -> None:
        """Record what a stop tells, and let the task go on - unless all are being halted."""
        now = _now()
        data = 0
        if event in (E_FORK, E_VFORK, E_CLONE):
            self._made(task, now, _message(task.tid), event)
        elif event == E_EXEC:
            self._exec(task, now)
        elif event == E_EXIT:
            if self._ending(task, now):
                return
        elif event == E_SECCOMP or signum == signal.SIGTRAP | 0x80:
            if not self._syscall_stop(task, now):
                return
        elif event == 0:
            if signum in (signal.SIGSEGV, signal.SIGBUS):
                self._segv(task, now)
            data = signum
        if task.tid in self.halting and event != E_EXIT and not data:
            self.halting.discard(task.tid)  # any stop will do: it also takes back the interrupt
            return
        stay = event == E_STOP and signum in STOPPING
        ptrace(LISTEN if stay else self._go(task), task.tid, 0, data)
        if task.tid in self.halting and data:
            ptrace(INTERRUPT, task.tid)

    def _go(self, task: Task) -> int:
        if self.syscalls and not self.muted and (not self.filtered or task.call is not None):
            return SYSCALL
        return CONT

    def _made(self, task: Task, now: int, child: int, event: int) -> None:
        same = event == E_CLONE and os.path.exists(f"{proc()}/{task.pid}/task/{child}")  # noqa: PTH110 (a path costs)
        pid = task.pid if same else child
        number, args = task.call or (-1, ())
        flags = {E_FORK: 0, E_VFORK: 0x4100}.get(event, 0x10100 if pid == task.pid else 0)
        if number == NR["clone"]:
            flags = args[0]
        elif number == NR["clone3"]:
            flags = _peek(task.tid, args[0])
        made = self._add(child, pid)
        made.borrowed = pid != task.pid and (event == E_VFORK or bool(flags & CLONE_VM))
        self._note(Rec(now, NEW, task.tid, (child, flags)))
        self._born(child)

    def _born(self, child: int) -> None:
        """Let a new task run, if it has stopped already."""
        if child in self.newborn:
            self.newborn.discard(child)
            with contextlib.suppress(OSError):
                ptrace(self._go(self.tasks[child]), child)

    def _exec(self, task: Task, now: int) -> None:
        former = _message(task.tid)
        if former != task.tid:
            self._drop(former)
            self._note(Rec(now, GONE, former))
        for tid in [tid for tid in self.of[task.pid] if tid != task.tid]:
            self._drop(tid)
        self.turns.pop(task.pid, None)
        task.borrowed = False
        if self.muted:
            return
        raw = self.look(task.pid, "exec", now, 0)
        if raw is not None:
            self.layout(raw)
            if raw.get("bits") == 33:
                self.refused = "an x32 program: its system calls are not recorded"
        self._note(Rec(now, EXEC, task.tid, (task.pid,)))

    def _ending(self, task: Task, now: int) -> bool:
        """Take the layout when the whole process ends; a thread may die unreported, so a later one replaces it.

        True if we have let go of the task: of the only thread of a process nothing more is to be learnt, and its parent
        waits no longer than it must (what is traced must be reaped twice).
        """
        self.ending[task.pid].add(task.tid)
        self._end_turn(task)
        raw = None
        if not (self.muted or task.borrowed):
            left = len(self.of[task.pid]) - len(self.ending[task.pid])
            if left > 2 and left & (left - 1):
                return False  # of many threads that end together, a few are asked: the last three among them
            if all(_dying(task.pid, tid) for tid in self.of[task.pid] - self.ending[task.pid]):
                raw = self.look(task.pid, "exit", now, task.tid)
        free = task.tid == task.pid and len(self.of[task.pid]) == 1 and task.tid not in (self.root, *self.halting)
        try:
            if free:
                ptrace(DETACH, task.tid)
        finally:
            if raw is not None:
                self.layout(raw)
        if free:
            self.leaving.append(task.tid)
            self._gone(task.tid)
        return free

    def _gone(self, tid: int) -> None:
        """Forget a task that has ended."""
        gone = self._drop(tid)
        if gone is not None:
            self._end_turn(gone)
        self._note(Rec(_now(), GONE, tid))
        for child in list(self.newborn):  # its maker may have been killed before it could tell of it
            self._born(child)

    def _await_ends(self) -> None:
        """Wait until those that we let go of have ended, so that their last events are among the records."""
        late = _now() + PATIENCE
        for tid in self.leaving:
            while _now() < late and not _ended(tid):
                time.sleep(0.0005)
        self.leaving.clear()

    def _segv(self, task: Task, now: int) -> None:
        info = ctypes.create_string_buffer(128)
        ptrace(GETSIGINFO, task.tid, 0, info)
        code, address = struct.unpack_from("=i", info.raw, 8)[0], struct.unpack_from("=Q", info.raw, 16)[0]
        if code > 0:  # raised by the kernel, not by kill(2)
            self._note(Rec(now, SEGV, task.tid, (address,)))

    def _syscall_stop(self, task: Task, now: int) -> bool:
        """Record a system call's entry or exit; False if the task must wait for its turn."""
        info = ctypes.create_string_buffer(88)
        ptrace(GET_SYSCALL_INFO, task.tid, 88, info)
        op = info.raw[0]
        if op in (1, 3):  # entry, seccomp
            if task.tid in self.halting or self.muted:
                return True  # it stops here, and the call runs when we are gone
            number, *args = struct.unpack_from("=7Q", info.raw, 24)
            if struct.unpack_from("=I", info.raw, 4)[0] == ARCH_I386:
                if number == I386["old_mmap"]:
                    args = _peek_words(task.tid, args[0])
                number, translated = from_i386(number, tuple(args))
                args = list(translated)
            if number in MM_CALLS or number in CLONES or number in EXECS:
                task.call = (number, tuple(args))
                values = (number, self._with_file(task, number, tuple(args)))
                if number in MM_CALLS:
                    turn = self.turns.get(task.pid)
                    if turn is not None and not self.halting:
                        turn.waiting.append((task, values))
                        return False
                    self.turns[task.pid] = Turn(task.tid, now)
                # The call runs when we let it: that moment, not the stop's, is what other threads' events relate to.
                self._note(Rec(_now(), ENTER, task.tid, values))
        elif op == 2 and task.call is not None:
            ret = struct.unpack_from("=q", info.raw, 24)[0]
            self._note(Rec(now, LEAVE, task.tid, (task.call[0], ret)))
            task.call = None
            self._end_turn(task)
        return True

    def _end_turn(self, task: Task) -> None:
        """``task``'s call is over, or ``task`` itself: let the next one run."""
        turn = self.turns.get(task.pid)
        if turn is None:
            return
        turn.waiting = [entry for entry in turn.waiting if entry[0] is not task]
        if turn.tid == task.tid:
            self._next_turn(task.pid)

    def _next_turn(self, pid: int) -> None:
        turn = self.turns[pid]
        while turn.waiting:
            task, values = turn.waiting.pop(0)
            turn.tid, turn.since = task.tid, _now()
            with contextlib.suppress(OSError):  # killed while it waited: the one behind it is next
                self._note(Rec(turn.since, ENTER, task.tid, values))
                ptrace(self._go(task), task.tid)
                return
        del self.turns[pid]

    def release_turns(self) -> None:
        """Let all waiting threads run, before something that needs everybody to answer."""
        for pid in list(self.turns):
            while pid in self.turns:
                self._next_turn(pid)

    def _with_file(self, task: Task, number: int, args: tuple[int, ...]) -> tuple[object, ...]:
        """mmap's arguments, and behind them what its descriptor is: (device, inode, name, size)."""
        if number != NR["mmap"] or args[3] & 0x20:
            return args
        link = proc() / str(task.tid) / "fd" / str(args[4] & 0xFFFFFFFF)
        try:
            about = link.stat()
            return (*args, (about.st_dev, about.st_ino, str(link.readlink()), about.st_size))
        except OSError:
            return args

    def halt(self) -> None:
        """Stop every task where it is, after recording what they report on the way: the world stands still then."""
        self.release_turns()
        self.halting = set(self.tasks)
        for tid in self.halting:
            with contextlib.suppress(OSError):
                ptrace(INTERRUPT, tid)
        late = _now() + HALT_PATIENCE
        while self.halting & set(self.tasks) and _now() < late:
            try:
                tid, status = os.waitpid(-1, WALL | os.WNOHANG)
            except ChildProcessError:
                break
            if tid:
                self._handle(tid, status)
            else:
                time.sleep(0.0002)
        self.halting = set()

    def release_all(self, request: int) -> None:
        """Let every stopped task go on: CONT, SYSCALL or DETACH."""
        for tid in list(self.tasks):
            with contextlib.suppress(OSError):
                ptrace(request, tid)


_told = ctypes.c_uint64()


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _message(tid: int) -> int:
    ptrace(GETEVENTMSG, tid, 0, ctypes.addressof(_told))
    return int(_told.value)


def _peek(tid: int, address: int) -> int:
    """Eight bytes of the tracee's memory (clone3's flags), or 0."""
    try:
        with (proc() / str(tid) / "mem").open("rb", 0) as memory:
            memory.seek(address)
            return int(struct.unpack("=Q", memory.read(8))[0])
    except (OSError, OverflowError, struct.error):
        return 0


def _peek_words(tid: int, address: int) -> list[int]:
    """The six 32-bit words that i386's old mmap takes in memory, or zeros."""
    try:
        with (proc() / str(tid) / "mem").open("rb", 0) as memory:
            memory.seek(address)
            return list(struct.unpack("=6I", memory.read(24)))
    except (OSError, OverflowError, struct.error):
        return [0] * 6


def _ended(tid: int) -> bool:
    """Is the process gone, or a zombie?"""
    try:
        stat = (proc() / str(tid) / "stat").read_text(errors="replace")
    except OSError:
        return True
    return stat[stat.rindex(")") + 2] in "ZX"


def _dying(pid: int, tid: int) -> bool:
    """Is the thread gone, a zombie, or about to take a SIGKILL (as all threads are after exit_group)?"""
    try:
        text = (proc() / str(pid) / "task" / str(tid) / "status").read_text(errors="replace")
    except OSError:
        return True
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return fields.get("State", "").strip()[:1] in ("Z", "X") or bool(int(fields.get("SigPnd", "0"), 16) >> 8 & 1)
