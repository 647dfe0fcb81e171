"""The compiled model as judged side: the same calls as the oracle's, made as single events on a Machine.

The machine runs whatever strategy its runner holds, so that the running kernel judges the model with the strategy's
hooks in place. One machine serves all sides in turn: a fresh side is the saved state restored.
"""

from __future__ import annotations

from typing import Any

from benchframe.events import NIL, Kind
from benchframe.judge.child import BRK_BASE, FILES, MMAP
from benchframe.judge.ops import Op, Row, file_table
from benchframe.judge.sides import Side
from benchframe.mm import flags, layout
from benchframe.mm.machine import Machine, Runner, Saved, Sizes
from benchframe.oracle import Limits, Rules
from benchframe.oracle.flags import smaps_flags
from benchframe.verify import parameters

_COLUMNS = ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_pgoff", "vm_file")
_READABLE = tuple(number for number, _, readable, _, _ in file_table() if readable)
_MMS = 64
"""Address spaces: forks in one batch."""
_SIZES = Sizes(mms=_MMS, tasks=_MMS + 2, vmas=1 << 14, tables=1 << 13, pages=1 << 17, files=1 << 12, events=1)


def _signed(word: int) -> int:
    """A 64-bit word as the signed number that the event's column holds."""
    return word - (1 << 64) if word >= 1 << 63 else word


def speaks(op: Op) -> bool:
    """Whether an operation can be an event of a trace: numbers below 2**63, a file that is open for reading."""
    file_known = op.code != MMAP or op.d & flags.MAP_ANONYMOUS or op.e in _READABLE
    return bool(file_known) and all(word < 1 << 63 for word in op[1:5]) and (op.code == MMAP or op.e < 1 << 63)


class ModelSide:
    """One fresh address space of a machine; the side made before it must not be used any more."""

    def __init__(self, machine: Machine, saved: list[Saved]) -> None:
        machine.restore(saved)
        machine.runner.attach(machine)  # it may have served a machine with other rules since
        self.machine = machine
        self.number = 0
        self.forks = 0
        self.columns = {name: machine.arrays["vma_base"][name] for name in _COLUMNS}
        self._call(Kind.EXEC, addr=BRK_BASE)

    def _call(self, kind: int, **columns: int) -> int:
        words: dict[str, Any] = {name: _signed(value) for name, value in columns.items()}
        return self.machine.call(kind, mm=self.number, task=self.number, **words)

    def mmap(self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0, /) -> int:
        """An address, or -errno."""
        return self._call(Kind.MMAP, addr=addr, len=length, prot=prot, flags=flags, file=file, offset=offset)

    def munmap(self, addr: int, length: int, /) -> int:
        """0, or -errno."""
        return self._call(Kind.MUNMAP, addr=addr, len=length)

    def mprotect(self, addr: int, length: int, prot: int, /) -> int:
        """0, or -errno."""
        return self._call(Kind.MPROTECT, addr=addr, len=length, prot=prot)

    def mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0, /) -> int:
        """An address, or -errno."""
        return self._call(Kind.MREMAP, addr=addr, len=old_len, new_len=new_len, flags=flags, offset=new_addr)

    def brk(self, addr: int, /) -> int:
        """The break afterwards."""
        return self._call(Kind.BRK, addr=addr)

    def madvise(self, addr: int, length: int, advice: int, /) -> int:
        """0, or -errno."""
        return self._call(Kind.MADVISE, addr=addr, len=length, flags=advice)

    def mlock(self, addr: int, length: int, /) -> int:
        """0, or -errno."""
        return self._call(Kind.MLOCK, addr=addr, len=length)

    def munlock(self, addr: int, length: int, /) -> int:
        """0, or -errno."""
        return self._call(Kind.MUNLOCK, addr=addr, len=length)

    def fault(self, addr: int, access: int, /) -> int:
        """0, or a negative number."""
        return self._call(Kind.FAULT, addr=addr, prot=access)

    def fork(self) -> ModelSide:
        """The child's address space: this object, now in the child.

        Raises:
            RuntimeError: more forks in one batch than there are address spaces.
        """
        self.forks += 1
        if self.forks >= _MMS - 1:
            raise RuntimeError(f"more than {_MMS - 2} forks in one program")
        self._call(Kind.FORK, addr=self.forks, len=self.forks)
        self.number = self.forks
        return self

    def _slots(self) -> list[int]:
        """The areas' records in address order."""
        slots = []
        slot = int(self.machine.mm(self.number)["mmap"])
        following = self.columns["vm_next"]
        while slot:
            slots.append(slot)
            slot = following.item(slot)
        return slots

    def layout(self) -> list[Row]:
        """Every area, as the oracle gives it."""
        columns = self.columns
        starts, ends, bits = columns["vm_start"], columns["vm_end"], columns["vm_flags"]
        offsets, files = columns["vm_pgoff"], columns["vm_file"]
        rows = []
        for slot in self._slots():
            word, file = bits.item(slot), files.item(slot)
            shown = file - 1 if 0 < file <= len(FILES) else NIL
            offset = offsets.item(slot) << layout.PAGE_SHIFT if file else 0
            shared = 1 if word & flags.VM_MAYSHARE else 0
            rows.append((starts.item(slot), ends.item(slot), word & flags.VM_ACCESS, shared, offset, shown))
        return rows

    def layout_flags(self) -> list[str]:
        """Every area's VmFlags words."""
        guard, words = 0x800, self.columns["vm_flags"]
        return [
            smaps_flags((words.item(slot) & ~guard) | (guard if words.item(slot) & flags.VM_GUARD else 0))
            for slot in self._slots()
        ]


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
