"""A build for debugging: compiled code that tests every access and answer, and tells the first that is wrong.

Timed code tests no access, as C does not: through NULL it reads zeros, an index outside a slab damages what lies there,
and a freed record reads as it was. Here the text is rewritten as the cost engine rewrites it
(:mod:`benchframe.engine.cost.rewrite`), with a test in place of each record; which records are free is kept beside the
allocator, as KASAN's shadow is. Faults and lookups are compiled; mapping calls are the same text as Python, much
slower, because their code is ten times as large to compile. Answers and the end are compared with the oracle's.
"""

from __future__ import annotations

import multiprocessing
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.functions import native
from benchframe.dialect.records import NULL, NullDereference, Slab, Struct, WildAccess
from benchframe.engine.cost.records import STRUCTURES, Memory
from benchframe.engine.cost.rewrite import CompiledTranslator, Kind, Translator, Writer
from benchframe.engine.session import prepare
from benchframe.errors import BenchframeError
from benchframe.mm import layout
from benchframe.mm.layout import (
    ANSWER,
    ARENA,
    EVENT,
    FREED,
    MM,
    SAMPLE,
    VMA,
    arena_alloc,
    arena_free,
    free_typesafe_by_rcu,
    kfree_rcu,
    mm_struct,
)
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import FAULT, LOOKUP, bare_lookup, replay_checked
from benchframe.mm.validate import ValidationError
from benchframe.runner import InterpretedRunner
from benchframe.units import Units, UnitSpec
from benchframe.verify import differs, expected, first_difference, wrong_answers

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
        ("live_base", "i8", "slab LIVE [constant]"),
        ("book_base", "i8", "slab BOOK [constant]"),
        *((name, "i8", "as in mm_struct [constant]") for name in _BASES),
        *((name.removesuffix("_base") + "_count", "i8", "records of the slab [constant]") for name in _BASES),
        *((name.removesuffix("_base") + "_live", "i8", "the first of them in LIVE [constant]") for name in _BASES),
    ],
)
_BOOKS = (ARENA, FREED, EVENT, ANSWER, SAMPLE)
"""The slabs that the kernel does not have."""
LIVE = Slab("LIVE", Struct("liveness", [("freed", "i8", "is the record free?")]), "live_base", first=0)
"""A word per record of every slab that has an allocator; the first stays 0, for slabs that have none."""
BOOK = Slab(
    "BOOK",
    Struct(
        "book_of_an_arena",
        [
            ("first", "i8", "its record 0 in LIVE [constant]"),
            ("count", "i8", "its records [constant]"),
            ("place", "i8", "number of the line that freed what it must not free, 0 if there is none"),
            ("slot", "i8", "what that was"),
        ],
    ),
    "book_base",
    first=0,
)
"""A record per allocator."""
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
    if _live(_h, _h.{live} + (index >> {shift})).freed != 0 and _h.place == 0:
        _h.place = place
        _h.index = index
        _h.slab = {number}
    return index
