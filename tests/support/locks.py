"""Small programs over one mm's words, every interleaving of them: what the locks are tested with."""

import threading
import time
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from benchframe.check.cases import SIZES, plain_runner
from benchframe.check.execution import WRITES, Op, Run
from benchframe.check.memory import MachineWorld, Memory
from benchframe.check.search import Explorer
from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.mm.layout import MM, mm_struct
from benchframe.mm.machine import Machine, Parameters
from benchframe.registry import load

Task = tuple[Any, ...]
"""A native function and its arguments after the mm."""


class Programs:
    """Tasks over the words of one mm, run in every order."""

    def __init__(
        self, tasks: Sequence[Task], words: dict[str, int], replace: Any = None, signal: int | None = None
    ) -> None:
        runner = plain_runner(load().strategy("rbtree"))
        machine = Machine(runner, SIZES, Parameters())
        for word, value in words.items():
            machine.mm(0)[word] = value
        self.memory = Memory(machine)
        self.memory.all_visible = True
        self.tasks = [(dejit(function, None, None, replace), arguments) for function, *arguments in tasks]
        self.signal = signal

    def world(self) -> MachineWorld:
        """A fresh execution."""
        world = MachineWorld(self.memory)
        root = world.ref(MM, 1)
        for number, (function, arguments) in enumerate(self.tasks):
            world.spawn(f"T{number}", lambda f=function, a=arguments: f(root, *a))  # type: ignore[misc]
        if self.signal is not None:
            world.words["signal", self.signal] = 0
            world.spawn("signal", self._signal(world), daemon=True)
        return world

    def _signal(self, world: MachineWorld) -> Callable[[], None]:
        def send() -> None:
            op = Op("signal", (("signal", self.signal), 0, WRITES))
            op.before, op.value, op.loose = 0, 1, True
            world.announce(op)
            world.words["signal", self.signal] = 1

        return send

    def word(self, name: str) -> int:
        """What a word holds after the last execution."""
        return int(self.memory.machine.mm(0)[name])


def outcomes(programs: Programs, *words: str, limit: float = 60) -> set[tuple[Any, ...]]:
    """(how it ended, each task's result, the named words at the end) of every interleaving; the search is complete."""
    seen: set[tuple[Any, ...]] = set()

    def see(run: Run) -> bool:
        if run.outcome == "blocked":  # pruned: another execution is the same
            return True
        results = tuple(run.world.results[: len(programs.tasks)])
        end = run.failure.kind if run.failure is not None else run.outcome
        seen.add((end, *results, *(programs.word(word) for word in words)))
        return True

    coverage = Explorer(programs.world).explore(see, time.monotonic() + limit)
    assert coverage.complete, coverage
    return seen


def alone(function: Any, *arguments: int, **words: int) -> tuple[int, dict[str, int]]:
    """One task, interpreted: its result and the words afterwards."""
    memory = np.zeros(2, mm_struct.dtype)
    for word, value in words.items():
        memory[1][word] = value
    result = dejit(function)(PlainWorld({"mm_base": memory}).ref(MM, 1), *arguments)
    return result, {word: int(memory[1][word]) for word in words}


def run_threads(functions: list[FunctionType], turns: int, **words: int) -> Any:
    """Each function compiled, in a thread of its own, on one mm; the mm afterwards."""
    from benchframe.dialect.llvm import compile_unit
    from benchframe.dialect.store import Unit

    units = {f: Unit(f.__name__, compile_unit(f, 2, mm_struct, None, {}), 2) for f in dict.fromkeys(functions)}
    mm = np.zeros(2, mm_struct.dtype)
    for word, value in words.items():
        mm[0][word] = value
    threads = [threading.Thread(target=units[f], args=(mm.ctypes.data, turns)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a waiter was never let go"
    return mm[0]
