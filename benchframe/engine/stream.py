"""A trace's events as the model wants them: which mms to boot first, and which EXIT is an mm's last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.events import LIFE, Kind

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stream:
    """``records``: the events, EXIT rows marked (len 1: the mm ends). ``boots``: mms without EXEC or FORK."""

    records: Array
    boots: list[int]

    def class_runs(self, first: int) -> tuple[int, int, int]:
        """How many runs of faults, of lookups, of mapping operations there are from event ``first`` on: how often the
        replay reads its clock."""
        kind = self.records["kind"][first:]
        classes = np.where(kind == Kind.FAULT, 0, np.where(kind == Kind.LOOKUP, 1, 2))
        starts = np.concatenate(([True], classes[1:] != classes[:-1]))
        return tuple(int(np.count_nonzero(starts & (classes == c))) for c in range(3))  # type: ignore[return-value]


def prepare(events: Array, tasks: dict[int, set[int]] | None = None) -> Stream:
    """The stream of ``events`` (dtype EVENT). A task belongs to an mm from its first event there to its EXIT; an mm
    ends with the EXIT of its last task, as benchframe.oracle.replay has it.

    A stream that comes in batches passes the same ``tasks`` (mm to its living tasks, at first empty) with each.
    """
    records = events.copy()
    kind, mm = records["kind"], records["mm"]
    boots, alive = _walk(records, {} if tasks is None else tasks)
    records["len"][kind == Kind.EXIT] = 0
    for row in alive:
        records["len"][row] = 1
    present = set(np.unique(mm).tolist())
    return Stream(records, sorted((boots & present) - {0}))


def _walk(records: Array, tasks: dict[int, set[int]]) -> tuple[set[int], list[int]]:
    """(mms never born by EXEC or FORK before use, rows of final EXITs)."""
    pair = records["mm"].astype(np.int64) << 32 | records["task"].astype(np.int64)
    appear = np.unique(pair, return_index=True)[1]
    special = np.isin(records["kind"], LIFE).nonzero()[0]
    boots: set[int] = set()
    last: list[int] = []
    for row in np.union1d(appear, special).tolist():
        event = records[row]
        mm, task, kind = int(event["mm"]), int(event["task"]), int(event["kind"])
        if kind == Kind.EXEC:
            tasks[mm] = {task}
            continue
        if mm not in tasks:
            tasks[mm] = set()
            boots.add(mm)
        tasks[mm].add(task)
        if kind == Kind.FORK:
            tasks[int(event["addr"])] = {int(event["len"])}
        elif kind == Kind.THREAD:
            tasks[mm].add(int(event["len"]))
        elif kind == Kind.EXIT:
            tasks[mm].discard(task)
            if not tasks[mm]:
                last.append(row)
    return boots, last
