"""An address space and its system calls: the compiled model behind the same methods as the oracle's.

Each call is one event on the machine (:meth:`Machine.call`), so the hooks of the machine's strategy take part. Meant
for tests and the judge, not for timing: a call costs some 20 us of Python.
"""

from __future__ import annotations

from benchframe.events import NIL, UNKNOWN, FaultFlag, Kind
from benchframe.mm import flags, layout
from benchframe.mm.machine import Machine
from benchframe.mm.task_mmu import CHECKSUM, COUNT_SHIFT
from benchframe.oracle.rules import smaps_flags

Row = tuple[int, int, int, int, int, int]
"""(vm_start, vm_end, prot, shared 0/1, file offset in bytes, file number or NIL)."""
_COLUMNS = ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_pgoff", "vm_file")
_SMAPS_GUARD = 0x800
"""The position of the flag that the model keeps at VM_GUARD, in the kernel's vm_flags."""


def _signed(word: int) -> int:
    """The low 64 bits of ``word`` as the signed number that an event's column holds."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


class Space:
    """Trace mm ``number`` of ``machine``; ``task`` makes the calls. Calls return 0, an address or -errno.

    Any call raises MemoryError if a slab is full afterwards: results so far are invalid.
    """

    def __init__(self, machine: Machine, number: int = 0, task: int | None = None) -> None:
        self.machine = machine
        self.number = number
        self.task = number if task is None else task
        vmas = machine.arrays["vma_base"]
        self._columns = {
            name: vmas[name] for name in ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_pgoff", "vm_file")
        }

    def _call(self, kind: Kind, **columns: int) -> int:
        words = {name: _signed(value) for name, value in columns.items()}
        return self.machine.call(kind, mm=self.number, task=self.task, **words)

    # ---- calls --------------------------------------------------------------------------------------------------

    def exec(self, start_brk: int = NIL) -> int:
        """Empty the address space; the heap will begin at ``start_brk`` (NIL: at the address of the first brk)."""
        return self._call(Kind.EXEC, addr=start_brk)

    def mmap(
        self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0, at: int = UNKNOWN
    ) -> int:
        """mmap(2): the address, or -errno. ``at``: the recorded result, used instead of a search."""
        return self._call(Kind.MMAP, addr=addr, len=length, prot=prot, flags=flags, file=file, offset=offset, ret=at)

    def exec_map(self, addr: int, length: int, prot: int, flags: int, file: int = NIL, offset: int = 0) -> int:
        """A mapping that the kernel made itself: ``flags`` are MAP_* and MapType bits."""
        return self._call(Kind.MAP, addr=addr, len=length, prot=prot, flags=flags, file=file, offset=offset)

    def munmap(self, addr: int, length: int) -> int:
        """munmap(2)."""
        return self._call(Kind.MUNMAP, addr=addr, len=length)

    def mprotect(self, addr: int, length: int, prot: int) -> int:
        """mprotect(2)."""
        return self._call(Kind.MPROTECT, addr=addr, len=length, prot=prot)

    def mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0, at: int = UNKNOWN) -> int:
        """mremap(2): the new address, or -errno."""
        return self._call(Kind.MREMAP, addr=addr, len=old_len, new_len=new_len, flags=flags, offset=new_addr, ret=at)

    def brk(self, addr: int) -> int:
        """brk(2): the break afterwards."""
        return self._call(Kind.BRK, addr=addr)

    def madvise(self, addr: int, length: int, advice: int) -> int:
        """madvise(2)."""
        return self._call(Kind.MADVISE, addr=addr, len=length, flags=advice)

    def mlock(self, addr: int, length: int) -> int:
        """mlock(2)."""
        return self._call(Kind.MLOCK, addr=addr, len=length)

    def munlock(self, addr: int, length: int) -> int:
        """munlock(2)."""
        return self._call(Kind.MUNLOCK, addr=addr, len=length)

    def fault(self, addr: int, access: int, user: bool = True) -> int:
        """A page fault (``access``: 1 read, 2 write, 4 execute): 0 or FAULT_*. In kernel mode if not ``user``."""
        return self._call(Kind.FAULT, addr=addr, prot=access, flags=int(FaultFlag.USER) if user else 0)

    def find_vma(self, addr: int, user: bool = False) -> tuple[int, int] | None:
        """(vm_start, vm_end) of the first VMA with ``addr < vm_end``; with ``user`` through the strategy's accessor."""
        self._call(Kind.LOOKUP, addr=addr, flags=int(FaultFlag.USER) if user else 0)
        answer = self.machine.arrays["answer_base"][0]
        return (int(answer["vm_start"]), int(answer["vm_end"])) if answer["vma"] else None

    def maps(self, lines: int = 0) -> tuple[int, int]:
        """Read all VMAs, ``lines`` of them with each read(2) (0: all): their number and the checksum of their
        ranges."""
        found = self._call(Kind.WALK, new_len=lines)
        return found >> COUNT_SHIFT, found & CHECKSUM

    def fork(self, task: int | None = None) -> Space:
        """The child's address space, called by its first task (the lowest free number if not given).

        Raises RuntimeError when the machine has no free mm or task record.
        """
        child = self._free("mm_base", "pgd")
        first = self._free("task_base", "mm") if task is None else task
        self._call(Kind.FORK, addr=child, len=first)
        return Space(self.machine, child, first)

    def thread(self, task: int | None = None) -> Space:
        """This address space, called by a new task (the lowest free number if not given). Raises RuntimeError without a
        free task record."""
        task = self._free("task_base", "mm") if task is None else task
        self._call(Kind.THREAD, len=task)
        return Space(self.machine, self.number, task)

    def exit(self, last: bool = True) -> int:
        """This task ends, and the address space too if it was the ``last`` one."""
        return self._call(Kind.EXIT, len=int(last))

    def _free(self, base: str, used: str) -> int:
        """The lowest number of a record whose field ``used`` is 0, except the first record."""
        column = self.machine.arrays[base][used]
        for number in range(1, len(column) - 1):
            if column[number + 1] == 0 and not (base == "task_base" and number == self.task):
                return number
        raise RuntimeError(f"no free record in {base}: give Sizes more")

    # ---- files --------------------------------------------------------------------------------------------------

    @property
    def _first_object(self) -> int:
        """FILE records from here on are shared anonymous objects."""
        return max(self.machine.sizes.files // 2, 1)

    def set_file(self, file: int, size: int, readable: bool = True, writable: bool = True, inode: int = 0) -> None:
        """Set the size in bytes of file ``file`` and how it was opened. Files not set are endless and open for both.

        ``inode`` exists for the oracle's signature only: the model compares opened files. Raises ValueError for a
        number beyond the machine's records, and for a file not open for reading (no trace has mappings of one).
        """
        if not 0 <= file < self._first_object - 1:
            raise ValueError(f"file {file}: this machine has room for files 0 to {self._first_object - 2}")
        if not readable:
            raise ValueError(f"file {file}: the model has no files that cannot be read")
        record = self.machine.arrays["file_base"][file + 1]
        record["size"] = size
        record["flags"] = 0 if writable else flags.FILE_NOWRITE

    # ---- answers ------------------------------------------------------------------------------------------------

    def vmas(self) -> list[int]:
        """Slab indices of all VMAs in address order."""
        following = self._columns["vm_next"]
        slot, found = int(self.machine.mm(self.number)["mmap"]), []
        while slot:
            found.append(slot)
            slot = following.item(slot)
        return found

    @property
    def map_count(self) -> int:
        """The number of VMAs, by the mm's own count."""
        return int(self.machine.mm(self.number)["map_count"])

    def layout(self) -> list[Row]:
        """Every VMA as a row, in the oracle's format."""
        return [self._row(slot) for slot in self.vmas()]

    def _row(self, slot: int) -> Row:
        of = self._columns
        word, file = of["vm_flags"].item(slot), of["vm_file"].item(slot)
        return (
            of["vm_start"].item(slot),
            of["vm_end"].item(slot),
            word & flags.VM_ACCESS,
            1 if word & flags.VM_MAYSHARE else 0,
            of["vm_pgoff"].item(slot) << layout.PAGE_SHIFT if file else 0,
            file - 1 if 0 < file < self._first_object else NIL,
        )

    def layout_flags(self) -> list[str]:
        """Every VMA's flags as the VmFlags line of smaps shows them, words sorted."""
        words = self._columns["vm_flags"][self.vmas()].tolist()
        return [smaps_flags((w & ~_SMAPS_GUARD) | (_SMAPS_GUARD if w & flags.VM_GUARD else 0)) for w in words]

    def fault_kind(self) -> str:
        """What this task's last successful fault did, by name (flags.FAULT_KINDS)."""
        return flags.FAULT_KINDS[int(self.machine.arrays["task_base"][self.task + 1]["fault_kind"])]
