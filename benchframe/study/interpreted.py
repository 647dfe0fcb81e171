"""Replay a stream in the interpreter, event by event, to find the first failure and its line; and shorten the stream.

It makes an error of compiled code inspectable: the same events run through the same text, where an access through NULL,
to a freed record or outside a slab has a line number, and where a wrong answer shows who gave it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.check.conform import TRACED, PoisoningRunner, Returns
from benchframe.check.execution import MISTAKES, PATIENCE, Broken, Endless, patience, told
from benchframe.check.memory import OutOfRecords
from benchframe.dialect.primitives import Listening
from benchframe.dialect.records import DialectError
from benchframe.engine.session import prepare
from benchframe.events import LIFE, Kind
from benchframe.files import slug
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.validate import ValidationError
from benchframe.oracle import replay as right_answers
from benchframe.trace.meta import TraceMeta
from benchframe.trace.trace import Trace, write_trace
from benchframe.verify import differs, first_difference, limits, rules, wrong_answers

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

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