"""
"""Gives the index, or 0 for one outside, so that the replay goes on harmlessly to the end of the event."""


@native
def noted_alloc(mm, which):  # type: ignore[no-untyped-def]
    """arena_alloc; the record lives."""
    slot = arena_alloc(mm, which)
    first = BOOK(mm, which).first
    if first != 0:
        LIVE(mm, first + slot).freed = 0
    return slot


@native
def noted_free(mm, which, slot, place):  # type: ignore[no-untyped-def]
    """arena_free, if there is a record to free; it lives no more."""
    b = BOOK(mm, which)
    wrong = 0
    if slot <= NULL or slot >= b.count:
        wrong = 1
    elif b.first != 0:
        wrong = LIVE(mm, b.first + slot).freed
        LIVE(mm, b.first + slot).freed = 1
    if wrong != 0:
        b.place = place
        b.slot = slot
        return 0
    return arena_free(mm, which, slot)


@native
def looked_up(root, index):  # type: ignore[no-untyped-def]
    """A LOOKUP event with its answer, as replay_checked writes it: less text, which is compiled sooner."""
    e = EVENT(root, index)
    vma = bare_lookup(MM(root, e.mm + 1), e.task + 1, e.addr, e.flags)
    a = ANSWER(root, index)
    a.vm_start = -1
    a.vm_end = -1
    a.vma = vma
    a.ret = 0
    if vma != NULL:
        a.vm_start = VMA(root, vma).vm_start
        a.vm_end = VMA(root, vma).vm_end
    return vma


Place = tuple[str, int, str]
"""File, line, function."""


@dataclass(frozen=True)
class Finding:
    """The first wrong access or answer: in which event, what, and of an access the statement's file, line, function."""

    event: int
    what: str
    place: Place | None = None
    caller: str = ""
    """Of an access by the model, in a mapping call: the plugin's function that led there, with its first line."""

    @property
    def text(self) -> str:
        """In one line."""
        if self.place is None:
            return self.what
        file, line, function = self.place
        caller = f", called from {self.caller}" if self.caller else ""
        return f"{self.what} (event {self.event}), in {function} ({file}:{line}){caller}"


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
    """What both forms share: no records, the place of each access, and which records are free."""

    writer = _GuardedWriter

    def __init__(self, *arguments: Any) -> None:
        self.places: list[Place] = []
        """Those of the statements in the order of their text; an access knows its number, from 1."""
        self._frees: set[str] = set()
        """The names of what frees; it is told the place of its call."""
        super().__init__(*arguments)

    def name_of(self, function: FunctionType, kinds: tuple[Kind, ...], far: bool) -> str:
        before, here = len(self.places), self.places[-1:]
        inside = here and here[0][0] == __file__  # the two functions of this module call what they stand for
        made: Any = function
        if not inside and function in (arena_free, kfree_rcu):
            made, kinds = noted_free, (*kinds, None)
        elif not inside and function is arena_alloc:
            made = noted_alloc
        elif function is free_typesafe_by_rcu:  # the record keeps its kind, so it may be looked at
            made = arena_free
        name = super().name_of(made, kinds, far)
        if made is noted_free:
            self._frees.add(name)
        if len(self.places) != before:  # the callee's text came in between
            self.places += here
        return name

    def called(self, name: str, arguments: Sequence[str]) -> str:
        place = [str(len(self.places))] if name in self._frees else []
        return super().called(name, [*arguments, *place])

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
        if slab in (LIVE, BOOK):
            return index
        name = f"_g_{slab.base}_{slab.first}"
        if name not in self.scope:
            machine, places = self.memory.machine, self.places
            count, freed = len(machine.arrays[slab.base]), self.memory.column(LIVE, "freed")
            base, shift = _allocated(machine, slab)
            first = _first_live(machine).get(base, 0)
            shift = shift if first else NO_ALLOCATOR

            def guard(index: int, place: int) -> int:
                if not slab.first <= index < count or freed[first + (index >> shift)]:
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
        replay: Any = replay_checked
        lookup: Any = looked_up
        if faults:
            does = f"{self.name_of(replay, (MM, None, None), False)}(_h, 1, index, index + 1)"
        else:
            does = f"{self.name_of(lookup, (MM, None), False)}(_h, 1, index)"
        self.define("_entry", _ENTRY.format(does=does), "entry")
        found: Callable[..., int] = self.scope["_entry"]
        return found

    def guarded(self, slab: Slab, index: str, place: str) -> str:
        """``index`` after its test."""
        if slab in (LIVE, BOOK):
            return index
        name = f"_g_{slab.base}_{slab.first}"
        if name not in self.scope:
            machine, plain = self.memory.machine, slab.base.removesuffix("_base")
            base, shift = _allocated(machine, slab)
            shift = shift if base in _first_live(machine) else NO_ALLOCATOR
            self.scope["_live"] = LIVE
            text = _GUARD.format(
                name=name, first=slab.first, count=f"{plain}_count", live=f"{plain}_live", shift=shift,
                number=_BASES.index(slab.base),
            )  # fmt: skip
            self.define(name, text, name)
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


def _caller(wrong: _Wrong) -> str:
    """The innermost function outside of benchframe that led to an access of benchframe's own."""
    package = str(Path(__file__).parents[1])
    if not wrong.place[0].startswith(package):
        return ""
    frames = traceback.extract_tb(wrong.__traceback__)[::-1]
    origins = (
        f.filename.removeprefix("<counted ").removesuffix(">") for f in frames if f.filename.startswith("<counted")
    )
    outside = next((origin for origin in origins if Path(origin).is_absolute() and not origin.startswith(package)), "")
    file, _, name = outside.partition(" ")
    return f"{name[1:-1]} ({file})" if outside else ""


