"""Sequential conformance: random calls by one task, and after each the oracle's answer, its layout, and validate_mm.

Runs by the interpreter, so a wild index is an error with a line and nothing needs compiling. A failing program is cut
to the calls that matter, one at a time.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from benchframe.check.run import Broken
from benchframe.check.scenario import plain_runner
from benchframe.mm import layout
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.oracle import Limits, Oracle, Rules
from benchframe.mm.validate import ValidationError
from benchframe.scenario import BASE, Setup
from benchframe.strategy import Strategy

PAGE = layout.PAGE_SIZE
Operation = tuple[Any, ...]
LENGTH = 30
"""Calls of one random program."""
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
        self._saved = {base: array.copy() for base, array in self._machine.arrays.items()}

    def run(self, calls: int, seed: int, deadline: float) -> Sequential:
        """``calls`` random calls in short programs, or until ``deadline`` (time.monotonic)."""
        began, done, draw = time.monotonic(), 0, random.Random(seed)
        while done < calls and time.monotonic() < deadline:
            program = [operation(draw) for _ in range(LENGTH)]
            if failure := self.fails(program):
                shortest = self._shrink(program)
                failure = self.fails(shortest) or failure
                return Sequential(done, time.monotonic() - began, failure, tuple(shortest))
            done += len(program)
        return Sequential(done, time.monotonic() - began)

    def fails(self, program: list[Operation]) -> str:
        """What goes wrong first in ``program``; empty if nothing does."""
        for base, array in self._machine.arrays.items():
            array[:] = self._saved[base]
        ours: Any = Setup(self._machine)
        right: Any = _oracle()
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
                    return f"{where}: the VMAs afterwards are not the oracle's"
                self._runner.validate(self._machine, self.strategy.check_messages)
        except (IndexError, RuntimeError, MemoryError, ArithmeticError) as error:
            return f"{where}: {type(error).__name__}: {error}"
        except Exception as error:
            if isinstance(error, (ValidationError, Broken)) or type(error).__name__ == "DialectError":
                return f"{where}: {str(error).splitlines()[0]}"
            raise
        return ""

    def _shrink(self, program: list[Operation]) -> list[Operation]:
        at = len(program) - 1
        while at >= 0:
            shorter = program[:at] + program[at + 1 :]
            if shorter and self.fails(shorter):
                program = shorter
            at -= 1
        return program


def _oracle() -> Oracle:
    p = Parameters()
    limits = Limits(
        task_size=p.task_size,
        mmap_base=p.mmap_base,
        mmap_min_addr=p.mmap_min_addr,
        max_map_count=p.max_map_count,
        stack_guard_gap=p.stack_guard_gap,
        rlimit_stack=p.stack_limit,
    )
    return Oracle(Rules(thp_read_prepares_anon_vma=p.thp != 0), limits)


def operation(draw: random.Random) -> Operation:
    """One random call: few pages, so that calls meet, near the end of a 2 MiB region now and then, or at an edge."""

    def place() -> int:
        if draw.random() < 0.04:
            return draw.choice(EDGES)
        return BASE + (draw.randrange(24) + draw.choice([0, 0, 0, 500])) * PAGE

    def length() -> int:
        return draw.choice([1, 1, 2, 3, 4, 8, 16]) * PAGE

    name = draw.choice(["mmap"] * 5 + ["munmap"] * 3 + ["mprotect"] * 3 + ["fault"] * 5 + ["find_vma"] * 4 + ["mremap"])
    if name == "mmap":
        return name, place(), length(), draw.choice([3, 3, 1, 7]), draw.choice([0x32, 0x32, 0x22])
    if name == "munmap":
        return name, place(), length()
    if name == "mprotect":
        return name, place(), length(), draw.choice([3, 1, 7])
    if name == "fault":
        return name, place(), draw.choice([1, 2])
    if name == "mremap":
        return name, place(), length(), length(), draw.choice([1, 3]), place()
    return name, place()


def shown(call: Operation) -> str:
    """A call as a line of text."""
    return f"{call[0]}({', '.join(map(_hex, call[1:]))})"


def _hex(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_hex, value))
    return hex(value) if isinstance(value, int) and value > 4095 else str(value)
