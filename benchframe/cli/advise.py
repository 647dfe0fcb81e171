"""``benchframe advise``: which kernel would help a program, what limits it, and what it could do itself."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from benchframe.cli import options
from benchframe.cli.options import guarded, loaded, plugin_files
from benchframe.errors import FAILED, BenchframeError, UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.trace.trace import Trace


class ProgramAfterDashes(TyperCommand):
    """Keeps the ``--`` before a program, which tells ``advise -- program`` from ``advise trace``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The parser takes the first ``--`` away, so there must be two."""
        at = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:at], *(["--"] if at < len(args) else []), *args[at:]])


class NotRecorded(BenchframeError):
    """The recorder has said why there is no trace."""

    exit_code = FAILED


@guarded
def advise(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRACE | -- PROGRAM [ARGUMENT]...",
            help="A trace file, the name of a shipped trace or workload, or a program to record.",
            autocompletion=options.workloads,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Keep the program's trace in this file.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures every kernel.")
    ] = 6,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex.")
    ] = "text",
) -> None:
    """Say which kernel's VMA lookup would help a program, what limits it, and what it could do itself.

    The trace is replayed under the lookup of every kernel preset from 2.6.32 on, in paired rounds (about half a minute;
    the first time, two more to compile). The table is followed by what takes the time, the release that changed it, how
    sure that is, the cost of a VMA, and hints that the trace's own counts support. A program after -- is recorded
    first; its output is its own.

    Exit codes: 0, 1 (the program could not be recorded, a measuring process failed), 2 (bad input or usage), 3 (disk).

    \b
    Examples:
      benchframe advise -- java -version
      benchframe advise python-science
      benchframe advise program.parquet --rounds 20 --format json
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.study.advice import advice_table, presets
    from benchframe.study.advice import advise as find

    check_form(form)
    if form == "mail":
        raise UsageError("advise has no mail format; use --format text")
    words = what or []
    program = words[1:] if words[:1] == ["--"] else []
    if not program and (len(words) != 1 or words == ["--"]):
        raise UsageError("give one trace, or a program after --: benchframe advise -- program argument")
    if output is not None and not program:
        raise UsageError("--output keeps the trace of a program that is recorded; a trace is already a file")
    known = loaded(plugin_files())
    names = presets(list(known.strategies))
    if not names:
        raise UsageError("no plugin defines a kernel's lookup (linux-...); benchframe list strategies shows them")
    with _trace(known, words, program, output) as (trace, label):
        compile_strategies(
            [known.strategy(name) for name in names],
            lambda name, share: typer.echo(f"benchframe: compiled {name}", err=True),
        )
        cpu = spare_cpu()
        found = find(
            known,
            trace,
            label,
            rounds,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
        )
    typer.echo(shown(advice_table(found), form), nl=False)


@contextmanager
def _trace(
    known: "Registry", words: list[str], program: list[str], output: Path | None
) -> "Iterator[tuple[Trace, str]]":
    """The trace to advise on and its name: recorded, read from a file, or a workload's."""
    from benchframe.trace.trace import read_file

    if not program:
        yield _stored(known, words[0])
        return
    from benchframe.record.command import run_record_command

    with tempfile.TemporaryDirectory(prefix="benchframe-advise-") as folder:
        file = output or Path(folder) / "trace.parquet"
        before = file.stat().st_mtime_ns if file.exists() else 0
        code = run_record_command(program, file)
        if not file.exists() or file.stat().st_mtime_ns == before:
            raise NotRecorded("there is no trace to advise on", hint="the lines above say why")
        if code:
            typer.echo(f"benchframe: warning: the program ended with exit code {code}", err=True)
        yield read_file(file), Path(program[0]).name


def _stored(known: "Registry", name: str) -> "tuple[Trace, str]":
    from benchframe.trace.trace import read_file

    if Path(name).is_file():
        return read_file(Path(name)), Path(name).name
    if name.partition(":")[0] in known.workloads:
        return known.spec(name).trace(0), name
    hint = did_you_mean(
        name, known.workloads, "benchframe list traces shows the shipped ones; a program comes after --"
    )
    raise UsageError(f"there is no file and no workload called {name!r}; {hint}")
