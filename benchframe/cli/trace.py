"""`benchframe trace`: information, verification, conversion and splitting of trace files."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded, registry

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
