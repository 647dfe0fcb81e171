"""Faults and lookups counted by compiled code: the rewritten text again, over the dialect instead of Python's memory.

The interpreted form of a rewritten function appends to a list, some 100 ns a record. The forms here write to a buffer
and are compiled as any strategy code is, some 3 ns. The records are the same ones in the same order, so which form
counted shows in nothing but the time. Mapping operations stay interpreted: their code is ten times as large to
compile, and a stream has few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.function import native
from benchframe.dialect.primitives import cmpxchg, fetch_add, fls, wait_then_add, xchg
from benchframe.dialect.struct import Field, Slab, Struct
from benchframe.dialect.units import Units, UnitSpec
from benchframe.engine.cost.memory import EVENT as BEGINS
from benchframe.engine.cost.memory import SHIFT, STRUCTURES, Memory
from benchframe.engine.cost.summing import RECORD
from benchframe.engine.cost.translate import Translator
from benchframe.errors import EngineError
from benchframe.mm.layout import EVENT, MM, PRIVATE_BASES, mm_struct
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, FAULT, LOOKUP, one_event

if TYPE_CHECKING:
    from benchframe.dialect.loader import Unit
    from benchframe.strategy import Strategy

Array = npt.NDArray[Any]
CAPACITY = 1 << 22
"""Records of the buffer; what is not reached of it is no memory. One event may leave all but a batch of them."""
_ROOM = f"one event leaves more than some {CAPACITY // 1_000_000} million records: it cannot be counted"
_BASES = tuple(name for name in mm_struct.fields if name.endswith("_base") and name != "mmap_base")
_PLACES = tuple(base.removesuffix("_base") + "_place" for base in [*(s.base for _, s in STRUCTURES), *PRIVATE_BASES])
counting = Struct(
    "counting",
    [
        Field("record_base", "i8", "slab RECORD: the buffer", lock="constant"),
        ("cursor", "i8", "records so far, those without room included"),
        Field("full", "i8", "no event begins from here on", lock="constant"),
        ("nothing", "i8", "0: a sum with it is no literal, for which the compiler would compile the callee again"),
        Field("limit", "i8", "records that the buffer holds", lock="constant"),
        *((name, "i8", "as in mm_struct [constant]") for name in _BASES),
        *((name, "i8", "byte address of record 0, as counted [constant]") for name in _PLACES),
    ],
)
_ENTRY = f"""
def _entry(_h, first, last):
    index = first
    while index < last and _h.cursor < _h.full:
        kind = _s_event_base(_h, index).kind
        if kind == {FAULT}:
            _note(_h, _h.nothing + {(BEGINS << SHIFT) + CLASS_FAULT})
        elif kind == {LOOKUP}:
            _note(_h, _h.nothing + {(BEGINS << SHIFT) + CLASS_LOOKUP})
        else:
            return index
        {{event}}(_h, 1, index)
        index += 1
    return index
