"""``benchframe selftest``: how reliable verdicts are on this host."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded
from benchframe.engine.caches import Caches
from benchframe.errors import FAILED, UsageError

QUICK, DEFAULT = 1.0, 5.0
ROUNDS = 9
"""Rounds of `selftest --caches`, half a second each."""


@guarded
def selftest(
    minutes: Annotated[
        float | None, typer.Option(min=0.2, max=600, metavar="M", help="How long to measure (default 5).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Take about one minute.")] = False,
    workload: Annotated[
        str, typer.Option("--workload", "-w", metavar="NAME", help="The workload to replay.")
    ] = "python-json",
    caches: Annotated[
        str | None,
        typer.Option(
            metavar="STATE,...",
            help="Check that lines cost what these states of `run --caches` say: l2, llc, memory, program. With "
            "--quick or --minutes, also measure the tool in the one state given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of schedule and layouts.")] = 1,
    again: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only print the conclusions of this selftest.json.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of self-tests.")] = Path(
        "reports/selftests"
    ),
) -> int:
    """Measure the tool itself on this host: false positives, the smallest effect it detects, and the influence of other
    load.

    A strategy is compared with copies of itself, and with a twin that does a little more work; half-way through a
    second part, busy loops are started. The first time, compilation takes additional time.

    With --caches, a replay that reads known lines is compared with a pointer chase through each level, in some
    seconds (docs/caches.md); with --quick or --minutes, copies and twin are then measured with caches in this state.

    \b
    Exit codes: 0 passed; 1 a strategy differs from itself too often, or a load changed a verdict, or lines cost more
    than 15 % more or less than their level.

    \b
    Examples:
      benchframe selftest --quick
      benchframe selftest --minutes 10 --workload gcc-project
      benchframe selftest --caches l2,llc,memory,program
      benchframe selftest --caches program --minutes 5
      benchframe selftest --again reports/selftests/20261123-120000/selftest.json
    """
    from benchframe.study.selftest import read_record
    from benchframe.study.selftest_analysis import judge_record

    if quick and minutes:
        raise UsageError("--quick and --minutes exclude each other")
    state, lines = Caches(), 0
    if caches is not None:
        if again is not None:
            raise UsageError("--again repeats the conclusions of a file, which names the state of its caches")
        states = cold_states(caches)
        if (quick or minutes) and len(states) > 1:
            raise UsageError(f"--caches {caches}: with --quick or --minutes give one state")
        state, lines = states[0], lines_cost(states)
        if not (quick or minutes):
            return lines
    if again is not None:
        record = read_record(again)
    else:
        from benchframe.registry import load
        from benchframe.study.selftest import PLUGIN, SelfTest

        folder = output / datetime.now().strftime("%Y%m%d-%H%M%S")
        record = SelfTest(
            load([PLUGIN]),
            workload,
            QUICK if quick else minutes or DEFAULT,
            folder,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            seed=seed,
            caches=state,
        ).run()
        typer.echo(f"benchframe: all values are in {folder}", err=True)
    found = judge_record(record)
    typer.echo(found.text, nl=False)
    return FAILED if found.problems else lines


def cold_states(caches: str) -> list[Caches]:
    """The states that ``--caches`` names, without warm. Raises UsageError if none is left."""
    from benchframe.engine.caches import parse
    from benchframe.engine.job import spare_cpu

    cpu = spare_cpu()
    states = [state for state in parse(caches, -1 if cpu is None else cpu) if not state.warm]
    if not states:
        raise UsageError("--caches warm touches nothing, so there is nothing to check; name l2, llc, memory or program")
    return states


def lines_cost(states: Sequence[Caches]) -> int:
    """Known lines against a pointer chase: prints them, and returns the exit code."""
    from benchframe.engine.job import spare_cpu
    from benchframe.study.selftest import known_lines, text

    cpu, every = spare_cpu(), os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        found = known_lines(states, ROUNDS, -1 if cpu is None else cpu)
    finally:
        os.sched_setaffinity(0, every)
    typer.echo(text(found), nl=False)
    return 0 if all(one.good for one in found) else FAILED
