"""Sequential conformance: random calls by one task, and after each the oracle's answer, its layout, and validate_mm.

Runs by the interpreter, so a wild index is an error with a line and nothing needs compiling. Hypothesis draws the calls
and shrinks a program that fails: fewer calls, smaller numbers. What it leaves is cut call by call once more.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchframe.check.cases import plain_runner
from benchframe.check.execution import MISTAKES, Broken, Endless, patience, told
from benchframe.mm import layout
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.validate import ValidationError
from benchframe.scenario import BASE, Setup
from benchframe.strategy import Strategy
from benchframe.verify import oracle

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

PAGE = layout.PAGE_SIZE
Operation = tuple[Any, ...]
LENGTH = 30
"""Calls of one random program."""
PATIENCE, IMPATIENCE = 5.0, 1.0
"""Seconds of CPU time that a program may take, some hundred times what any needs; once one took them, less."""
SHRINKS = 250
"""Programs tried to make a failing one simpler."""
SIZES = Sizes(mms=2, tasks=3, vmas=256, tables=256, pages=1024, files=8)
EDGES = (0, PAGE, layout.TASK_SIZE - PAGE, layout.TASK_SIZE, 1 << 47)


@dataclass(frozen=True)
class Sequential:
    """How many calls agreed, or the shortest program found that does not, with what it showed."""

    calls: int
    seconds: float
    failure: str = ""
    program: tuple[Operation, ...] = ()


class Conformance:
    """``strategy`` beside the oracle."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._runner = plain_runner(strategy)
        self._machine = Machine(self._runner, SIZES, Parameters(), strategy.slabs)
        self._patience = PATIENCE
        self._saved = {base: array.copy() for base, array in self._machine.arrays.items()}

    def run(self, calls: int, seed: int, deadline: float) -> Sequential:
        """``calls`` random calls or a few more, in programs of up to LENGTH, or until ``deadline`` (time.monotonic)."""
        from hypothesis import HealthCheck, Phase, find, settings
        from hypothesis import strategies as st
        from hypothesis.errors import Flaky, NoSuchExample

        began, done, tries = time.monotonic(), 0, 0
        found: list[Operation] = []

        def wrong(program: list[Operation]) -> bool:
            nonlocal done, tries, found
            if found:
                tries += 1
                if tries > SHRINKS or time.monotonic() >= deadline:
                    return program == found  # enough: this one it is
            elif done >= calls or (done and time.monotonic() >= deadline):
                return False
            failure = self.fails(program)
            if not found:
                done += len(program)
            if failure and (not found or _simpler(program, found)):
                found = list(program)
            return bool(failure)

        options = settings(
            max_examples=max(3 * calls // LENGTH, 1),
            phases=(Phase.generate, Phase.shrink),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        programs = st.integers(1, LENGTH).flatmap(lambda n: st.lists(operations(), min_size=n, max_size=n))
        with suppress(NoSuchExample, Flaky):  # nothing is wrong; or shrinking was stopped
            find(programs, wrong, settings=options, random=random.Random(seed))
        if not found:
            return Sequential(done, time.monotonic() - began)
        shortest = self._shrink(found, deadline)
        return Sequential(done, time.monotonic() - began, self.fails(shortest), tuple(shortest))

    def fails(self, program: list[Operation]) -> str:
        """What goes wrong first in ``program``; empty if nothing does."""
        with patience(self._patience):
            return self._fails(program)

    def _fails(self, program: list[Operation]) -> str:
        for base, array in self._machine.arrays.items():
            array[:] = self._saved[base]
        ours: Any = Setup(self._machine)
        right: Any = oracle(self._machine.parameters)
        where = "before the first call"
        try:
            for number, (name, *arguments) in enumerate(program):
                where = f"call {number + 1}, {shown((name, *arguments))}"
                if name == "find_vma":
                    area = right.find_vma(*arguments)
                    wanted: Any = None if area is None else (area.vm_start, area.vm_end)
                    got: Any = ours.find_vma(*arguments, user=number % 2 == 0)
                else:
                    got, wanted = getattr(ours, name)(*arguments), getattr(right, name)(*arguments)
                if got != wanted:
                    return f"{where}: gave {_hex(got)}, the oracle {_hex(wanted)}"
                if ours.layout() != right.layout():
                    return f"{where}: the VMAs afterwards differ from the oracle's"
                self._runner.validate(self._machine)
        except Endless as error:
            self._patience = IMPATIENCE
            return f"{where}: {told(error)}"
        except MISTAKES as error:
            return f"{where}: {told(error)}"
        except Exception as error:
            if isinstance(error, (ValidationError, Broken)) or type(error).__name__ == "DialectError":
                return f"{where}: {str(error).splitlines()[0]}"
            raise
        return ""

    def _shrink(self, program: list[Operation], deadline: float) -> list[Operation]:
        at = len(program) - 1
        while at >= 0 and (self._patience == PATIENCE or time.monotonic() < deadline):
            shorter = program[:at] + program[at + 1 :]
            if shorter and self.fails(shorter):
                program = shorter
            at -= 1
        return program


def _simpler(program: list[Operation], than: list[Operation]) -> bool:
    return (len(program), repr(program)) < (len(than), repr(than))


def operations() -> SearchStrategy[Operation]:
    """Random calls: few pages, so that calls meet, near the end of a 2 MiB region now and then, or at an edge (0 and
    the end of user addresses)."""
    from hypothesis import strategies as st

    page = st.integers(0, 23) | st.integers(500, 523)
    place = st.one_of(*[page.map(lambda number: BASE + number * PAGE)] * 8, st.sampled_from(EDGES))
    length = st.sampled_from([1, 1, 2, 3, 4, 8, 16]).map(lambda pages: pages * PAGE)
    rights = st.sampled_from([3, 3, 1, 7])
    mmap = st.tuples(st.just("mmap"), place, length, rights, st.sampled_from([0x32, 0x32, 0x22]))
    munmap = st.tuples(st.just("munmap"), place, length)
    mprotect = st.tuples(st.just("mprotect"), place, length, rights)
    fault = st.tuples(st.just("fault"), place, st.sampled_from([1, 2]))
    find_vma = st.tuples(st.just("find_vma"), place)
    mremap = st.tuples(st.just("mremap"), place, length, length, st.sampled_from([1, 3]), place)
    return st.one_of(*[mmap] * 5, *[munmap] * 3, *[mprotect] * 3, *[fault] * 5, *[find_vma] * 4, mremap)


def shown(call: Operation) -> str:
    """A call as a line of text."""
    return f"{call[0]}({', '.join(map(_hex, call[1:]))})"


def _hex(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_hex, value))
    return hex(value) if isinstance(value, int) and value > 4095 else str(value)
