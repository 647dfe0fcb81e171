"""Structs and slabs: the memory that strategy functions see, with the kernel's field names.

A :class:`Struct` is a C struct: named signed-integer fields. Each :class:`Field` says what it holds and which lock
protects it. A :class:`Slab` is an array of one struct, as a kernel slab cache is; ``VMA(mm, i)``
is "the i-th vm_area_struct", a *reference*: ``VMA(mm, i).vm_start = a`` stores. Index 0 is never handed
out, so that :data:`NULL` is 0 and zeroed memory means "no pointer".

Natively a reference is one pointer and ``VMA(mm, i)`` is ``mm->vma_base + i * 192``. Interpreted it is a
small proxy object (see :mod:`benchframe.dialect.interpreter`). The text is the same.

>>> point = Struct("point", [Field("x", "i8", "abscissa", lock="point_lock"), Field("y", "i8", "ordinate", align=64)])
>>> point.size, point.offset("y"), point.members["x"].comment
(128, 64, 'abscissa [point_lock]')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchframe.errors import BenchframeError

if TYPE_CHECKING:
    import numpy as np

NULL = 0
"""The null reference. Slot 0 of each slab is never used."""

_SIZES = {"i8": 8, "i4": 4}


class DialectError(BenchframeError):
    """Something the dialect forbids; the message names the place, what is wrong, and what to do."""

    @property
    def line(self) -> str:
        """As for every error, but several mistakes take a line each."""
        told = str(self)
        return "\n  ".join(["strategy code has mistakes", *told.splitlines()]) if "\n" in told else super().line


class WildAccess(IndexError):
    """Strategy code accesses memory outside any record."""

    kind = "wild reference"


class NullDereference(WildAccess):
    """Strategy code reads or writes through NULL. In a kernel this is an oops."""

    kind = "NULL dereference"


@dataclass(frozen=True)
class Field:
    """A field of a record: a signed integer of ``type`` ``i8`` or ``i4`` (64 or 32 bits), and everything known about
    it.

    ``doc`` says what it holds, ``lock`` what protects it. ``model``: the kernel has no such memory, so accesses are not
    counted as costs. ``pointer``: it may hold the number of a record (the checker asks where a number came from).
    ``align`` starts the field at a multiple of this many bytes, a power of two: 64 begins a cache line.
    """

    name: str
    type: str
    doc: str = ""
    lock: str = ""
    model: bool = False
    pointer: bool = False
    align: int = 0

    @property
    def comment(self) -> str:
        """The text in headers, tables and tooltips: ``model: doc [lock]``."""
        return f"{'model: ' if self.model else ''}{self.doc}{f' [{self.lock}]' if self.lock else ''}".strip()


FieldLike = Field | tuple[str, str, str]
"""A field, or its first three members: name, type, doc."""


class Struct:
    """A record type: ordered signed fields, C layout. ``members`` has each field by name, ``fields`` its place:
    (byte offset, type).

    A field may be written as ``(name, type, doc)`` if there is no more to say. ``size`` pads the record to that many
    bytes (a multiple of 8, and of every ``align``). Unsigned types are refused: mixed unsigned and signed arithmetic
    differs between compiled and interpreted runs. Raises DialectError.
    """

    def __init__(self, name: str, fields: Sequence[FieldLike], size: int | None = None) -> None:
        self.name = name
        self.fields: dict[str, tuple[int, str]] = {}
        self.members: dict[str, Field] = {}
        offset, multiple = 0, 8
        for given in fields:
            member = given if isinstance(given, Field) else Field(*given)
            field, kind = member.name, member.type
            if kind not in _SIZES:
                raise DialectError(
                    f"struct {name}, field {field}: type {kind!r} is not of the dialect; use 'i8' (or 'i4'): "
                    "unsigned and floating fields behave differently when interpreted"
                )
            if field in self.fields:
                raise DialectError(f"struct {name} has two fields named {field}; rename one")
            if member.align:
                if member.align & (member.align - 1) or member.align % _SIZES[kind]:
                    raise DialectError(
                        f"struct {name}, field {field}: align={member.align} is not a power of two >= {_SIZES[kind]}"
                    )
                offset = -(-offset // member.align) * member.align
                multiple = max(multiple, member.align)
            if offset % _SIZES[kind]:
                raise DialectError(f"struct {name}, field {field}: not aligned; put i4 fields in pairs")
            self.fields[field] = (offset, kind)
            self.members[field] = member
            offset += _SIZES[kind]
        padded = -(-offset // multiple) * multiple
        if size is not None and size < padded:
            raise DialectError(f"struct {name} needs {padded} bytes, size says {size}")
        if size is not None and size % multiple:
            raise DialectError(f"struct {name}: size {size} is not a multiple of {multiple}")
        self.size = size or padded

    def offset(self, field: str) -> int:
        """Byte offset of ``field``; KeyError if there is none."""
        return self.fields[field][0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of one record, with ``itemsize == size``."""
        import numpy as np

        spec: Any = {
            "names": list(self.fields),
            "formats": [kind for _, kind in self.fields.values()],
            "offsets": [offset for offset, _ in self.fields.values()],
            "itemsize": self.size,
        }
        made: np.dtype[Any] = np.dtype(spec)
        return made

    @property
    def layout(self) -> str:
        """One line that changes whenever the memory layout does; compiled code depends on it."""
        return f"{self.name}:{self.size}:" + ",".join(f"{n}@{o}{k}" for n, (o, k) in self.fields.items())

    def __repr__(self) -> str:
        return f"<struct {self.name}, {self.size} bytes>"


class Slab:
    """An array of ``struct`` whose base address stands in field ``base`` of ``mm_struct``.

    Calling it, ``slab(mm, i)``, gives the reference; nothing is checked natively, unless a build for debugging is made
    (:mod:`benchframe.engine.guard`). ``name`` is what dumps and cost tables call it. Complexity O(1).

    Records below ``first`` are what NULL leads to: interpreted code that reads or writes one raises
    :class:`NullDereference`. 1 for records that references lead to, 0 where record 0 is one like the others, the number
    of elements where the records are the elements of an array in a larger record.
    """

    def __init__(self, name: str, struct: Struct, base: str, first: int = 1) -> None:
        self.name = name
        self.struct = struct
        self.base = base
        self.first = first
        self.__name__ = name

    def __call__(self, mm: Any, index: int) -> Any:
        return mm.world.ref(self, index)

    @property
    def layout(self) -> str:
        """The text that compiled code depends on."""
        return f"slab {self.base} of {self.struct.layout}"

    def __repr__(self) -> str:
        return f"<slab {self.name} of {self.struct.name}>"
