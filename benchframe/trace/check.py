"""Range and order checks on event arrays, before any engine uses them as indices.

An engine uses ``task``, ``mm``, ``file`` and addresses as array indices without further checks, so everything from a
file is checked here first. The checks are vectorised and carry their state from batch to batch, so a stream of any
length is checked in the memory of one batch.
"""

import numpy as np
from numpy.typing import NDArray

from benchframe.events import NIL, UNKNOWN, Kind
from benchframe.trace.meta import ADDRESS_LIMIT, PAGE

MAX_TASKS = 1 << 20
MAX_MMS = 1 << 20
MAX_ERRNO = 4095
"""Errors are -4095..-1, the range that the kernel keeps for them (include/linux/err.h)."""
MAX_INT = (1 << 31) - 1

_ALIGNED_ADDR = np.zeros(len(Kind), np.bool_)
_ALIGNED_ADDR[[Kind.MAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP, Kind.MADVISE, Kind.ATTR]] = True
_ALIGNED_RET = np.zeros(len(Kind), np.bool_)
_ALIGNED_RET[[Kind.MMAP, Kind.MREMAP]] = True
_LOOKUPS = np.zeros(len(Kind), np.bool_)
_LOOKUPS[[Kind.FAULT, Kind.LOOKUP]] = True
_NEW_TASK = np.zeros(len(Kind), np.bool_)
_NEW_TASK[[Kind.FORK, Kind.THREAD]] = True


