"""Structs and slabs: the memory that strategy functions see, with the kernel's field names.

A :class:`Struct` is a C struct: named signed-integer fields, each with a line that says what it holds and
which lock protects it. A :class:`Slab` is an array of one struct, as a kernel slab cache is; ``VMA(mm, i)``
is "the i-th vm_area_struct", a *reference*: ``VMA(mm, i).vm_start = a`` stores. Index 0 is never handed
out, so that :data:`NULL` is 0 and zeroed memory means "no pointer".

Natively a reference is one pointer and ``VMA(mm, i)`` is ``mm->vma_base + i * 192``. Interpreted it is a
small proxy object (see :mod:`benchframe.dialect.interp`). The text is the same.

>>> point = Struct("point", [("x", "i8", "abscissa; protected by nothing"), ("y", "i8", "ordinate; likewise")])
>>> point.size, point.offset("y")
(16, 8)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchframe.errors import BenchframeError

if TYPE_CHECKING:
    import numpy as np

NULL = 0
"""The null reference. Slot 0 of each slab is never used."""

_SIZES = {"i8": 8, "i4": 4}


class DialectError(BenchframeError):
    """Something the dialect forbids; the message names the place, what is wrong, and the mend."""

    @property
    def line(self) -> str:
        """As of every error; several mistakes are a line each."""
        told = str(self)
        return "\n  ".join(["strategy code has mistakes", *told.splitlines()]) if "\n" in told else super().line


class Struct:
    """A record type: ordered signed fields, C layout without padding.

    ``fields`` are ``(name, type, comment)``; type ``i8`` or ``i4``. ``size`` pads the record to that many
    bytes (a multiple of 8). Unsigned types are refused: mixed unsigned and signed arithmetic differs between
    compiled and interpreted runs.
    """

    def __init__(self, name: str, fields: Sequence[tuple[str, str, str]], size: int | None = None) -> None:
        self.name = name
        self.fields: dict[str, tuple[int, str]] = {}
        self.comments: dict[str, str] = {}
        offset = 0
        for field, kind, comment in fields:
            if kind not in _SIZES:
                raise DialectError(
                    f"struct {name}, field {field}: type {kind!r} is not of the dialect; use 'i8' (or 'i4'): "
                    "unsigned and floating fields behave differently when interpreted"
                )
            if field in self.fields:
                raise DialectError(f"struct {name} has two fields named {field}; rename one")
            if offset % _SIZES[kind]:
                raise DialectError(f"struct {name}, field {field}: not aligned; put i4 fields in pairs")
            self.fields[field] = (offset, kind)
            self.comments[field] = comment
            offset += _SIZES[kind]
        padded = (offset + 7) // 8 * 8
        if size is not None and size < padded:
            raise DialectError(f"struct {name} needs {padded} bytes, size says {size}")
        self.size = size or padded

    def offset(self, field: str) -> int:
        """Byte offset of ``field``; KeyError if there is none."""
        return self.fields[field][0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of one record, ``itemsize == size``."""
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
        """One line that changes whenever the memory layout does; part of what compiled code depends on."""
        return f"{self.name}:{self.size}:" + ",".join(f"{n}@{o}{k}" for n, (o, k) in self.fields.items())

    def __repr__(self) -> str:
        return f"<struct {self.name}, {self.size} bytes>"


class Slab:
    """An array of ``struct`` whose base address stands in field ``base`` of ``mm_struct``.

    Calling it, ``slab(mm, i)``, gives the reference; nothing is checked natively. ``name`` is what dumps and
    cost tables call it. Complexity O(1).
    """

    def __init__(self, name: str, struct: Struct, base: str) -> None:
        self.name = name
        self.struct = struct
        self.base = base
        self.__name__ = name

    def __call__(self, mm: Any, index: int) -> Any:
        return mm.world.ref(self, index)

    @property
    def layout(self) -> str:
        """What compiled code depends on."""
        return f"slab {self.base} of {self.struct.layout}"

    def __repr__(self) -> str:
        return f"<slab {self.name} of {self.struct.name}>"
