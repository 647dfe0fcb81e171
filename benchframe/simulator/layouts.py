"""The cache line of each field of a record: in the model's order, in a kernel's order, or in one of the user's choice.

A layout does not move memory. It tells the simulator for which line an access counts, so the same compiled code is
simulated with any order of fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.simulator.target import SimulateError

if TYPE_CHECKING:
    from benchframe.dialect.records import Struct


LAYOUTS = Path(__file__).with_name("layouts.toml")


@dataclass(frozen=True)
class Layout:
    """``lines`` has, by structure (mm, vma, page ...), the lines of its record, each a list of fields; fields that it
    does not name stay in lines of their own, in the model's order."""

    name: str = "model"
    about: str = ""
    lines: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    apart: Sequence[str] = ()
    """``structure.field``: fields in lines of their own."""
    free: Sequence[str] = ()
    """Structures that cost nothing."""

    def told(self) -> str:
        """A description: which layout it is, and the fields in lines of their own."""
        return self.name + (f", with {', '.join(self.apart)} in lines of their own" if self.apart else "")

    def words(self, name: str, struct: Struct, costless: set[int]) -> list[int] | None:
        """The line of each 8-byte word of a record, -1 where it costs nothing; None if every word is in its own line of
        the model.

        Raises SimulateError for a field that the record does not have.
        """
        told = self.lines.get(name, ())
        alone = [one.partition(".")[2] for one in self.apart if one.partition(".")[0] == name]
        if not told and not alone and not costless:
            return None
        if not told and not alone:
            return [-1 if word in costless else word // 8 for word in range(struct.size // 8)]
        place: dict[int, int] = {}
        for number, fields in enumerate([*told, *([one] for one in alone)]):
            for one in fields:
                if one not in struct.fields:
                    raise SimulateError(f"layout {self.name}: {name} has no field {one!r}")
                place[struct.fields[one][0] // 8] = number
        rest = len(told) + len(alone)
        last: dict[int, int] = {}
        found = []
        for word in range(struct.size // 8):
            if word in costless:
                found.append(-1)
            elif word in place:
                found.append(place[word])
            else:  # lines of the model, numbered in order
                found.append(last.setdefault(word // 8, rest + len(last)))
        return found


def layout_names() -> list[str]:
    """The shipped layouts, and the model's own."""
    from benchframe.simulator.machines import read_toml

    return ["model", *read_toml(LAYOUTS)]


def load_layout(name: str, apart: Sequence[str] = ()) -> Layout:
    """A shipped layout, with the fields ``apart`` in lines of their own. Raises SimulateError, also for a field that
    the model does not have."""
    from benchframe.mm.layout import mm_struct
    from benchframe.simulator.machines import near, read_toml

    if name == "model":
        layout = as_it_is(apart)
    else:
        data = read_toml(LAYOUTS)
        if name not in data:
            raise SimulateError(f"there is no layout {name!r}; {near(name, ['model', *data])}")
        layout = Layout(name, data[name]["about"], {"mm": tuple(map(tuple, data[name]["mm"]))}, tuple(apart))
    layout.words("mm", mm_struct, set())
    return layout


def as_it_is(apart: Sequence[str] = ()) -> Layout:
    """The model's own order; ``apart`` are fields in lines of their own (what if?)."""
    return Layout("model", "the order of fields in mm/layout.py", {}, tuple(apart))
