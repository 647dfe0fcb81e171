"""The compiled model as judged side: the same calls as the oracle's, made as single events on a Machine.

The machine runs whatever strategy its runner holds, so that the running kernel judges the model with the strategy's
hooks in place. One machine serves all sides in turn: a fresh side is the saved state restored.
"""

from __future__ import annotations

from benchframe.events import Kind
from benchframe.judge.child import BRK_BASE, MMAP
from benchframe.judge.ops import Op, file_table
from benchframe.judge.sides import Side
from benchframe.mm import flags
from benchframe.mm.machine import Machine, Runner, Saved, Sizes
from benchframe.mm.space import Space
from benchframe.oracle import Limits, Rules
from benchframe.verify import parameters

_READABLE = tuple(number for number, _, readable, _, _ in file_table() if readable)
_MMS = 64
"""Address spaces: forks in one batch."""
_SIZES = Sizes(mms=_MMS, tasks=_MMS + 2, vmas=1 << 14, tables=1 << 13, pages=1 << 17, files=1 << 12, events=1)


def speaks(op: Op) -> bool:
    """Whether an operation can be an event of a trace: numbers below 2**63, a file that is open for reading."""
    file_known = op.code != MMAP or op.d & flags.MAP_ANONYMOUS or op.e in _READABLE
    return bool(file_known) and all(word < 1 << 63 for word in op[1:5]) and (op.code == MMAP or op.e < 1 << 63)


class ModelSide(Space):
    """One fresh address space of a machine; the side made before it must not be used any more."""

    def __init__(self, machine: Machine, saved: list[Saved]) -> None:
        machine.restore(saved)
        machine.runner.attach(machine)  # it may have served a machine with other rules since
        super().__init__(machine)
        self._forks = 0
        self.exec(BRK_BASE)

    def fault(self, addr: int, access: int, user: bool = False) -> int:
        """As of a Space, in kernel mode unless told otherwise."""
        return super().fault(addr, access, user)

    def fork(self, task: int | None = None) -> ModelSide:
        """The child's address space: this object, now in the child.

        Raises:
            RuntimeError: more forks in one batch than there are address spaces.
        """
        self._forks += 1
        if self._forks >= _MMS - 1:
            raise RuntimeError(f"more than {_MMS - 2} forks in one program")
        self._call(Kind.FORK, addr=self._forks, len=self._forks)
        self.number = self.task = self._forks
        return self


def model_side(runner: Runner) -> Side:
    """What makes judged sides of the model that ``runner`` runs; its memory is laid out at the first use.

    The factory keeps one machine for each pair of rules and limits.
    """
    machines: dict[tuple[Rules, Limits], tuple[Machine, list[Saved]]] = {}

    def make(rules: Rules, limits: Limits) -> ModelSide:
        known = machines.get((rules, limits))
        if known is None:
            machine = Machine(runner, _SIZES, parameters(rules, limits))
            for number, size, _, writable, _ in file_table():
                record = machine.arrays["file_base"][number + 1]
                record["size"], record["flags"] = size, 0 if writable else flags.FILE_NOWRITE
            known = machines[rules, limits] = machine, machine.save()
        return ModelSide(*known)

    return make
