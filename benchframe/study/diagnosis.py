"""Why a cell of a run failed: its stream by the interpreter, compiled code with every access tested, scenarios.

The interpreter replays a stream to its first failure, or to the known bug that explains it, and shortens it. It makes
an error of compiled code inspectable: the same events run through the same text, where an access through NULL, to a
freed record or outside a slab has a line number, and where a wrong answer shows who gave it.

A whole trace is replayed with one task to find the known bug that made an answer wrong. Some races need no second task.
A recorded program that unmaps, merges and faults in the right order leads a strategy to a record that it freed
long ago. So the trace runs again in the interpreter, on memory in which no record is reused: the first access to a
freed record shows where it was accessed, and who freed it. If the strategy's author knows the bug, it has a name.

A command is told only if the work that it does was done here first and found the fault: nobody is sent to a check that
passes. Where nothing finds it, that is said, with how far the search went.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.check.conform import TRACED, PoisoningRunner, Returns
from benchframe.check.execution import MISTAKES, PATIENCE, Broken, Endless, patience, told
from benchframe.check.jobs import Part, command_of, do_part, scenarios_of
from benchframe.check.memory import KEY_OF, OutOfRecords, chain, place
from benchframe.cstrategy import unseen
from benchframe.dialect.interpreter import PlainWorld, dejit, proxy_class
from benchframe.dialect.primitives import Listening
from benchframe.dialect.records import DialectError, Slab
from benchframe.engine.guard import guard_apart
from benchframe.engine.session import prepare
from benchframe.events import LIFE, Kind
from benchframe.files import slug
from benchframe.mm import layout
from benchframe.mm.defaults import count_event
from benchframe.mm.layout import MM, arena_alloc, arena_free, free_typesafe_by_rcu, kfree_rcu
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import one_event
from benchframe.mm.validate import ValidationError
from benchframe.oracle import replay as right_answers
from benchframe.scenario import KnownBug, Sites
from benchframe.strategy import Strategy
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace, read_trace, write_trace
from benchframe.verify import differs, first_difference, limits, rules, wrong_answers

if TYPE_CHECKING:
    from benchframe.results.folder import Cell


Array = npt.NDArray[Any]
SECONDS = 60.0
"""CPU seconds that one replay may take."""
SHOWN = 30
"""The most events to print."""
MOST = 200_000
"""The most events to replay."""
FOLDER = Path(".benchframe/streams")
"""The default folder for failing streams."""


@dataclass(frozen=True)
class Failure:
    """``event`` is the first that fails (the last, if only the final check fails); ``text`` says what, and where."""

    event: int
    text: str
    traced: tuple[str, ...] = ()
    """What strategy code traced during that event."""
    kind: str = ""
    """If an access failed: "NULL dereference", "wild reference", "use after free"; if nothing ended: "no end"."""


def first_failure(strategy: Strategy, trace: Trace, seconds: float = SECONDS, blame: bool = True) -> Failure | None:
    """Replay ``trace`` in the interpreter: the first failure, or None. After the last event every invariant must hold,
    and the layout must be the oracle's. Some thousand events per second.

    Raises Endless if it takes more than ``seconds`` of CPU time, MemoryError if there is no room for it.
    """
    events = trace.events
    parameters = Parameters.of(trace.meta.limits)
    right = right_answers(events, rules(parameters), limits(parameters))
    stream = prepare(events)
    runner = PoisoningRunner(strategy)
    machine = Machine(runner, Sizes.of(events), parameters, strategy.slabs)
    at = 0
    returned = Returns()
    traced: list[str] = []

    def hear(x: int, function: str, file: str, line: int) -> None:
        traced.append(f"{int(x):#x}, in {function} ({file}:{line})")
        del traced[:-TRACED]

    end = time.process_time() + seconds
    with Listening(hear):
        try:
            for number in stream.boots:
                machine.boot(number)
            runner.forget()
            machine.arrays["event_base"][:] = stream.records
            for at in range(len(events)):
                if time.process_time() > end:
                    raise TimeoutError
                traced.clear()
                with patience(PATIENCE), returned if blame and at == len(events) - 1 else nullcontext():
                    runner.replay(at, at + 1)
                row = slice(at, at + 1)
                answer = machine.arrays["answer_base"][row]
                if wrong_answers(events[row], answer, right.ret[row], right.vm_start[row], right.vm_end[row]).any():
                    wanted = (int(right.ret[at]), int(right.vm_start[at]), int(right.vm_end[at]))
                    who = returned.of(int(answer[0]["vma"]))
                    what = differs(at, events[at], answer[0], wanted, strategy.name)
                    return Failure(at, what + who, tuple(traced))
            machine.raise_if_full()
            runner.validate(machine)
        except ValidationError as error:
            return Failure(at, f"after the last event: {str(error).splitlines()[0]}")
        except TimeoutError:
            raise Endless(f"{seconds:g} s of CPU time were not enough for {len(events)} events") from None
        except (Broken, DialectError, Endless, *MISTAKES) as error:
            what = f"event {at} ({Kind(int(events[at]['kind'])).name} {int(events[at]['addr']):#x}): {told(error)}"
            kind = "no end" if isinstance(error, Endless) else getattr(error, "kind", "")
            return Failure(at, what, tuple(traced), kind)
    rows = [(mm, *row) for mm in sorted(right.spaces) for row in right.layouts[mm]]
    difference = first_difference(machine, np.array(rows, np.int64).reshape(-1, 7))
    return Failure(len(events) - 1, f"after the last event: {difference}") if difference else None


def part(trace: Trace, kept: Sequence[int] | Array) -> Trace:
    """The events of ``trace`` whose numbers are in ``kept``, as a trace."""
    keep = np.asarray(kept, np.int64)
    events = trace.events[keep]
    limits_ = {name: value for name, value in trace.meta.limits.items() if name != "setup"}
    meta = replace(TraceMeta(), limits=limits_, files=trace.meta.files)
    return Trace(events, trace.time[keep], trace.tid[keep], meta)


def shortened(strategy: Strategy, trace: Trace, failure: Failure, seconds: float = 20.0) -> tuple[Trace, Failure]:
    """``trace`` cut after the failing event, then reduced as far as ``seconds`` of wall time allow, larger pieces first
    (delta debugging, Zeller 1999); it still fails. Events that begin and end tasks and mms are kept."""
    deadline = time.monotonic() + seconds
    kept = np.arange(failure.event + 1)
    fixed = np.isin(trace.events["kind"], LIFE)
    best = first_failure(strategy, part(trace, kept)) or failure
    size = len(kept) // 2
    while size and time.monotonic() < deadline:
        at = max(len(kept) - 1 - size, 0)
        while time.monotonic() < deadline:
            piece = kept[at : at + size]
            rest = np.concatenate([kept[:at], piece[fixed[piece]], kept[at + size :]])
            if len(rest) < len(kept) and (found := _fails(strategy, part(trace, rest))) is not None:
                kept, best = rest[: found.event + 1], found
            if at == 0:
                break
            at = max(min(at, len(kept)) - size, 0)
        size //= 2
    short = part(trace, kept)
    return short, _fails(strategy, short) or best


def _fails(strategy: Strategy, trace: Trace) -> Failure | None:
    """As :func:`first_failure`; a piece that cannot be replayed is not a failure of the strategy."""
    try:
        return first_failure(strategy, trace)
    except (Endless, OutOfRecords, MemoryError, LookupError, ValueError):
        return None


def show(strategy: Strategy, trace: Trace, path: Path, say: Callable[[str], None]) -> bool:
    """``benchframe check --trace``: replay it and print the first failure with the events that lead to it. Returns
    whether it is right."""
    failure = first_failure(strategy, trace)
    if failure is None:
        say(f"{strategy.name}: {len(trace)} events of {path.name} agree with the oracle, in the interpreter")
        return True
    say(f"{strategy.name}: WRONG: {failure.text}")
    for at in range(max(0, failure.event - SHOWN + 1), failure.event + 1):
        event = trace.events[at]
        what = " ".join(f"{name} {int(event[name]):#x}" for name in ("addr", "len", "prot", "flags") if event[name])
        say(f"    event {at}: task {event['task']} mm {event['mm']} {Kind(int(event['kind'])).name} {what}")
    for text in failure.traced:
        say(f"    traced: {text}")
    return False


def save(trace: Trace, strategy: str, folder: Path = FOLDER) -> Path:
    """Write a failing stream; the same stream gives the same file. Raises TraceError."""
    path = folder / f"{slug(strategy, 100, keep='_.')}-{trace.digest[:8]}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trace(path, trace)
    return path


SEARCH_SECONDS = 30.0
"""CPU time that the search may take."""


@dataclass(frozen=True)
class Reached:
    """A record was used after it was freed, at ``event``; ``bug`` is the matching known bug of the strategy."""

    event: int
    text: str
    sites: Sites
    bug: KnownBug | None


class _Lives(PlainWorld):
    """Memory in which a freed record is never reused."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__(arrays)
        self.event = 0
        self.dead: dict[tuple[str, int], tuple[int, tuple[str, ...]]] = {}

    def _prepare(self, slab: Slab) -> tuple[type[Any], tuple[Any, ...], int]:
        plain = super()._prepare(slab)
        if slab.base not in ("vma_base", "page_base", *layout.PRIVATE_BASES):
            return plain
        dead, base = self.dead, slab.base

        def get(column: int) -> Callable[[Any], int]:
            def look(ref: Any) -> int:
                if dead and (base, ref.index) in dead:
                    self.stale(base, ref.index)
                return ref._columns[column][ref.index]  # type: ignore[no-any-return]

            return look

        def put(column: int) -> Callable[[Any, int], None]:
            def store(ref: Any, value: int) -> None:
                if dead and (base, ref.index) in dead:
                    self.stale(base, ref.index)
                ref._columns[column][ref.index] = value

            return store

        self._slabs[base] = (proxy_class(slab.struct, get, put), *plain[1:])
        return self._slabs[base]

    def stale(self, base: str, index: int) -> None:
        """Raise Broken: a freed record is accessed."""
        when, by = self.dead[base, index]
        before = " before this call began" if when < self.event else ""
        what = {"vma_base": "VMA", "page_base": "page"}.get(base, f"{base[:-5]} record")
        text = f"{what} #{index}, freed{before}, is used in {place((__file__,))[2]}"
        raise Broken("use after free", text, by, (base, index), place((__file__,))[2], chain(outside=(__file__,)))

    def alloc(self, which: int) -> int:
        """A slot that was never used before."""
        arena = self._arrays["slab_base"][which]
        slot = int(arena["top"])
        if slot >= int(arena["capacity"]):
            raise OutOfRecords("no record is left that was never used")
        arena["top"] = slot + 1
        arena["live"] += 1
        return slot

    def free(self, which: int, slot: int) -> int:
        """Free the record."""
        base = KEY_OF.get(which) or layout.PRIVATE_BASES[which - layout.ARENA_PRIVATE0]
        self.dead[base, slot] = (self.event, chain(outside=(__file__,)))
        self._arrays["slab_base"][which]["live"] -= 1
        return 0


