"""One area of an address space (the kernel's vm_area_struct) and the object behind it, as plain Python objects."""

from dataclasses import dataclass, field, replace

from benchframe.events import NIL
from benchframe.oracle.flags import PAGE_SHIFT, VM_ACCESS, VM_GROWSDOWN, VM_MAYSHARE

_FOREVER = 1 << 62


@dataclass(eq=False)
class Backing:
    """An open file, or the object behind one shared anonymous mapping; compared by identity."""

    number: int = NIL
    """The trace's file index; NIL for shared anonymous memory."""
    size: int = _FOREVER
    """Bytes; access past the last page is a bus error."""
    inode: int = 0
    """Two openings of one file have the same; only the ablation of ``merge_file`` looks at it."""
    readable: bool = True
    writable: bool = True


@dataclass(eq=False)
class Area:
    """A vm_area_struct: [vm_start, vm_end) in bytes, and all that merge rules look at."""

    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int
    """Offset of ``vm_start`` in the file, in pages; for private anonymous memory an address in pages."""
    vm_file: Backing | None = None
    anon_vma: int = 0
    """Identity of the anon_vma, 0 if none: set by the first write fault of a private area."""
    chain: tuple[int, ...] = field(default=())
    """Every anon_vma linked (anon_vma_chain); more than one after fork."""

    @property
    def singular(self) -> bool:
        """Not inherited through fork: exactly one anon_vma linked."""
        return len(self.chain) == 1

    @property
    def inherited(self) -> bool:
        """Has an anon_vma and ancestors' beside it."""
        return self.anon_vma != 0 and len(self.chain) != 1

    @property
    def anonymous(self) -> bool:
        """No object behind it that supplies pages (vma_is_anonymous)."""
        return self.vm_file is None

    def pgoff_at(self, addr: int) -> int:
        """The page offset of ``addr``, which lies in this area."""
        return self.vm_pgoff + ((addr - self.vm_start) >> PAGE_SHIFT)

    def start_gap(self, stack_guard_gap: int) -> int:
        """Where the space that must stay free below this area begins (vm_start_gap)."""
        return max(0, self.vm_start - stack_guard_gap) if self.vm_flags & VM_GROWSDOWN else self.vm_start

    def copy(self) -> "Area":
        """An equal area that can change on its own."""
        return replace(self)

    def row(self) -> tuple[int, int, int, int, int, int]:
        """What /proc/PID/maps shows: (vm_start, vm_end, prot, shared, offset in bytes, file index or NIL)."""
        file = self.vm_file
        return (
            self.vm_start,
            self.vm_end,
            self.vm_flags & VM_ACCESS,
            1 if self.vm_flags & VM_MAYSHARE else 0,
            0 if file is None else self.vm_pgoff << PAGE_SHIFT,
            NIL if file is None else file.number,
        )
