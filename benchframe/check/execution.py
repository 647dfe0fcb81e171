"""One execution under a scheduler: tasks as greenlets, steps, time limits, and the schedule as a text."""

from __future__ import annotations

import gc
import itertools
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import greenlet

from benchframe.dialect.primitives import Listening
from benchframe.dialect.records import DialectError, WildAccess
from benchframe.errors import BenchframeError

# ----------------------------------------------------------------------------------------------------------------------
# An end to strategy code that has none: a limit on the CPU time of what runs by the interpreter.
#
# An endless loop that meets no other task gives the scheduler no turn, and Python cannot see that it is endless. The
# timer is the process's own CPU time, so a busy machine does not shorten it.

PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
MODEL = str(Path(PACKAGE) / "mm") + os.sep
CHAIN = 4
"""Functions that a failure names, at most."""
MISTAKES = (
    IndexError, ArithmeticError, RuntimeError, MemoryError, AttributeError, TypeError, NameError, ValueError,
)  # fmt: skip
"""What Python raises where strategy code goes wrong."""


class Endless(Exception):
    """Strategy code took more CPU time than it was given."""


AGAIN = 0.05
"""Seconds of CPU time after which the limit is tried again, where an exception would have been lost."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise Endless in what runs within after ``seconds`` of CPU time. In another thread than the main one, and where
    there is no such timer, nothing is limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if _swallows(frame):
            signal.setitimer(signal.ITIMER_VIRTUAL, AGAIN)
            return
        raise Endless(f"no end after {seconds:g} s of CPU time; is there an endless loop?")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _swallows(frame: FrameType | None) -> bool:
    """Is ``frame`` a finalizer, or what the garbage collector calls? An exception there is printed and lost."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    return frame is not None and (frame.f_code.co_name == "__del__" or frame.f_code in callbacks)


def told(error: BaseException) -> str:
    """``error`` as one line, with the line that was running: of a plugin's file, or of the model and the plugin's that
    called it."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, (Endless, DialectError)) else f"{type(error).__name__}: "
    if isinstance(error, WildAccess):
        kind = f"{error.kind}: "
    frames = running(error)
    if not frames:
        return f"{kind}{text}"
    place = f", in {frames[0].name} ({frames[0].filename}:{frames[0].lineno})"
    own = next((frame for frame in frames if not frame.filename.startswith(PACKAGE)), None)
    if own is not None and own is not frames[0]:
        place += f", called from {own.name} ({own.filename}:{own.lineno})"
    return f"{kind}{text}{place}"


def running(error: BaseException) -> list[traceback.FrameSummary]:
    """The lines of strategy code and of the model that were running, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if not f.filename.startswith(("<", PACKAGE)) or f.filename.startswith(MODEL)]
    return outside[::-1]


def wild(error: WildAccess) -> Broken:
    """The failure that ``error`` is, with the line of strategy code or model where it happened."""
    frames = running(error)
    place = (f"{frames[0].filename}:{frames[0].lineno}",) if frames else ()
    names = tuple(frame.name for frame in frames[:CHAIN])
    text = told(error).partition(": ")[2]
    return Broken(error.kind, text, place, None, names[0] if names else "", names)


# ----------------------------------------------------------------------------------------------------------------------
# One execution: tasks as greenlets, an operation announced before each access, one function that chooses who runs.
#
# Memory is sequentially consistent: an operation takes effect at once and whole. A task stops *before* each visible
# operation, so that the scheduler sees what every task is about to do. ``choose(step, enabled, pending, trace)`` is the
# only seam: search, sampling and replay are such functions.

PATIENCE, IMPATIENCE = 5.0, 2.0
"""Seconds of CPU time that one execution may take, a thousand times what any needs; in a process that met an endless
loop, less."""
ENDLESS = "endless loop"
"""How the places of a failure begin that took all of this time."""
_endless: list[str] = []
"""Where this process met one."""
Access = tuple[Hashable, Hashable, int]
"""(object, field, READS, WRITES or ADDS). Field None is the whole object: what frees it."""
READS, WRITES, ADDS = 0, 1, 2
"""ADDS changes a count whose value nobody looks at: two of them commute."""