class RowError(ValueError):
    """An invalid row: ``row`` counts from 0 over the whole stream."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(f"event {row}: {what}")
        self.row = row


class Checker:
    """Checks a stream of EVENT batches; call :meth:`check` on each in order.

    O(rows) per batch with one address space, O(rows log rows) with several.
    """

    def __init__(self, files: int) -> None:
        self.files = files
        self.rows = 0
        self.time = 0
        self.tasks = 0
        self.mms = 0
        self._mm_of_task: NDArray[np.int64] = np.full(0, NIL, np.int64)

    def check(self, events: NDArray[np.void], time: NDArray[np.int64], tid: NDArray[np.int32]) -> None:
        """Raise :class:`RowError` for the first kind of error found."""
        if not len(events):
            return
        kind = events["kind"]
        self._demand((kind >= 0) & (kind <= max(Kind)), "kind is unknown")
        self._ranges(events, kind)
        self._demand(np.diff(time, prepend=self.time) >= 0, "time runs backwards")
        self._demand(time < (1 << 62), "time is out of range")
        self._demand(tid >= 0, "tid is negative")
        self._identities(events, kind)
        self.time = int(time[-1])
        self.rows += len(events)

    def _demand(self, good: NDArray[np.bool_], what: str) -> None:
        if not good.all():
            raise RowError(self.rows + int(np.argmin(good)), what)

    def _ranges(self, events: NDArray[np.void], kind: NDArray[np.int32]) -> None:
        lookup = _LOOKUPS[kind]
        for name in ("addr", "len", "new_len"):
            column = events[name]
            low = NIL if name == "addr" else 0
            self._demand((column >= low) & (column <= ADDRESS_LIMIT), f"{name} is outside [0, 2^47]")
        addr, length, ret = events["addr"], events["len"], events["ret"]
        self._demand((addr >= 0) | (kind == Kind.EXEC), "addr is negative")
        self._demand((addr < ADDRESS_LIMIT) | ~lookup, "addr of a lookup is not a user address")
        self._demand(
            (ret >= -MAX_ERRNO) & (ret <= ADDRESS_LIMIT) | (ret == UNKNOWN),
            "ret is not an address, 0, -errno or UNKNOWN",
        )
        self._demand((ret == UNKNOWN) | (kind != Kind.WALK), "ret of a walk is not UNKNOWN")
        well = ret >= 0
        self._demand(((addr & (PAGE - 1)) == 0) | ~_ALIGNED_ADDR[kind] | ~well, "addr is not page-aligned")
        placed = _ALIGNED_RET[kind] & well
        self._demand(((ret & (PAGE - 1)) == 0) | ~placed, "ret is not page-aligned")
        size = np.where(kind == Kind.MREMAP, events["new_len"], length)
        self._demand((ret + size <= ADDRESS_LIMIT) | ~placed, "the mapping ends above the user address space")
        self._demand((size > 0) | ~placed, "a mapping of no bytes was returned")
        made = kind == Kind.MAP
        self._demand(
            ~made | ((length > 0) & ((length & (PAGE - 1)) == 0) & (addr + length <= ADDRESS_LIMIT)),
            "a kernel-made mapping is not whole pages of the user address space",
        )
        self._demand(events["offset"] >= 0, "offset is negative")
        self._demand(events["offset"] <= (1 << 62), "offset is above 2^62")
        self._demand(
            ((events["offset"] & (PAGE - 1)) == 0) | ~(made | (kind == Kind.MMAP) & well), "offset is not page-aligned"
        )
        prot, flags, file = events["prot"], events["flags"], events["file"]
        self._demand((prot >= 0) & (flags >= 0), "prot or flags is negative")
        self._demand(~lookup | (prot <= 4) & (prot != 3), "prot of a lookup is not 0, 1, 2 or 4")
        self._demand((flags <= 7) | (kind != Kind.FAULT), "flags of a fault has unknown bits")
        self._demand((file >= NIL) & (file < self.files), "file is not an index of the file table")

    def _identities(self, events: NDArray[np.void], kind: NDArray[np.int32]) -> None:
        """task and mm numbers appear densely; only EXEC and FORK create an mm; a task acts only in its own mm."""
        task = events["task"].astype(np.int64)
        mm = events["mm"].astype(np.int64)
        self._demand((task >= 0) & (task < MAX_TASKS), f"task is outside [0, {MAX_TASKS})")
        self._demand((mm >= 0) & (mm < MAX_MMS), f"mm is outside [0, {MAX_MMS})")
        fork, execs, spawn = kind == Kind.FORK, kind == Kind.EXEC, _NEW_TASK[kind]
        # Two ids per row, interleaved: the row's own, then the one it creates. A new id is the next unused one.
        made = np.where(spawn, events["len"], task)
        seen = self._highest(task, made, self.tasks)
        self._demand(~spawn | (made == seen[1::2] + 1), "a new task's index is not the next unused one")
        self._demand(spawn | execs | (task <= seen[0::2]), "task was never created")
        self._demand(task <= seen[0::2] + 1, "task is not the next unused one")
        made_mm = np.where(fork, events["addr"], mm)
        seen_mm = self._highest(mm, made_mm, self.mms)
        self._demand(~fork | (made_mm == seen_mm[1::2] + 1), "a fork's mm is not the next unused one")
        self._demand(~execs | (mm == seen_mm[0::2] + 1), "an exec's mm is not the next unused one")
        self._demand(execs | (mm <= seen_mm[0::2]), "mm was never created by an exec or a fork")
        tasks = max(self.tasks, int(task.max()) + 1, int(made.max()) + 1)
        mms = max(self.mms, int(mm.max()) + 1, int(made_mm.max()) + 1)
        if mms > 1:
            self._memberships(task, mm, made, made_mm, execs | spawn, tasks)
        else:
            self._mm_of_task = np.zeros(tasks, np.int64)
        self.tasks, self.mms = tasks, mms

    @staticmethod
    def _highest(own: NDArray[np.int64], made: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """For each of the interleaved ids, the highest id before it."""
        both = np.empty(2 * len(own) + 1, np.int64)
        both[0] = count - 1
        both[1::2] = own
        both[2::2] = made
        return np.maximum.accumulate(both)[:-1]

    def _memberships(
        self,
        task: NDArray[np.int64],
        mm: NDArray[np.int64],
        made: NDArray[np.int64],
        made_mm: NDArray[np.int64],
        assigns: NDArray[np.bool_],
        tasks: int,
    ) -> None:
        """A row's task must live in the row's mm: where the last row that gave it one has put it. O(rows log rows)."""
        home = np.full(tasks, NIL, np.int64)
        home[: len(self._mm_of_task)] = self._mm_of_task
        # Twice as many places as rows: what a row demands comes first, then what it gives. An exec demands nothing.
        takes_part = np.stack([~assigns | (made != task), assigns], 1).ravel()
        place = np.flatnonzero(takes_part)
        who = np.stack([task, made], 1).ravel()[place]
        where = np.stack([mm, made_mm], 1).ravel()[place]
        order = np.argsort(who, kind="stable")  # by task, and of one task in the order of the rows
        who, where, place = who[order], where[order], place[order]
        gives = (place & 1) == 1
        at = np.arange(len(who))
        given = np.maximum.accumulate(np.where(gives, at, NIL))
        first = np.maximum.accumulate(np.where(np.diff(who, prepend=NIL) != 0, at, 0))
        lives = np.where(given >= first, where[given], home[who])
        wrong = place[~gives & (lives != where)]
        if len(wrong):
            raise RowError(self.rows + int(wrong.min()) // 2, "the task does not live in this mm")
        home[who[gives]] = where[gives]  # of several for one task the last stands
        self._mm_of_task = home
