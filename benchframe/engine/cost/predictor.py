"""Which branches a predictor would mispredict: a small TAGE predictor, written in the dialect with integers only, so
equal on all machines.

A base table of two-bit counters by branch, and four tagged tables indexed by branch and the last 8, 24, 62 and 124
outcomes. The longest history that knows the branch decides; a misprediction allocates an entry for a longer one (Seznec
and Michaud, "A case for (partially) TAgged GEometric history length branch prediction", JILP 8, 2006). Today's
processors have predictors of this family, with longer histories and more tables: this is an estimate of them, not a
copy of one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchframe.dialect import Field, Slab, Struct, native
from benchframe.dialect.units import Units, UnitSpec

predictor = Struct(
    "predictor",
    [
        Field("branch_base", "i8", "slab BRANCH", lock="constant"),
        Field("entry_base", "i8", "slab ENTRY", lock="constant"),
        ("recent", "i8", "the last 62 outcomes, the latest in bit 0"),
        ("older", "i8", "the 62 before"),
    ],
)
branch = Struct("branch", [("code", "i8", "2 * branch + outcome"), ("missed", "i8", "1 if it was predicted wrongly")])
entry = Struct(
    "entry",
    [
        ("tag", "i8", "which branch and history, hashed; 0 = free"),
        ("counter", "i4", "-4 to 3; taken from 0 on"),
        ("useful", "i4", "0 to 3: was right where a shorter history was not"),
    ],
)
BRANCH = Slab("BRANCH", branch, "branch_base", first=0)
ENTRY = Slab("ENTRY", entry, "entry_base", first=0)
TABLES = 5
ROWS = 1 << 12
MASK = (1 << 62) - 1


@native
def folded(p, table):
    """The history that ``table`` uses, in 31 bits: 0 for the base table, then 8, 24, 62, 124 outcomes."""
    if table == 0:
        return 0
    if table == 1:
        return p.recent & 0xFF
    if table == 2:
        return p.recent & 0xFFFFFF
    seen = (p.recent ^ (p.recent >> 31)) & 0x7FFFFFFF
    if table == 3:
        return seen
    return (seen * 5 + ((p.older ^ (p.older >> 31)) & 0x7FFFFFFF) * 3) & 0x7FFFFFFF


@native
def hashed(p, site, table):
    """A hash of branch and history: 60 bits."""
    mixed = (folded(p, table) * 0x1F123BB5 + site * 0x2545F491 + table) & MASK
    mixed = mixed ^ (mixed >> 29)
    mixed = ((mixed & 0x3FFFFFFF) * 0x27D4EB2D + (mixed >> 30)) & MASK
    return mixed ^ (mixed >> 27)


@native
def place(p, site, table):
    """The row of ENTRY."""
    return table * ROWS + (hashed(p, site, table) & (ROWS - 1))


@native
def tag(p, site, table):
    """The tag of this branch and history; the base table has no tags."""
    if table == 0:
        return 0
    return 1 + (hashed(p, site, table) >> 20)


@native
def allocate(p, site, above, taken):
    """After a misprediction: allocate an entry in the first longer table that has a useless one in this place, else age
    them."""
    table = above + 1
    while table < TABLES:
        e = ENTRY(p, place(p, site, table))
        if e.useful == 0:
            e.tag = tag(p, site, table)
            e.counter = taken - 1
            return table
        e.useful -= 1
        table += 1
    return 0


@native
def predict_branch(p, site, taken):
    """Predict and learn one branch, ``taken`` 0 or 1: 1 if it was mispredicted. The base table always knows the branch;
    the longest history that knows it decides. Selections are computed as sums, since branches on them would be
    unpredictable."""
    row = place(p, site, 0)
    shorter = row
    table = 1
    while table < TABLES:
        mine = hashed(p, site, table)
        at = table * ROWS + (mine & (ROWS - 1))
        known = int(ENTRY(p, at).tag == 1 + (mine >> 20))
        shorter += known * (row - shorter)
        row += known * (at - row)
        table += 1
    table = row // ROWS
    e = ENTRY(p, row)
    guess = int(e.counter >= 0)
    if table > 0 and guess != int(ENTRY(p, shorter).counter >= 0):
        e.useful = min(3, max(0, e.useful + 2 * int(guess == taken) - 1))
    e.counter = min(3, max(-4, e.counter + 2 * taken - 1))
    if guess != taken:
        allocate(p, site, table, taken)
    p.older = ((p.older << 1) | (p.recent >> 61)) & MASK
    p.recent = ((p.recent << 1) | taken) & MASK
    return int(guess != taken)


@native
def predict(p, first, last):
    """Predict and learn branches [first, last): returns how many were mispredicted; BRANCH.missed says which."""
    wrong = 0
    index = first
    while index < last:
        b = BRANCH(p, index)
        b.missed = predict_branch(p, b.code >> 1, b.code & 1)
        wrong += b.missed
        index += 1
    return wrong


class Predictor:
    """A predictor with its state; each call of :meth:`missed` also trains it. About 20 ns per branch."""

    def __init__(self) -> None:
        self._unit = Units(predictor, ()).get(UnitSpec("predictor", predict, {}))
        self._state = np.zeros(1, predictor.dtype)
        self._entries = np.zeros(TABLES * ROWS, entry.dtype)
        self._state["entry_base"] = self._entries.ctypes.data

    def missed(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the branches, each as 2 * branch + outcome, are mispredicted."""
        records = np.zeros(len(codes), branch.dtype)
        records["code"] = codes
        self._state["branch_base"] = records.ctypes.data
        self._unit(self._state.ctypes.data, 0, len(codes))
        return np.asarray(records["missed"] != 0)
