"""A build for debugging: compiled code that tests every access, and tells the first one that no record is at.

Timed code tests no access, as C does not: through NULL it reads zeros, and an index outside a slab damages what
lies there. Here the text is rewritten as the cost engine rewrites it (:mod:`benchframe.engine.cost.rewrite`), with a
test in place of each record. Faults and lookups are compiled; mapping calls are the same text as Python, much
slower, because their code is ten times as large to compile. Answers are not compared.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from benchframe.dialect.records import NullDereference, Slab, Struct, WildAccess
from benchframe.dialect.units import Units, UnitSpec
from benchframe.engine.cost.records import STRUCTURES, Memory
from benchframe.engine.cost.rewrite import CompiledTranslator, Kind, Translator, Writer
from benchframe.engine.session import prepare
from benchframe.errors import BenchframeError
from benchframe.interpreted import InterpretedRunner
from benchframe.mm.layout import ANSWER, ARENA, EVENT, FREED, MM, SAMPLE, mm_struct
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import FAULT, LOOKUP, bare_lookup, one_event

if TYPE_CHECKING:
    import ast

    from benchframe.dialect.store import Unit
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

_BASES = tuple(name for name in mm_struct.fields if name.endswith("_base") and name != "mmap_base")
guarding = Struct(
    "guarding",
    [
        ("place", "i8", "number of the line with the first wrong access, 0 if there is none"),
        ("index", "i8", "the record that it asked for"),
        ("slab", "i8", "of which slab: its number in _BASES"),
        *((name, "i8", "as in mm_struct [constant]") for name in _BASES),
        *((name.removesuffix("_base") + "_count", "i8", "records of the slab [constant]") for name in _BASES),
    ],
)
_BOOKS = (ARENA, FREED, EVENT, ANSWER, SAMPLE)
"""The slabs that the kernel does not have."""
_ENTRY = f"""
def _entry(_h, first, last):
    index = first
    while index < last:
        kind = _s_event_base(_h, index).kind
        if kind != {FAULT} and kind != {LOOKUP}:
            return index
        {{does}}
        if _h.place != 0:
            return index
        index += 1
    return index
"""
_GUARD = """
def {name}(_h, index, place):
    if index < {first} or index >= _h.{count}:
        if _h.place == 0:
            _h.place = place
            _h.index = index
            _h.slab = {number}
        return 0
    return index
"""
"""Gives the index, or 0, so that the replay goes on harmlessly to the end of the event."""


Place = tuple[str, int, str]
"""File, line, function."""


@dataclass(frozen=True)
class Finding:
    """The first wrong access: in which event, what, and the statement's file, line and function."""

    event: int
    what: str
    place: Place

    @property
    def text(self) -> str:
        """In one line."""
        file, line, function = self.place
        return f"{self.what} (event {self.event}), in {function} ({file}:{line})"


class _GuardedWriter(Writer):
    """Knows the line of each statement that it rewrites."""

    def statement(self, node: ast.stmt, depth: int) -> list[str]:
        code = self.function.__code__
        assert isinstance(self.owner, _Guards)
        self.owner.places.append((code.co_filename, code.co_firstlineno + node.lineno - 1, code.co_name))
        return super().statement(node, depth)

    def mark(self, slab: Slab, field: str, kind: int, index: str) -> list[str]:
        return []


class _Guards(Translator):
    """What both forms share: no records, and the place of each access."""

    writer = _GuardedWriter

    def __init__(self, *arguments: Any) -> None:
        self.places: list[Place] = []
        """Those of the statements in the order of their text; an access knows its number, from 1."""
        super().__init__(*arguments)

    def name_of(self, function: FunctionType, kinds: tuple[Kind, ...], far: bool) -> str:
        before, here = len(self.places), self.places[-1:]
        name = super().name_of(function, kinds, far)
        if len(self.places) != before:  # the callee's text came in between
            self.places += here
        return name

    def note(self, record: str) -> str:
        return "pass"

    def after(self, record: str, value: str) -> str:
        return value

    def access(
        self, how: str, kind: int, slab: Slab, field: str, index: str, operands: Sequence[str], new: Callable[[], str]
    ) -> str:
        return self.plain(how, slab, field, index, operands)


