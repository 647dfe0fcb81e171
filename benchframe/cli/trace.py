"""Traces: ``benchframe record`` makes one of a program; ``trace`` describes, verifies, converts and splits them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli.options import Accel, Cpu, KernelImage, guarded, registry
from benchframe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.guest import Guest


app = typer.Typer(
    help="Inspect, convert and verify trace files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[Path, typer.Argument(help="A trace file.")]


@app.command("info")
@guarded
def info(file: File) -> int:
    """Print provenance, counts, locality, VMAs over time and a picture of the address space.

    Exit codes: 0, 2 (the file is not a trace, or is damaged).

    \b
    Example:
      benchframe trace info python.parquet
    """
    from benchframe.cli.inspect import run_trace_info

    return run_trace_info(file)


@app.command("head")
@guarded
def head(file: File, n: Annotated[int, typer.Option("-n", min=1, help="How many events.")] = 20) -> int:
    """Print the first events, one a line.

    Exit codes: 0, 2 (the file is not a trace, or is damaged).

    \b
    Example:
      benchframe trace head -n 50 python.parquet
    """
    from benchframe.cli.inspect import run_trace_head

    return run_trace_head(file, n)


@app.command("convert")
@guarded
def convert(
    source: Annotated[Path, typer.Argument(help="Parquet, CSV, perf.data, perf script text, strace log or maps.")],
    target: Annotated[Path, typer.Argument(help="What to write: .parquet or .csv.")],
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Accept an import with many missing events.")
    ] = False,
) -> int:
    """Convert between trace formats, and import other tools' recordings.

    The number of records that an import reads, uses and leaves out is printed. If more than 1 % of what belongs in a
    trace is missing, the import is refused unless --allow-loss is given.

    Exit codes: 0, 2 (a file that cannot be read as a trace, an unknown form, too much missing), 3 (the disk).

    \b
    Examples:
      benchframe trace convert perf.data program.parquet
      benchframe trace convert program.parquet program.csv
    """
    from benchframe.cli.inspect import run_trace_convert

    return run_trace_convert(source, target, allow_loss)


@app.command("select")
@guarded
def select(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: .parquet or .csv.")],
    mm: Annotated[int | None, typer.Option(min=0, help="The address space of this number.")] = None,
    pid: Annotated[int | None, typer.Option(min=1, help="The largest one of this process.")] = None,
    command: Annotated[str | None, typer.Option(metavar="NAME", help="The largest one of this command.")] = None,
    largest: Annotated[bool, typer.Option("--largest", help="The one with the most lookups.")] = False,
) -> int:
    """Write one address space of a process tree's trace as a trace of its own.

    An address space created by fork begins with the layout at the fork. `trace info` lists them all.

    Exit codes: 0, 2 (no such address space, the file is not a trace), 3 (the disk).

    \b
    Examples:
      benchframe trace select make.parquet --command cc1 -o cc1.parquet
      benchframe trace select browser.parquet --largest -o renderer.parquet
    """
    from benchframe.cli.inspect import run_trace_select

    return run_trace_select(file, output, mm, pid, command, largest)


@app.command("split")
@guarded
def split(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.parquet: NAME.0.parquet and so on are written.")],
) -> int:
    """Write every address space of a process tree as a trace of its own.

    Exit codes: 0, 2 (the file is not a trace, or is damaged), 3 (the disk).

    \b
    Example:
      benchframe trace split make.parquet -o part.parquet
    """
    from benchframe.cli.inspect import run_trace_split

    return run_trace_split(file, output)


@app.command("verify")
@guarded
def verify(file: File) -> int:
    """Replay a trace in the oracle and compare it with what the kernel reported.

    Exit codes: 0, 1 (they differ), 2 (the file is not a trace, or is damaged).

    \b
    Example:
      benchframe trace verify python.parquet
    """
    from benchframe.cli.inspect import run_trace_verify

    return run_trace_verify(file)


@app.command("replay")
@guarded
def replay(
    file: File,
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="The strategy to replay with.")] = "rbtree",
    rows: Annotated[int, typer.Option("--rows", min=1, help="Events held in memory at once.")] = 1 << 20,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every answer with the oracle's.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
) -> int:
    """Replay a trace of any length through the model in bounded memory.

    Exit codes: 0, 1 (--verify finds a wrong answer), 2 (the file is not a trace, or is damaged; no such strategy).

    \b
    Examples:
      benchframe trace replay huge.parquet
      benchframe trace replay --strategy pmdcache --verify program.parquet
    """
    from benchframe.engine.session import StreamReplay
    from benchframe.trace.trace import iter_batches, read_meta

    replayer = StreamReplay(
        registry(plugin).strategy(strategy), rows, verify=verify, lived_under=read_meta(file).limits
    )
    done = replayer.run(batch.events for batch in iter_batches(file, rows))
    typer.echo(f"{done.events:,} events through {strategy}: {done.rate / 1e6:.1f} M events/s inside the replay")
    if verify:
        typer.echo(
            f"{done.wrong:,} answers differ from the oracle's" if done.wrong else "every answer equals the oracle's"
        )
    if done.wrong:
        typer.echo(done.first_wrong, err=True)
    return 1 if done.wrong else 0


@guarded
def record(
    command: Annotated[list[str] | None, typer.Argument(help="The program and its arguments, after --.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace file; .csv writes CSV.")] = Path(
        "trace.parquet"
    ),
    level: Annotated[str, typer.Option(help="auto, full, user or strace.")] = "auto",
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", "--allow-lost", help="Keep a trace that misses events.")
    ] = False,
    attach: Annotated[int | None, typer.Option(min=1, help="Record a running process instead.")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="With --attach: the processes below it too.")] = False,
    split: Annotated[bool, typer.Option("--split", help="Write one file per address space.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="COMMAND", help="Keep the processes of this command alone.")
    ] = None,
    duration: Annotated[float, typer.Option(min=0.0, help="End after this many seconds.")] = 0.0,
    max_events: Annotated[int, typer.Option("--max-events", min=0, help="End after this many events.")] = 0,
    detach: Annotated[
        bool, typer.Option("--detach", help="End with the program itself; processes that it left continue.")
    ] = False,
    inherit: Annotated[
        bool,
        typer.Option(
            "--inherit", help="Use no control group: each process passes its perf events on, which is slower."
        ),
    ] = False,
    recover: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the trace that a killed recorder left unfinished.")
    ] = None,
    kernel: KernelImage = None,
    copy: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="With --kernel: a file or folder that the program needs there."),
    ] = None,
    accel: Accel = "tcg",
    cpu: Cpu = "",
) -> int:
    """Run a program and record its mapping calls and page faults; its own exit code is passed on.

    The recording ends with the program and all that it started, or at the first Ctrl-C or SIGTERM: processes that still
    run three seconds later continue unrecorded. The trace is written in each case, even if this command itself is
    killed.

    Exit codes: the program's, 2 (bad usage), 125 (recording itself failed), 128 + n (signal n ended the recording
    before the program).

    With --kernel the program runs under another kernel, in a virtual machine without a network that has only this
    environment's Python, the program, its libraries, the arguments that are files, and what --copy names. Without
    --duration the recording ends after an hour.

    \b
    Examples:
      benchframe record -o python.parquet -- python3 -c 'import json'
      benchframe record --level strace -o ls.parquet -- ls -l
      benchframe record --attach 1234 --tree --duration 10 -o server.parquet
      benchframe record --only cc1 -o cc1.parquet -- make
      benchframe record --kernel /boot/vmlinuz-6.1.0-57-cloud-amd64 -o old.parquet -- /bin/ls -l /
    """
    from benchframe.record.command import run_record_command

    if sum((bool(command), attach is not None, recover is not None)) != 1:
        raise UsageError("give either a program after -- or --attach PID")
    if command and command[0].startswith("-"):
        options = (
            "--output", "--level", "--allow-loss", "--attach", "--tree", "--split", "--only", "--duration",
            "--max-events", "--detach", "--inherit", "--recover", "--kernel", "--copy", "--accel", "--cpu",
        )  # fmt: skip
        hint = did_you_mean(command[0], options, "see benchframe record --help")
        raise UsageError(f"record has no option {command[0]}; {hint} The program comes after --")
    from benchframe.record.session import Ends

    if kernel is not None:
        from benchframe.guest import Guest

        if not command:
            raise UsageError("--kernel runs a program: give one after --, not --attach or --recover")
        duration = duration or 3600.0
        passed = ["--level", level, "--duration", str(duration), "--max-events", str(max_events)]
        flags = {"--allow-loss": allow_loss, "--split": split, "--detach": detach, "--inherit": inherit}
        passed += [flag for flag, on in flags.items() if on]
        passed += [word for name in only or () for word in ("--only", name)]
        guest = Guest(kernel, accel, cpu, duration + 1800)  # with time for booting and for writing the trace
        return _record_there(guest, passed, command, output, copy or [])
    if copy or cpu or accel != "tcg":
        raise UsageError("--copy, --accel and --cpu go with --kernel")
    return run_record_command(
        command or [],
        output,
        level,
        allow_loss,
        attach,
        split,
        tree=tree,
        only=tuple(only or ()),
        ends=Ends(duration, max_events, detach),
        grouped=not inherit,
        recover=recover,
    )


def _record_there(guest: "Guest", passed: list[str], command: list[str], output: Path, copy: list[Path]) -> int:
    """Record under another kernel; its errors are a failed recording's."""
    from benchframe.guest import OUT, GuestError, program_files, run_in_guest
    from benchframe.record.command import EXIT_FAILED

    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output.parent}: not a folder; choose another with -o")
    try:
        files = [*program_files(command), *copy]
        arguments = ["record", *passed, "--output", f"{OUT}/{output.name}", "--", str(files[0]), *command[1:]]
        return run_in_guest(
            guest,
            arguments,
            say=typer.echo,
            files=files,
            folder=Path.cwd(),
            results=output.absolute().parent,
        )
    except GuestError as error:
        error.exit_code = EXIT_FAILED
        raise
