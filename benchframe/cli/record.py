"""``benchframe record``: run a program and keep its address space's events as a trace."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded
from benchframe.errors import UsageError, did_you_mean


@guarded
def record(
    command: Annotated[list[str] | None, typer.Argument(help="The program and its arguments, after --.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace file; .csv writes CSV.")] = Path(
        "trace.parquet"
    ),
    level: Annotated[str, typer.Option(help="auto, full, user or strace.")] = "auto",
    allow_lost: Annotated[bool, typer.Option("--allow-lost", help="Accept a trace that lost events.")] = False,
    attach: Annotated[int | None, typer.Option(min=1, help="Record a running process instead.")] = None,
    split: Annotated[bool, typer.Option("--split", help="Write one file per address space.")] = False,
) -> int:
    """Run a program and record its mapping calls and page faults; its own exit code is passed on.

    Exit codes: the program's, 2 (bad usage), 125 (recording itself failed).

    \b
    Examples:
      benchframe record -o python.parquet -- python3 -c 'import json'
      benchframe record --level strace -o ls.parquet -- ls -l
      benchframe record --attach 1234 -o server.parquet
    """
    from benchframe.record.session import run_record_command

    if bool(command) == (attach is not None):
        raise UsageError("give either a program after -- or --attach PID")
    if command and command[0].startswith("-"):
        options = ("--output", "--level", "--allow-lost", "--attach", "--split")
        hint = did_you_mean(command[0], options, "see benchframe record --help")
        raise UsageError(f"record has no option {command[0]}; {hint} The program comes after --")
    return run_record_command(command or [], output, level, allow_lost, attach, split)