class _Runner:
    """Runs events one by one; a :class:`~benchframe.mm.machine.Runner`."""

    def __init__(self, strategy: Strategy) -> None:
        free: Callable[..., Any] = lambda mm, which, slot: mm.world.free(which, slot)  # noqa: E731
        swap: dict[Any, Callable[..., Any]] = {
            arena_alloc: lambda mm, which: mm.world.alloc(which),
            arena_free: free,
            kfree_rcu: free,  # no other task is inside a read-side section
            free_typesafe_by_rcu: lambda mm, which, slot: 0,  # may be looked at: it keeps its kind
        }
        self.run = dejit(one_event, {**strategy.binding, "count": count_event}, strategy.binding, swap)
        self.world: _Lives | None = None

    def attach(self, machine: Machine) -> None:
        """Create the world."""
        self.world = _Lives(machine.arrays)

    def replay(self, first: int, last: int) -> None:
        """Run events [first, last)."""
        assert self.world is not None
        root = self.world.ref(MM, 1)
        for event in range(first, last):
            self.world.event = event
            self.run(root, event)


def first_use_after_free(
    strategy: Strategy, trace: Trace, last: int, seconds: float = SEARCH_SECONDS
) -> Reached | None:
    """Run events [0, last] of ``trace``; returns the first use of a freed record, or None. Also None if the trace is
    too long for the interpreter. O(events), some thousand per second."""
    if not 0 <= last < min(len(trace), MOST):
        return None
    events = trace.events[: last + 1]
    runner = _Runner(strategy)
    stream = prepare(events)
    machine = Machine(runner, Sizes.of(events), Parameters.of(trace.meta.limits), strategy.slabs)
    assert runner.world is not None
    try:
        with patience(seconds):
            for number in stream.boots:
                machine.boot(number)
            machine.arrays["event_base"][:] = stream.records
            runner.replay(0, last + 1)
    except Broken as broken:
        sites = Sites(broken.chain, broken.places)
        return Reached(runner.world.event, broken.text, sites, _named(strategy, broken, sites))
    except (Endless, OutOfRecords, DialectError, *MISTAKES):
        return None
    return None