"""


@native
def leave_record(h, record):  # type: ignore[no-untyped-def]
    """Append to the buffer; gives 0."""
    if h.cursor < h.limit:
        RECORD(h, h.cursor).value = record
    h.cursor += 1
    return 0


class CompiledTranslator(Translator):
    """Rewrites functions to be compiled: ``_h`` is the :data:`counting` record, references are indices."""

    goes_far = False

    def __init__(self, memory: Memory, strategy: Strategy) -> None:
        super().__init__(memory, strategy.binding, list[int]().append)
        self.scope = {
            "_note": leave_record, "_s_event_base": EVENT,
            "_xchg": xchg, "_cmpxchg": cmpxchg, "_fetch_add": fetch_add, "_wait_then_add": wait_then_add,
            "fls": fls,
        }  # fmt: skip

    def entry(self) -> Callable[..., int]:
        """Replays events [first, last) until a mapping operation or the end of the buffer; gives where it stopped."""
        replay: Any = one_event
        event = self.name_of(replay, (MM, None), False)
        self.define("_entry", _ENTRY.format(event=event), "entry")
        found: Callable[..., int] = self.scope["_entry"]
        return found

    def define(self, name: str, text: str, origin: str) -> None:
        exec(compile(text, "<string>", "exec"), self.scope)
        native(self.scope[name])

    def parameters(self, names: Sequence[str]) -> str:
        return ", ".join(["_h", *names])

    def called(self, name: str, arguments: Sequence[str]) -> str:
        return f"{name}({', '.join(['_h', *arguments])})"

    def note(self, record: str) -> str:
        return f"_note(_h, _h.nothing + {record})"

    def after(self, record: str, value: str) -> str:
        return f"({self.note(record)} + {value})"

    def place(self, slab: Slab, field: str, kind: int, index: str) -> str:
        first = slab.base.removesuffix("_base")
        return f"{(kind << SHIFT) + slab.struct.offset(field)} + _h.{first}_place + {index} * {slab.struct.size}"

    def element(self, slab: Slab, field: str, index: str) -> str:
        return f"{self.slab(slab)}(_h, {index}).{field}"

    def plain(self, how: str, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        return (
            self.element(slab, field, index) if how == "load" else self._helper(how, None, slab, field, index, operands)
        )

    def access(
        self, how: str, kind: int, slab: Slab, field: str, index: str, operands: Sequence[str], new: Callable[[], str]
    ) -> str:
        return self._helper(how, kind, slab, field, index, operands)

    def _helper(self, how: str, kind: int | None, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        """A call of a function that makes the access: the compiler types a call sooner than the text."""
        name = f"_{how}_{slab.base}_{field}" + ("_free" if kind is None else "")
        if name not in self.scope:
            names = ["i", *(f"a{number}" for number in range(len(operands)))]
            record = "" if kind is None else f" {self.note(self.place(slab, field, kind, 'i'))}\n"
            element = self.element(slab, field, "i")
            if how == "load":
                does = f" return {element}\n"
            elif how == "store":
                does = f" {element} = a0\n return 0\n"
            else:
                rest = ", ".join([f"{self.slab(slab)}(_h, i)", repr(field), *names[1:]])
                does = f" return _{how}({rest})\n"
            self.define(name, f"def {name}({self.parameters(names)}):\n{record}{does}", name)
        return self.called(name, [index, *operands])

    def slab(self, slab: Slab) -> str:
        """The global name of a slab."""
        self.scope[f"_s_{slab.base}"] = slab
        return f"_s_{slab.base}"


class Recorder:
    """The compiled form of one strategy's faults and lookups, on one machine's memory."""

    def __init__(self, memory: Memory, unit: Unit, batch: int) -> None:
        self._unit = unit
        self._buffer = np.empty(CAPACITY, np.int64)
        self._header = np.zeros(1, counting.dtype)
        header, root = self._header[0], memory.machine.mm(0)
        for base in _BASES:
            header[base] = root[base]
        for base, address in memory.places():
            header[base.removesuffix("_base") + "_place"] = address
        header["record_base"] = self._buffer.ctypes.data
        header["limit"], header["full"] = CAPACITY, batch

    def run(self, first: int, last: int) -> int:
        """Count events [first, last) until a mapping operation, or ``batch`` records; gives where it stopped.
        EngineError if one event leaves more records than there is room for."""
        stopped = self._unit(self._header.ctypes.data, first, last)
        if self.pending > CAPACITY:
            raise EngineError(_ROOM)
        return stopped

    def push(self, records: Sequence[int]) -> None:
        """Append records that interpreted code left."""
        at = self.pending
        if at + len(records) > CAPACITY:
            raise EngineError(_ROOM)
        self._buffer[at : at + len(records)] = records
        self._header["cursor"] = at + len(records)

    @property
    def pending(self) -> int:
        """Records in the buffer."""
        return int(self._header["cursor"][0])

    @property
    def full(self) -> bool:
        """Whether no event begins before :meth:`take`."""
        return self.pending >= int(self._header["full"][0])

    def take(self) -> Array:
        """The records, valid until the next one is left."""
        found = self._buffer[: self.pending]
        self._header["cursor"] = 0
        return found


def unit_of(memory: Memory, strategy: Strategy) -> UnitSpec:
    """What is to be compiled. Raises DialectError for code that cannot be counted. Some 50 ms: texts are read."""
    return UnitSpec(f"counted-{strategy.name}", CompiledTranslator(memory, strategy).entry(), {})


def units() -> Units:
    """Where the units come from."""
    return Units(counting, ())
