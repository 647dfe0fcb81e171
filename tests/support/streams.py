"""Streams of events written down row by row."""

from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.events import EVENT, NIL, UNKNOWN, Kind

PAGE = 4096
Events = npt.NDArray[np.void]


def stream(*rows: dict[str, Any]) -> Events:
    """Events from dictionaries; what is not named is 0, NIL or UNKNOWN."""
    events = np.zeros(len(rows), EVENT)
    events["file"], events["ret"] = NIL, UNKNOWN
    for at, row in enumerate(rows):
        for name, value in row.items():
            events[name][at] = value
    return events


def mapping(addr: int, pages: int, prot: int = 3, flags: int = 0x32, **more: int) -> dict[str, Any]:
    """An MMAP row."""
    return {"kind": Kind.MMAP, "addr": addr, "len": pages * PAGE, "prot": prot, "flags": flags, **more}