class Link(tuple[Hashable, ...]):
    """A key that no memory stands behind: it puts a step after the one that made it possible (a flush after its
    store), and nothing could turn the two round."""

    __slots__ = ()


class Op:
    """An operation about to happen, later one that has happened.

    ``accesses`` begins with its own access; an atomic step adds more while it runs. ``possible`` says for a value of
    the location whether a blocking operation could go on (None: it never blocks), ``load`` gives the value now, and
    ``before`` is what stood there before a write. ``linked``: it waits for nothing but what a Link puts before it.
    ``point``: whether it is a scheduling point whatever is shared; None leaves that to the location.
    """

    __slots__ = ("accesses", "before", "kind", "linked", "load", "loose", "place", "point", "possible", "value")

    def __init__(
        self,
        kind: str,
        access: Access,
        possible: Callable[[Any], bool] | None = None,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self.kind = kind
        self.accesses: list[Access] = [access]
        self.possible = possible
        self.load = load
        self.before: Any = None
        self.loose = False
        self.linked = False
        self.point: bool | None = None
        self.value: Any = None
        self.place: tuple[str, int, str] | None = None

    def __repr__(self) -> str:
        return f"{self.kind} {self.accesses[0][:2]}"


def conflict(first: Sequence[Access], second: Sequence[Access]) -> bool:
    """Do two steps not commute: same object, same field or the whole, at least one writes?"""
    for key, part, write in first:
        for other_key, other_part, other_write in second:
            if (
                (write or other_write)
                and write * other_write != ADDS * ADDS
                and key == other_key
                and (part == other_part or part is None or other_part is None)
            ):
                return True
    return False


class Broken(Exception):
    """Something that must not happen, found while a task ran or at the end: ``kind`` is one word or two.

    ``places`` are the lines of strategy code that tell one failure from another, ``key`` is the object concerned,
    ``function`` is where it showed, ``chain`` are the functions that were running, the innermost first; ``freed`` those
    that freed the record, if the failure itself says so. ``at`` is (task, last step) of the call whose answer is wrong,
    ``events`` the free and the use in an execution graph.
    """

    def __init__(
        self,
        kind: str,
        text: str,
        places: tuple[str, ...] = (),
        key: Any = None,
        function: str = "",
        chain: tuple[str, ...] = (),
        at: tuple[int, int] | None = None,
        freed: tuple[str, ...] = (),
        events: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.places = places
        self.key = key
        self.function = function
        self.chain = chain
        self.at = at
        self.freed = freed
        self.events = events


@dataclass(frozen=True)
class Step:
    """What happened at one point of the schedule."""

    task: int
    op: Op


@dataclass
class Run:
    """How one execution went.

    ``outcome`` is done, failed, deadlock, blocked (the search pruned it) or truncated (too many steps).
    """

    outcome: str
    trace: list[Step]
    pending: list[Op | None]
    world: World
    failure: Broken | None = None
    failed_task: int | None = None

    @property
    def schedule(self) -> list[int]:
        """The task of each step."""
        return [step.task for step in self.trace]


class World:
    """Tasks and what they are about to do; subclasses add the memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.bodies: list[Callable[[], Any]] = []
        self.daemons: list[bool] = []
        self.pending: list[Op | None] = []
        self.results: list[Any] = []
        self.flushers: dict[int, int] = {}
        """Whose store buffer a task empties. The two conflict by Links only: a load sees its task's stores anyway."""
        self.current = -1
        self.hub: Any = None
        self.steps = 0
        self.failure: Broken | None = None
        self.failed_task: int | None = None
        self.traced: list[tuple[int, int, str, str]] = []
        """What strategy code traced: after how many steps, which task, what, where."""

    def hear(self, x: int, function: str, file: str, line: int) -> None:
        """A task traces ``x``."""
        self.traced.append((self.steps, self.current, f"trace {int(x):#x}", f"{Path(file).name}:{line} {function}"))

    def spawn(self, name: str, body: Callable[[], Any], daemon: bool = False) -> int:
        """Add a task before the execution begins; its number. A daemon may be left waiting at the end."""
        self.names.append(name)
        self.bodies.append(body)
        self.daemons.append(daemon)
        self.pending.append(None)
        self.results.append(None)
        return len(self.names) - 1

    def announce(self, op: Op) -> None:
        """Stop here until the scheduler lets ``op`` happen; outside an execution: nothing."""
        if self.hub is not None:
            self.pending[self.current] = op
            self.hub.switch()

    def where(self, op: Op) -> str:
        """The place that ``op`` is about, in words."""
        return f"{op.accesses[0][:2]}"

    def finish(self) -> None:
        """The final check, with all tasks done; raises Broken."""

    def _body(self, task: int) -> None:
        try:
            self.results[task] = self.bodies[task]()
        except Broken as broken:
            self.failure, self.failed_task = broken, task
        except Endless as error:
            _endless.append(told(error))
            frames = running(error)
            places = (ENDLESS, f"{frames[0].filename}:{frames[0].name}") if frames else (ENDLESS,)
            self.failure, self.failed_task = Broken("livelock", told(error), places), task
        except WildAccess as error:
            self.failure, self.failed_task = wild(error), task
        except MISTAKES as error:
            self.failure, self.failed_task = Broken("crash", told(error)), task


class Choose(Protocol):
    """Who runs next; None gives this execution up."""

    def __call__(
        self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]
    ) -> int | None: ...


Program = Callable[[], World]
"""Makes a fresh world with its tasks; called once per execution."""


def execute(program: Program, choose: Choose, limit: int = 5000) -> Run:
    """Run ``program`` once. ``limit`` steps at most: more is called truncated (a livelock, or too large a scenario).
    A task that neither ends nor reaches a next step is a livelock."""
    with patience(min(IMPATIENCE, PATIENCE) if _endless else PATIENCE):
        world = program()
        with Listening(world.hear):
            return _execute(world, choose, limit)


def _execute(world: World, choose: Choose, limit: int) -> Run:
    pending = world.pending
    trace: list[Step] = []
    world.hub = greenlet.getcurrent()
    tasks = [greenlet.greenlet(world._body) for _ in world.bodies]
    outcome = ""
    for number, task in enumerate(tasks):
        world.current = number
        task.switch(number)
        if world.failure is not None:
            outcome = "failed"
            break
    while not outcome:
        enabled = [
            number
            for number, op in enumerate(pending)
            if op is not None and (op.possible is None or op.possible(op.load()))  # type: ignore[misc]
        ]
        if not enabled:
            stuck = any(op is not None and not daemon for op, daemon in zip(pending, world.daemons, strict=True))
            outcome = "deadlock" if stuck else "done"
            break
        if len(trace) >= limit:
            outcome = "truncated"
            break
        chosen = choose(len(trace), enabled, pending, trace)
        if chosen is None:
            outcome = "blocked"
            break
        op = pending[chosen]
        assert op is not None
        trace.append(Step(chosen, op))
        pending[chosen] = None
        world.current = chosen
        world.steps = len(trace)
        tasks[chosen].switch()
        if world.failure is not None:
            outcome = "failed"
    run = Run(outcome, trace, list(pending), world, world.failure, world.failed_task)
    world.hub = None
    for task in tasks:
        if task and not task.dead:
            task.throw()  # GreenletExit: strategy code has no handlers, so the stack just goes
    _judge(run)
    return run


def _last_writer(run: Run, op: Op) -> int:
    """Who wrote last to the place that ``op`` is about; -1 if nobody did."""
    key, part, _ = op.accesses[0]
    for step in reversed(run.trace):
        if any(k == key and p == part and how for k, p, how in step.op.accesses):
            return step.task
    return -1


def _judge(run: Run) -> None:
    """The verdicts that need the end: deadlock, and the world's final check."""
    world = run.world
    if run.outcome == "deadlock":
        stuck = [(n, op) for n, op in enumerate(run.pending) if op is not None and not world.daemons[n]]
        waiting = "; ".join(f"{world.names[number]} waits for {world.where(op)}" for number, op in stuck)
        asleep = [number for number, op in stuck if op.kind.startswith("wait") and _last_writer(run, op) == number]
        lost = f"lost wake-up: nothing changed what {world.names[asleep[0]]} waits for after it did; " if asleep else ""
        run.failure = Broken("deadlock", lost + waiting)
    elif run.outcome == "done":
        try:
            world.finish()
        except Broken as broken:
            run.failure, run.outcome = broken, "failed"


# ----------------------------------------------------------------------------------------------------------------------
# Schedules: as text that a story ends with, and followed again.
#
# ``v1:0x1.1x3.`` is one step of task 0, then three of task 1; ``v1-tso:`` says that stores were buffered. A stretch
# that goes round and round, as in a livelock, is written once: ``(0x1.1x1.)x900.``.


class ReplayError(BenchframeError):
    """A replay string that cannot be used here."""


PREFIX = {"sc": "v1:", "tso": "v1-tso:"}
"""How a replay string begins, by memory model."""
LONGEST = 1_000_000
"""Steps of a schedule, at most."""
PERIOD = 12
"""Stretches of a round that goes on and on, at most."""


def encode(schedule: Sequence[int], memory_model: str = "sc") -> str:
    """A schedule as text: runs of ``TASKxSTEPS.``, a repeated end as ``(...)xTIMES.``

    >>> encode([0, 1, 1, 1, 0, 0])
    'v1:0x1.1x3.0x2.'
    >>> encode([0] + [1, 0] * 500, "tso")
    'v1-tso:(0x1.1x1.)x500.0x1.'
    """
    runs = [f"{task}x{len(list(steps))}." for task, steps in itertools.groupby(schedule)]
    return PREFIX[memory_model] + _folded(runs)


def _folded(runs: list[str]) -> str:
    """The longest stretch that repeats, if it is worth it, written once."""
    best = (0, 0, 0)  # saved, first, period
    for period in range(1, PERIOD + 1):
        same = 0
        for at in range(period, len(runs) + 1):
            if at < len(runs) and runs[at] == runs[at - period]:
                same += 1
                continue
            times = same // period + 1
            if times >= 4:
                best = max(best, (period * (times - 1), -(at - same - period), -period))
            same = 0
    saved, first, period = best[0], -best[1], -best[2]
    if not saved:
        return "".join(runs)
    after = first + saved + period
    return "".join([*runs[:first], "(", *runs[first : first + period], f")x{saved // period + 1}.", *runs[after:]])


def decode(text: str) -> list[int]:
    """The schedule of a replay string; ReplayError if it is none, or longer than a million steps.

    >>> decode("v1:0x1.1x3.(0x2.1x1.)x2.")
    [0, 1, 1, 1, 0, 0, 1, 0, 0, 1]
    """
    run = r"\d{1,3}x\d{1,7}\."
    if not re.fullmatch(rf"v1(-tso)?:({run}|\(({run})+\)x\d{{1,7}}\.)*", text):
        raise ReplayError(f"{text[:60]!r} is not a replay string; one looks like v1:0x1.1x3.0x2.")
    parts: list[tuple[list[tuple[int, int]], int]] = []
    for whole, inner, times in re.findall(rf"({run})|\(((?:{run})+)\)x(\d+)\.", text.partition(":")[2]):
        pairs = [(int(task), int(count)) for task, count in re.findall(r"(\d+)x(\d+)\.", whole or inner)]
        parts.append((pairs, int(times or 1)))
    if sum(sum(count for _, count in pairs) * times for pairs, times in parts) > LONGEST:
        raise ReplayError("the replay string has more than a million steps, more than any execution")
    schedule: list[int] = []
    for pairs, times in parts:
        schedule += [task for task, count in pairs for _ in range(count)] * times
    return schedule


def model_of(text: str) -> str:
    """The memory model of a replay string: "sc" or "tso"."""
    return "tso" if text.startswith(PREFIX["tso"]) else "sc"


@dataclass
class Replay:
    """A ``choose`` that follows a schedule, then the lowest enabled task. ``missed``: steps it could not follow."""

    schedule: Sequence[int]
    missed: int = field(default=0)

    def __call__(
        self, step: int, enabled: list[int], pending: Sequence[Op | None], trace: Sequence[Step]
    ) -> int | None:
        if step < len(self.schedule):
            if self.schedule[step] in enabled:
                return self.schedule[step]
            self.missed += 1
        return enabled[0]