def _told(slab: Slab, index: int, count: int) -> str:
    """What is wrong with an access."""
    if 0 <= index < slab.first:
        return f"{NullDereference.kind}: {slab.name}(mm, {'NULL' if index == 0 else index}) is read or written"
    if 0 <= index < count:
        return f"use after free: {slab.name}(mm, {index}) is read or written"
    return f"{WildAccess.kind}: {slab.name}(mm, {index}), the slab has {count} records"


# ----------------------------------------------------------------------------------------------------------------------
# Which records are free.

NO_ALLOCATOR = 62
"""A shift that makes every index of a slab without an allocator the first word of LIVE."""


def _allocated(machine: Machine, slab: Slab) -> tuple[str, int]:
    """The slab whose allocator a record of ``slab`` comes from, and its records per record there as a power of two."""
    part_of = getattr(slab, "part_of", None)
    if part_of is not None:
        return layout.PRIVATE_BASES[part_of[0]], part_of[1]
    return ("page_base", layout.PTRS_PER_TABLE.bit_length() - 1) if slab.base == "pte_base" else (slab.base, 0)


def _arenas(machine: Machine) -> list[str]:
    """The slab of each allocator."""
    private = layout.PRIVATE_BASES[: len(machine.arrays["slab_base"]) - layout.ARENA_PRIVATE0]
    return ["vma_base", "page_base", "page_base", "file_base", *private]


def _first_live(machine: Machine) -> dict[str, int]:
    """Where the records of each slab begin in LIVE. Files are counted, not freed."""
    found, at = dict[str, int](), 1
    for base in dict.fromkeys(_arenas(machine)):
        if base != "file_base" and base in machine.arrays:
            found[base] = at
            at += len(machine.arrays[base])
    return found


def _keep_books(machine: Machine) -> None:
    """Give ``machine`` LIVE and BOOK, in which every record lives."""
    first, arenas = _first_live(machine), _arenas(machine)
    last = list(first)[-1]
    machine.arrays["live_base"] = np.zeros(first[last] + len(machine.arrays[last]), LIVE.struct.dtype)
    books = machine.arrays["book_base"] = np.zeros(len(arenas), BOOK.struct.dtype)
    for which, base in enumerate(arenas):
        books[which]["first"] = first.get(base, 0)
        books[which]["count"] = len(machine.arrays.get(base, ()))


def _freed_wrongly(machine: Machine, places: Sequence[Place], event: int) -> Finding | None:
    """What was freed that could not be, in the form whose ``places`` they are."""
    books = machine.arrays["book_base"]
    for which in np.flatnonzero(books["place"]).tolist():
        base, slot = _arenas(machine)[which].removesuffix("_base"), int(books[which]["slot"])
        kind = "double free" if 0 < slot < int(books[which]["count"]) else WildAccess.kind
        return Finding(event, f"{kind}: {base} #{slot} is freed", places[int(books[which]["place"]) - 1])
    return None


class _Replay:
    """One stream on one machine, with the oracle's answers."""

    def __init__(self, strategy: Strategy, trace: Trace) -> None:
        self.strategy, self.events = strategy, trace.events
        self.stream = prepare(trace.events)
        self.runner = InterpretedRunner(strategy)
        parameters = Parameters.of(trace.meta.limits)
        self.machine = Machine(self.runner, Sizes.of(trace.events), parameters, strategy.slabs)
        self.right = expected(trace.events, parameters)
        for number in self.stream.boots:
            self.machine.boot(number)
        self.machine.arrays["event_base"][:] = self.stream.records
        _keep_books(self.machine)

    def header(self) -> npt.NDArray[np.void]:
        """The record of :data:`guarding` that compiled code gets."""
        header, arrays, root = np.zeros(1, guarding.dtype), self.machine.arrays, self.machine.mm(0)
        header["live_base"], header["book_base"] = (arrays[base].ctypes.data for base in ("live_base", "book_base"))
        first = _first_live(self.machine)
        slabs = {slab.base: slab for slab in (*(slab for _, slab in STRUCTURES), *self.strategy.slabs)}
        for base in _BASES:
            name = base.removesuffix("_base")
            header[base] = root[base]
            header[name + "_count"] = len(arrays.get(base, ()))
            if base in slabs:
                header[name + "_live"] = first.get(_allocated(self.machine, slabs[base])[0], 0)
        return header

    def wrong(self, first: int, last: int) -> Finding | None:
        """The first wrong answer among those to events [first, last)."""
        rows, (ret, start, end, _) = slice(first, last), self.right
        answers = self.machine.arrays["answer_base"]
        mask = wrong_answers(self.events[rows], answers[rows], ret[rows], start[rows], end[rows])
        if not mask.any():
            return None
        at = first + int(np.argmax(mask))
        wanted = (int(ret[at]), int(start[at]), int(end[at]))
        return Finding(at, differs(at, self.events[at], answers[at], wanted, self.strategy.name))

    def ending(self) -> Finding | None:
        """What is wrong after the last event."""
        try:
            self.runner.validate(self.machine)
        except ValidationError as error:
            return Finding(len(self.events), f"after the last event: {str(error).splitlines()[0]}")
        difference = first_difference(self.machine, self.right[3])
        return Finding(len(self.events), f"after the last event: {difference}") if difference else None


