"""Small random programs over words, locks and waits: what the explorer is tested and timed with."""

import random
from collections.abc import Hashable
from typing import Any

from benchframe.check.execution import READS, Broken, Op, Run, World
from benchframe.check.tso import Buffers, Store

Instruction = tuple[Any, ...]


class Toy(World):
    """Words by name, all 0 at first."""

    def __init__(self, programs: list[list[Instruction]]) -> None:
        super().__init__()
        self.words: dict[Hashable, int] = {}
        for number, program in enumerate(programs):
            self.spawn(f"T{number}", lambda program=program: self.interpret(program))  # type: ignore[misc]

    def get(self, name: Hashable) -> int:
        """The value now, unseen by the scheduler."""
        return self.words.get(name, 0)

    def put(self, op: Op, name: Hashable, value: int) -> None:
        """Store, and keep what stood there for the race analysis."""
        op.before = self.get(name)
        self.words[name] = value

    def see(self, name: Hashable, task: int | None = None) -> int:
        """The value as a task sees it."""
        return self.get(name)

    def write(self, name: Hashable, value: int) -> None:
        """A plain store."""
        op = Op("write", (name, 0, 1))
        self.announce(op)
        self.put(op, name, value)

    def fence(self) -> None:
        """Everything stored is visible already."""

    def interpret(self, program: list[Instruction]) -> tuple[int, ...]:
        """Run one task's instructions; what its reads saw."""
        seen: list[int] = []
        for what, name, *rest in program:
            if what == "read":
                self.announce(Op("read", (name, 0, 0)))
                seen.append(self.see(name))
            elif what == "write":
                self.write(name, rest[0])
            elif what == "fence":
                self.fence()
            elif what == "add":
                self.fence()
                op = Op("add", (name, 0, 1))
                self.announce(op)
                seen.append(self.get(name))
                self.put(op, name, self.get(name) + rest[0])
            elif what == "lock":
                self.fence()
                op = Op("lock", (name, 0, 1), lambda value: value == 0, lambda name=name: self.get(name))
                self.announce(op)
                self.put(op, name, 1)
            elif what == "unlock":
                self.fence()
                op = Op("unlock", (name, 0, 1))
                self.announce(op)
                self.put(op, name, 0)
            elif what == "wait":
                task = self.current
                op = Op("wait", (name, 0, READS), lambda value: value != 0, lambda n=name, t=task: self.see(n, t))
                op.loose = self.see(name) != self.get(name)
                self.announce(op)
                seen.append(self.see(name))
            elif what == "both":  # an atomic step over two words
                self.fence()
                op = Op("both", (name, 0, 1))
                op.accesses.append((rest[0], 0, 0))
                self.announce(op)
                self.put(op, name, self.get(rest[0]) + 1)
            elif what == "free":
                self.fence()
                self.announce(Op("free", (name, None, 1)))
                self.words[name] = -1
            elif what == "assert" and self.get(name) != rest[0]:
                raise Broken("wrong", f"{name} is {self.get(name)}")
        return tuple(seen)


class TsoToy(Toy):
    """The same with store buffers."""

    def __init__(self, programs: list[list[Instruction]]) -> None:
        super().__init__(programs)
        self.buffers = Buffers(self, len(programs))
        self.buffers.add_flushers()

    def announce(self, op: Op) -> None:
        """A step."""
        super().announce(op)
        self.buffers.announced(self.current, op)

    def see(self, name: Hashable, task: int | None = None) -> int:
        """A task's own stores come first."""
        store = self.buffers.own(self.current if task is None else task, name, 0)
        return self.get(name) if store is None else int(store.value)

    def write(self, name: Hashable, value: int) -> None:
        """Into the buffer."""
        self.words.setdefault(name, 0)
        self.buffers.put(self.current, Store(name, 0, self.words, name, value))

    def fence(self) -> None:
        """Wait for the buffer."""
        self.buffers.fence(self.current)


def outcome(run: Run) -> tuple[Any, ...]:
    """What can be observed of an execution: how it ended, what each task saw, what is left in memory."""
    world = run.world
    assert isinstance(world, Toy)
    stuck = tuple(op is not None for op in run.pending)
    return run.outcome, tuple(world.results), tuple(sorted(world.words.items())), stuck


def random_programs(rng: random.Random, tasks: int, length: int, locks: bool, waits: bool) -> list[list[Instruction]]:
    """Programs of ``tasks`` tasks with up to ``length`` instructions each."""
    programs = []
    for _ in range(tasks):
        program: list[Instruction] = []
        held: list[str] = []
        while len(program) < rng.randint(1, length):
            what = rng.choice(["read", "write", "add", *(["lock"] * 2 if locks else []), *(["wait"] if waits else []),
                               "both", "free"])  # fmt: skip
            name = rng.choice("xyz"[: rng.randint(1, 3)])
            if what == "lock":
                lock = rng.choice(["l", "m"])
                if lock in held:
                    held.remove(lock)
                    program.append(("unlock", lock))
                else:
                    held.append(lock)
                    program.append(("lock", lock))
            elif what in ("read", "wait"):
                program.append((what, name))
            elif what == "both":
                program.append(("both", name, rng.choice("xyz")))
            elif what == "free":
                if rng.random() < 0.3:
                    program.append(("free", name))
            else:
                program.append((what, name, rng.randint(1, 2)))
        if rng.random() < 0.9:
            program += [("unlock", lock) for lock in held]
        programs.append(program)
    return programs