def _named(strategy: Strategy, broken: Broken, sites: Sites) -> KnownBug | None:
    """The known bug that matches everything that one task shows: kind, functions, who freed the record, and when."""
    for bug in strategy.known_bugs:
        if replace(bug, scenarios=(), source=()).shows(broken.kind, broken.text, "", sites):
            return bug
    return None


SEARCH, EACH = 30.0, 6.0
"""Seconds for random calls and scenarios together, and for each of them."""
GUARDED = 120.0
"""Seconds for the replay with every access tested; compiling takes some 10 to 30 of them."""
Say = Callable[[str], None]


def diagnose(
    strategies: Callable[[str], Strategy],
    cells: Iterable[Cell],
    traces: Mapping[str, Trace],
    plugins: Sequence[str],
    again: Callable[[Cell], list[str]],
    say: Say,
) -> None:
    """Tell why the failed ``cells`` failed, each strategy until one of its cells is explained. ``plugins``: files that
    the commands must name; ``again`` gives the words that run one cell again. Takes some minutes at most a strategy."""
    explained: set[str] = set()
    for cell in cells:
        name, trace = cell.entry.strategy, traces.get(cell.entry.workload)
        if cell.state.failed and name not in explained and trace is not None:
            try:
                found = _Diagnosis(strategies(name), cell, trace, plugins, again, say).tell()
            except Exception as error:  # whatever happens here, the table and the exit code must follow
                why = next(iter(str(error).splitlines()), type(error).__name__)
                say(f"{name} on {cell.entry.workload}: not looked into: {why}")
                continue
            if found:
                explained.add(name)


