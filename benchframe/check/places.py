"""Where in the text something happened, and which memory it was about, in words."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from pathlib import Path
from types import FrameType

from benchframe.check.memory import Key
from benchframe.mm import layout
from benchframe.mm.defaults import read_lock
from benchframe.mm.sync.lockstat import lock_acquired
from benchframe.mm.sync.refcount import refcount_read
from benchframe.mm.sync.rwsem import down_read
from benchframe.mm.sync.seqcount import read_seqcount_begin
from benchframe.mm.sync.spinlock import spin_lock
from benchframe.mm.sync.waitqueue import prepare_to_wait

_HERE = str(Path(__file__).resolve().parent)
LOCKS = tuple(
    {
        function.__code__.co_filename: None
        for function in (
            read_lock,
            spin_lock,
            down_read,
            read_seqcount_begin,
            refcount_read,
            prepare_to_wait,
            lock_acquired,
        )
    }
)
"""The files of what locks are made of: who took one is the caller."""
_DIALECT = str(Path(_HERE).parent / "dialect")


def place(outside: tuple[str, ...] = ()) -> tuple[str, int, str]:
    """(file, line, function) of the strategy code that is running; ``outside`` of files that begin so, too."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _DIALECT, *outside)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def chain(most: int = 4) -> tuple[str, ...]:
    """The functions of strategy code and model that are running, the innermost first, ``most`` of them."""
    frame: FrameType | None = sys._getframe(1)
    names: list[str] = []
    while frame is not None and len(names) < most:
        code = frame.f_code
        if code.co_filename.startswith(_HERE) and code.co_name == "_body":
            break  # where the task began
        if not code.co_filename.startswith((_HERE, _DIALECT)):
            names.append(code.co_name)
        frame = frame.f_back
    return tuple(names)


def line(where: tuple[str, int, str]) -> str:
    """A place as text."""
    return f"{Path(where[0]).name}:{where[1]} {where[2]}"


def describe(key: Key, part: Hashable) -> str:
    """A location in words: ``vma #5.vm_start``."""
    base, index = key
    slabs = {s.base: s for s in (layout.MM, layout.VMA, layout.PAGE, layout.PTE, layout.TASK, layout.FILE)}
    if isinstance(part, tuple):
        return f"{'table' if base == 'page_base' else base[:-5]} #{index}[{part[1]}]"
    if base not in slabs:
        return f"{base} {index}"
    name = slabs[base].name.lower() + f" #{index}"
    if isinstance(part, int):
        return f"{name}.{list(slabs[base].struct.fields)[part]}"
    return name
