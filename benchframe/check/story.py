"""A failure as a story: what broke, what each task did step by step, what became of the record, how to see it again."""

from __future__ import annotations

from pathlib import Path

from benchframe.check.places import describe
from benchframe.check.run import Broken, Op, Run
from benchframe.check.scenario import Case, CaseWorld

MOST = 48
"""Lines of the table of steps; from longer ones the middle is left out."""


def tell(case: Case, run: Run, command: str) -> str:
    """The story of ``run``, an exact execution of ``case``; ``command`` runs it again."""
    failure = run.failure or Broken("nothing", "this execution is right")
    world = run.world
    assert isinstance(world, CaseWorld)
    scenario = case.scenario
    lines = [f"{failure.kind}: {failure.text}", f"  scenario {scenario.name}: {scenario.summary}"]
    for number, calls in enumerate(scenario.tasks):
        lines.append(f"  T{number}: {', then '.join(call.label for call in calls)}")
    lines += ["", *_table(case, run), ""]
    if run.outcome == "deadlock":
        for number, op in enumerate(run.pending):
            if op is not None and not world.daemons[number]:
                lines.append(f"  {world.names[number]} waits: {_what(op)}  {_place(op)}")
    lines += _life(run, world, failure)
    lines.append(f"  again: {command}")
    return "\n".join(lines)


def _table(case: Case, run: Run) -> list[str]:
    """The steps on memory that tasks share, and the last one."""
    interesting = case.memory.shared
    rows = []
    for number, step in enumerate(run.trace):
        if step.op.accesses[0][:2] in interesting or number == len(run.trace) - 1:
            rows.append((number + 1, run.world.names[step.task], _what(step.op), _place(step.op)))
    cut = len(rows) > MOST
    shown = rows if not cut else [*rows[: MOST // 3], *rows[-(MOST - MOST // 3) :]]
    widths = [max((len(str(row[column])) for row in shown), default=1) for column in range(3)]
    lines = [f"  {'step':>{max(widths[0], 4)}}  {'task':{max(widths[1], 4)}}  {'what':{widths[2]}}  where"]
    for at, row in enumerate(shown):
        if cut and at == MOST // 3:
            lines.append(f"  ... {len(rows) - MOST} steps ...")
        lines.append(f"  {row[0]:>{max(widths[0], 4)}}  {row[1]:{max(widths[1], 4)}}  {row[2]:{widths[2]}}  {row[3]}")
    return lines


def _what(op: Op) -> str:
    key, part, _ = op.accesses[0]
    assert isinstance(key, tuple)
    where = describe(key, part)
    value = _value(op.value)
    if op.kind == "load" and op.value is None:
        return f"load {where}"
    if op.kind == "load":
        return f"{where} is {value}"
    if op.kind in ("store", "add", "exchange", "lock") and op.value is not None:
        return f"{op.kind} {where} = {value}"
    return f"{op.kind} {where}" if op.value is None else f"{op.kind} {where} ({value})"


def _value(value: object) -> str:
    return hex(value) if isinstance(value, int) and value > 4096 else str(value)


def _place(op: Op) -> str:
    if op.place is None:
        return ""
    file, line, function = op.place
    return f"{Path(file).name}:{line} {function}"


def _life(run: Run, world: CaseWorld, failure: Broken) -> list[str]:
    """When the record of the failure was made and freed."""
    key = failure.key
    if key is None:
        return []
    lines = [f"  the life of {describe(key, None)}:"]
    if key in world.born:
        task, step = world.born[key]
        lines.append(f"    made by {world.names[task]} at step {step}")
    else:
        lines.append("    made in the set-up")
    if key in world.dead:
        task, step = world.dead[key]
        lines.append(f"    freed by {world.names[task]} at step {step}")
        lines.append(f"    used by {world.names[run.trace[-1].task] if run.trace else '?'} at step {len(run.trace)}")
    return lines