class _Diagnosis:
    """What is tried for one cell, in order, until something is found."""

    def __init__(
        self,
        strategy: Strategy,
        cell: Cell,
        trace: Trace,
        plugins: Sequence[str],
        again: Callable[[Cell], list[str]],
        say: Say,
    ) -> None:
        self.strategy, self.cell, self.trace, self.again = strategy, cell, trace, again
        self.plugins = tuple(plugins)
        self.files = [word for path in plugins for word in ("--plugin", path)]
        self.where = f"{strategy.name} on {cell.entry.workload}"
        self.say: Say = lambda text: say(f"{self.where}: {text}")
        self.tried: list[str] = []

    def tell(self) -> bool:
        """Whether the cause was found and told, with the command that shows it."""
        if hidden := unseen(self.strategy.functions()):
            self.say(f"{hidden[0]}() is C without a twin, so no check can look into it: write one, or use a debugger")
            return True
        alone = self.cell.workload.threads == 0
        if alone and (self._known() or self._interpreted() or self._compiled()):
            return True
        if self._searched(scenarios_of(self.strategy), EACH):
            return True
        if not alone:
            self.tried.append(
                "real threads meet in more ways than scenarios have calls: `run` it again, or search longer"
            )
        self.say(f"the cause was not found: {'; '.join(self.tried)}")
        return False

    def _known(self) -> bool:
        """A known bug, seen in the stream of one task, and in a scenario."""
        state, bugs = self.cell.state, self.strategy.known_bugs
        if state.state != "wrong" or state.event < 0 or not bugs:
            return False
        found = first_use_after_free(self.strategy, self.trace, state.event)
        if found is None or found.bug is None:
            names = ", ".join(dict.fromkeys(bug.name for bug in bugs))
            self.say(f"none of the known bugs ({names}) was seen in one task alone")
            return False
        bug = found.bug
        self.say(f"wrong by a known bug, {bug.name}: {bug.summary} (event {found.event}: {found.text})")
        here = [one for one in scenarios_of(self.strategy) if one.name in bug.scenarios]
        return self._searched(here, SEARCH, bug)

    def _interpreted(self) -> bool:
        """The same events, by the interpreter; kept as a file if they fail there."""
        state = self.cell.state
        last = state.event if state.state == "wrong" and state.event >= 0 else len(self.trace) - 1
        cut = part(self.trace, range(min(last + 1, len(self.trace), MOST)))
        failure = first_failure(self.strategy, cut)
        if failure is None:
            self.tried.append(f"the same text is right by the interpreter in {len(cut)} of {len(self.trace)} events")
            return False
        short, failure = shortened(self.strategy, cut, failure)
        path = save(short, self.strategy.name)
        if (seen := first_failure(self.strategy, read_trace(path))) is None:
            self.tried.append(f"the interpreter finds {failure.text}, but not once more")
            return False
        self.say(seen.text)
        words = ["benchframe", "check", "--strategy", self.strategy.name, "--trace", str(path), *self.files]
        self.say(f"{len(short)} of {len(self.trace)} events reproduce it in the interpreter: {shlex.join(words)}")
        return True

    def _compiled(self) -> bool:
        """What compiled code does alone, as with sums of more than 64 bits: with every access tested."""
        said, right = guard_apart(self.strategy, self.trace, GUARDED, lambda unit: None)
        if right is not False:
            self.tried.append(f"compiled, with every access tested: {said}")
            return False
        self.say(f"compiled, with every access tested: {said}")
        self.say(f"to see it again: {shlex.join([*self.again(self.cell), '--debug-native', *self.files])}")
        return True

    def _searched(self, scenarios: Sequence[object], each: float, bug: KnownBug | None = None) -> bool:
        """The scenarios, and before all of them random calls, as ``check`` does them, until one fails."""
        end = time.monotonic() + SEARCH
        parts = [Part(self.strategy, one, plugins=self.plugins) for one in scenarios]  # type: ignore[arg-type]
        done = 0
        for piece in [*([] if bug else [Part(self.strategy, plugins=self.plugins)]), *parts]:
            if time.monotonic() > end:
                break
            result = do_part(piece, min(end, time.monotonic() + each), lambda executions: None, lambda text: None)
            done += 1
            if not result.wrong or (result.findings and bug and all(f.known != bug.name for f in result.findings)):
                continue
            self.say(" ".join(result.lines[0].split()))
            self.say(f"from call to call: {command_of(piece, result)}")
            return True
        self.tried.append(
            f"{done} of {len(parts) + (not bug)} parts of `benchframe check` find nothing in {SEARCH:.0f} s"
        )
        return False