def guard(strategy: Strategy, trace: Trace, note: Callable[[str], None] | None = None) -> Finding | None:
    """Replay ``trace`` with every access and every answer tested: the first wrong one, or None. ``note`` is called with
    what must be compiled.

    Raises DialectError for code that cannot be rewritten or compiled, MemoryError. Per lookup some ten times the time
    of timed code, per mapping call about a millisecond.
    """
    replay = _Replay(strategy, trace)
    machine, kinds = replay.machine, replay.stream.records["kind"]
    memory = Memory(machine, strategy)
    compiled = CompiledGuards(memory, strategy)
    unit: Unit | None = None
    if np.isin(kinds, (FAULT, LOOKUP)).any():
        entry = compiled.entry(bool((kinds == FAULT).any()))
        unit = Units(guarding, ()).get(UnitSpec(f"guarded-{strategy.name}", entry, {}), note)
    header = replay.header()
    plain = GuardedTranslator(memory, strategy.binding, list[int]().append)
    one = plain.function(replay_checked, (MM, None, None))
    slabs = {slab.base: slab for slab in (*_BOOKS, *(slab for _, slab in STRUCTURES), *strategy.slabs)}
    at, last = 0, len(kinds)
    while at < last:
        first = at
        if unit is not None and kinds[at] in (FAULT, LOOKUP):
            at, places = unit(header.ctypes.data, at, last), compiled.places
            if place := int(header["place"][0]):
                slab = slabs[_BASES[int(header["slab"][0])]]
                told = _told(slab, int(header["index"][0]), len(machine.arrays[slab.base]))
                return replay.wrong(first, at) or Finding(at, told, places[place - 1])
        else:
            places = plain.places
            try:
                one(1, at, at + 1)
            except _Wrong as wrong:
                return Finding(at, wrong.told, wrong.place, _caller(wrong))
            at += 1
        machine.raise_if_full()
        if found := replay.wrong(first, at) or _freed_wrongly(machine, places, at - 1):
            return found
    return replay.ending()


def guard_apart(
    strategy: Strategy, trace: Trace, timeout: float, note: Callable[[str], None]
) -> tuple[str, bool | None]:
    """:func:`guard` in a process of its own, which ends after ``timeout`` seconds: what it found in words, and whether
    all is right; None if that could not be seen."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def replay() -> None:
        try:
            found = guard(strategy, trace, note)
            right = f"every answer is right, and every access of a live record, in {len(trace)} events"
            theirs.send((found.text, False) if found else (right, True))
        except BenchframeError as error:
            theirs.send((error.line, None))
        except Exception as error:  # a mistake of the text in its Python form, or before the first event
            theirs.send((f"{getattr(error, 'kind', type(error).__name__)}: {error}", None))

    process = context.Process(target=replay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: a fork beside NumPy's idle threads
        process.start()
    theirs.close()
    try:
        if not ours.poll(timeout):
            return f"no end within {timeout:g} s", None
        said: tuple[str, bool | None] = ours.recv()
        return said
    except EOFError:
        process.join()
        return f"the replay ended without an answer (exit code {process.exitcode})", None
    finally:
        process.kill()
        process.join()
        ours.close()
