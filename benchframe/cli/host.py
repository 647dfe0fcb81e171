"""``benchframe host``: a trace performed for real on the running kernel, and timed."""

import platform
from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, loaded, plugin_files, split
from benchframe.errors import UsageError


@guarded
def host(
    trace: Annotated[Path | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")] = None,
    workload: Annotated[
        str | None,
        typer.Option("--workload", "-w", metavar="NAME[:KEY=VALUE,...]", autocompletion=options.workloads),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME,...",
            help="Strategies of the model to print beside [default: the running kernel's preset].",
            autocompletion=options.strategies,
        ),
    ] = None,
    fork: Annotated[
        bool, typer.Option("--fork", help="Instead of a trace, time fork and exit by the number of VMAs.")
    ] = False,
    model: Annotated[bool, typer.Option("--model/--no-model", help="Print the model's figures, too.")] = True,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Processes [default: 10; with --fork 5].")
    ] = None,
    memory: Annotated[int, typer.Option(min=16, metavar="MIB", help="Cut the trace before it needs more.")] = 1024,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Pin to one CPU if the machine is idle.")] = True,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex.")
    ] = "text",
) -> None:
    """Perform a trace's mapping calls and page faults for real on the running kernel, and time each one.

    Prints ns per fault and per call beside the model's, and what share of a real fault the lookup is: what a better
    strategy could save at best. Everything happens in child processes, inside an arena of addresses that nothing else
    uses; files are replaced by files in memory.

    Exit codes: 0, 1 (the model's answer is wrong), 2 (bad input or usage), 3 (the kernel or machine cannot be timed).

    \b
    Examples:
      benchframe host --workload python-json
      benchframe host --trace mine.parquet --strategy linux-6.15,rbtree
      benchframe host -w mmap-churn:events=2000 --no-model
      benchframe host --fork
    """
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.job import spare_cpu
    from benchframe.host.forks import ROUNDS as FORK_ROUNDS
    from benchframe.host.forks import fork_table, measure_forks
    from benchframe.host.measure import ROUNDS, HostError, measure, unsupported
    from benchframe.host.model import model_figures, preset_of
    from benchframe.host.program import make_program
    from benchframe.host.text import host_table
    from benchframe.judge.command import kernel_name
    from benchframe.trace.trace import largest, select
    from benchframe.workload import trace_workload

    check_form(form)
    if form == "mail":
        raise UsageError("the host table has no mail format; use --format text")
    spare = spare_cpu() if pin else None
    cpu = -1 if spare is None else spare
    if fork:
        if workload is not None or trace is not None or strategy:
            raise UsageError("--fork makes VMAs of its own; leave --workload, --trace and --strategy out")
        found = measure_forks(rounds=rounds or FORK_ROUNDS, cpu=cpu)
        typer.echo(shown(fork_table(found, kernel_name()), form), nl=False)
        return
    if (workload is None) == (trace is None):
        raise UsageError("name one workload with --workload, or one recorded trace with --trace")
    if reason := unsupported():
        raise HostError(reason)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    spec = trace_workload(trace).spec() if trace is not None else known.spec(workload or "")
    names = split(strategy)
    if not names and model:
        preset = preset_of(platform.release(), known.strategies)
        if preset is None:
            raise UsageError("no strategy is a preset of this kernel; name one with --strategy, or use --no-model")
        names = [preset]
    strategies = [known.strategy(name) for name in names] if model else []
    stream = spec.trace(0)
    if stream.mms > 1:
        chosen = largest(stream)
        typer.echo(
            f"benchframe: {spec.label} is a tree of {stream.mms} address spaces; the one with the most faults is "
            f"performed, number {chosen} (others: benchframe trace select)",
            err=True,
        )
        stream = select(stream, chosen)
    program = make_program(stream, memory << 20)
    times = measure(program, rounds or ROUNDS, cpu)
    figures = {}
    if strategies:
        from benchframe.engine.compile import compile_strategies

        compile_strategies(strategies)
        plugins = [str(path) for path in files]
        figures = model_figures(strategies, stream, max(2, min(rounds or ROUNDS, 5)), cpu, plugins, split(no_plugin))
    typer.echo(shown(host_table(times, program, figures, kernel_name(), spec.label), form), nl=False)
