"""Which functions took part in a failure: what tells one race from another when both show in one place.

Names of functions change less often than lines, so known bugs are told by them
(:class:`benchframe.races.KnownBug`).
"""

from __future__ import annotations

import re

from benchframe.check.places import describe
from benchframe.check.run import READS, Run
from benchframe.check.world import MachineWorld
from benchframe.mm.layout import FILE, MM, PAGE, PTE, TASK, VMA
from benchframe.races import Chain, Sites

SET_UP = "set-up"
WRITERS = 2
POINTERS = frozenset(
    name for slab in (MM, VMA, PAGE, PTE, TASK, FILE) for name, field in slab.struct.members.items() if field.pointer
)
"""Fields of the model's records that may hold the number of a record; in a strategy's own slabs all may. A flag that
happens to be equal is no source."""


def sites_of(run: Run) -> Sites:
    """The sites of ``run``, a failed execution in which every access was a step with its place. O(steps)."""
    failure, world = run.failure, run.world
    if failure is None or not isinstance(world, MachineWorld):
        return Sites()
    freed = world.freed_by.get(failure.key, ())
    if failure.chain:
        return Sites(failure.chain, freed, _source(run, failure.key, failure.chain))
    return Sites(tuple(sorted(_stopped(run))), freed)


def _stopped(run: Run) -> set[str]:
    """Functions in which a task stopped for another although it was not at its end: where the schedule went elsewhere,
    and where tasks that are not done wait."""
    world = run.world
    left = [op for number, op in enumerate(run.pending) if op is not None and not world.daemons[number]]
    found = {op.place[2] for op in left if op.place is not None}
    following: dict[int, str] = {}
    for at in range(len(run.trace) - 1, -1, -1):
        step = run.trace[at]
        if at + 1 < len(run.trace) and run.trace[at + 1].task != step.task and step.task in following:
            found.add(following[step.task])
        if step.op.place is not None and not world.daemons[step.task]:
            following[step.task] = step.op.place[2]
    return found


def _source(run: Run, key: tuple[str, int], chain: Chain) -> Chain:
    """The last load in ``chain``'s functions that gave the number of record ``key``, and the stores before it."""
    task, trace = run.failed_task, run.trace
    at = len(trace)
    while at > 0:
        at -= 1
        step = trace[at]
        if step.task != task or step.op.kind != "load" or step.op.value != key[1] or step.op.place is None:
            continue
        location = step.op.accesses[0][:2]
        name = re.sub(r" #?\d+", "", describe(location[0], location[1]))  # type: ignore[arg-type]
        field = name.rpartition(".")
        if location[0] != key and step.op.place[2] in chain and (not field[1] or field[2] in POINTERS):
            break
    else:
        return ()
    writers = [
        before.op.place[2]
        for before in reversed(trace[:at])
        if before.op.place is not None
        and any(access[:2] == location and access[2] != READS for access in before.op.accesses)
    ]
    return (name, *[*writers, SET_UP][:WRITERS])