class GuardedTranslator(_Guards):
    """The form in Python: a wrong access raises :class:`WildAccess`."""

    def guarded(self, slab: Slab, index: str) -> str:
        """``index`` after its test."""
        name = f"_g_{slab.base}_{slab.first}"
        if name not in self.scope:
            count, places = len(self.memory.machine.arrays[slab.base]), self.places

            def guard(index: int, place: int) -> int:
                if not slab.first <= index < count:
                    raise _Wrong(_told(slab, index, count), places[place - 1])
                return index

            self.scope[name] = guard
        return f"{name}({index}, {len(self.places)})"

    def element(self, slab: Slab, field: str, index: str) -> str:
        return super().element(slab, field, self.guarded(slab, index))

    def plain(self, how: str, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        if how == "load":
            return self.element(slab, field, index)
        return super().plain(how, slab, field, self.guarded(slab, index), operands)


class CompiledGuards(_Guards, CompiledTranslator):
    """The form to be compiled: a wrong access is kept in :data:`guarding`, and reads record 0 instead."""

    def entry(self, faults: bool = True) -> Callable[..., int]:
        """Replays events [first, last) until a mapping call or a finding; returns where it stopped. ``faults``: whether
        there are any among them."""
        replay: Any = one_event
        lookup: Any = bare_lookup
        if faults:
            does = f"{self.name_of(replay, (MM, None), False)}(_h, 1, index)"
        else:  # a fraction of the text, so that a stream of lookups alone is compiled soon
            name = self.name_of(lookup, (MM, None, None, None), False)
            event = "_s_event_base(_h, index)"
            does = f"{name}(_h, {event}.mm + 1, {event}.task + 1, {event}.addr, {event}.flags)"
        self.define("_entry", _ENTRY.format(does=does), "entry")
        found: Callable[..., int] = self.scope["_entry"]
        return found

    def guarded(self, slab: Slab, index: str, place: str) -> str:
        """``index`` after its test."""
        name = f"_g_{slab.base}_{slab.first}"
        if name not in self.scope:
            count = slab.base.removesuffix("_base") + "_count"
            number = _BASES.index(slab.base)
            self.define(name, _GUARD.format(name=name, first=slab.first, count=count, number=number), name)
        return f"{name}(_h, {index}, {place})"

    def element(self, slab: Slab, field: str, index: str) -> str:
        return super().element(slab, field, self.guarded(slab, index, str(len(self.places))))

    def _helper(self, how: str, kind: int | None, slab: Slab, field: str, index: str, operands: Sequence[str]) -> str:
        name = f"_{how}_{slab.base}_{slab.first}_{field}"
        if name not in self.scope:
            names = ["i", *(f"a{number}" for number in range(len(operands)))]
            record = f"{self.slab(slab)}(_h, {self.guarded(slab, 'i', 'place')})"
            does = f"{record}.{field} = a0\n return 0" if how == "store" else f"return _{how}({record}, {field!r}"
            if how != "store":
                does += "".join(f", {one}" for one in names[1:]) + ")"
            self.define(name, f"def {name}({self.parameters([*names, 'place'])}):\n {does}\n", name)
        return self.called(name, [index, *operands, str(len(self.places))])


class _Wrong(WildAccess):
    """A wrong access of the form in Python."""

    def __init__(self, told: str, place: Place) -> None:
        super().__init__(told)
        self.told, self.place = told, place


def _told(slab: Slab, index: int, count: int) -> str:
    """What is wrong with an access."""
    if 0 <= index < slab.first:
        return f"{NullDereference.kind}: {slab.name}(mm, {'NULL' if index == 0 else index}) is read or written"
    return f"{WildAccess.kind}: {slab.name}(mm, {index}), the slab has {count} records"


def guard(strategy: Strategy, trace: Trace, note: Callable[[str], None] | None = None) -> Finding | None:
    """Replay ``trace`` with every access tested: the first wrong one, or None. ``note`` is called with what must be
    compiled.

    Raises DialectError for code that cannot be rewritten or compiled, MemoryError. Per lookup some ten times the time
    of timed code, per mapping call about a millisecond.
    """
    stream = prepare(trace.events)
    machine = Machine(
        InterpretedRunner(strategy), Sizes.of(trace.events), Parameters.of(trace.meta.limits), strategy.slabs
    )
    for number in stream.boots:
        machine.boot(number)
    machine.arrays["event_base"][:] = stream.records
    kinds = stream.records["kind"]
    memory = Memory(machine, strategy)
    compiled = CompiledGuards(memory, strategy)
    unit: Unit | None = None
    if np.isin(kinds, (FAULT, LOOKUP)).any():
        entry = compiled.entry(bool((kinds == FAULT).any()))
        unit = Units(guarding, ()).get(UnitSpec(f"guarded-{strategy.name}", entry, {}), note)
    header = np.zeros(1, guarding.dtype)
    root = machine.mm(0)
    for base in _BASES:
        header[base] = root[base]
        header[base.removesuffix("_base") + "_count"] = len(machine.arrays.get(base, ()))
    one = GuardedTranslator(memory, strategy.binding, list[int]().append).function(one_event, (MM, None))
    slabs = {slab.base: slab for slab in (*_BOOKS, *(slab for _, slab in STRUCTURES), *strategy.slabs)}
    at, last = 0, len(stream.records)
    while at < last:
        if unit is not None and kinds[at] in (FAULT, LOOKUP):
            at = unit(header.ctypes.data, at, last)
            if place := int(header["place"][0]):
                slab = slabs[_BASES[int(header["slab"][0])]]
                told = _told(slab, int(header["index"][0]), len(machine.arrays[slab.base]))
                return Finding(at, told, compiled.places[place - 1])
        else:
            try:
                one(1, at)
            except _Wrong as wrong:
                return Finding(at, wrong.told, wrong.place)
            at += 1
    machine.raise_if_full()
    return None


def guard_apart(strategy: Strategy, trace: Trace, timeout: float, note: Callable[[str], None]) -> tuple[str, bool]:
    """:func:`guard` in a process of its own, which ends after ``timeout`` seconds: what it found, and whether that is
    nothing."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def replay() -> None:
        try:
            found = guard(strategy, trace, note)
            theirs.send((found.text, False) if found else (f"no access but to records, in {len(trace)} events", True))
        except BenchframeError as error:
            theirs.send((error.line, False))
        except Exception as error:  # a mistake of the text in its Python form, or before the first event
            theirs.send((f"{getattr(error, 'kind', type(error).__name__)}: {error}", False))

    process = context.Process(target=replay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: a fork beside NumPy's idle threads
        process.start()
    theirs.close()
    try:
        if not ours.poll(timeout):
            return f"no end within {timeout:g} s", False
        said: tuple[str, bool] = ours.recv()
        return said
    except EOFError:
        process.join()
        return f"the replay ended without an answer (exit code {process.exitcode})", False
    finally:
        process.kill()
        process.join()
        ours.close()
