"""``benchframe run``: strategies beside a baseline on workloads and traces, in interleaved rounds."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import complete
from benchframe.cli.common import fail, guarded, loaded, plugin_files, split, strategy_names
from benchframe.cli.run_parts import adaptive, make_streams, new_run, resumed_run, settings, thread_counts
from benchframe.errors import FAILED, UsageError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.results.folder import RunFolder
    from benchframe.results.plan import Stream


@guarded
def run(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME,...",
            help="Names, comma-separated, or all (the default).",
            autocompletion=complete.strategies,
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="NAME[:KEY=VALUE,...],...",
            help="Names, with parameters.",
            autocompletion=complete.workloads,
        ),
    ] = None,
    trace: Annotated[
        list[Path] | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STRATEGY@WORKLOAD",
            help="Leave cells out; * stands for anything. A baseline stays while others need it.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="3 rounds, short values.")] = False,
    rigorous: Annotated[bool, typer.Option("--rigorous", help="25 rounds.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, max=100_000, metavar="N", help="Processes per cell.")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop before a round that would end later: 90s, 5m.")
    ] = None,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Rounds only for cells that are undecided, up to --budget.")
    ] = False,
    within: Annotated[
        float, typer.Option(min=0.1, max=50, metavar="PERCENT", help="Smaller effects are called the same.")
    ] = 2.0,
    decide: Annotated[
        str, typer.Option(metavar="FIGURE,...", help="What --until-decided decides: lookup, fault, mapping.")
    ] = "lookup,fault",
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest life of one process (default 5m).")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="Compare with this strategy.")] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Schedule and layouts: a number or random. Default 0: two runs are compared layout by layout.",
        ),
    ] = None,
    stream_seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of synthetic streams.")] = 0,
    cost: Annotated[
        bool, typer.Option(help="Count loads, lines, atomics and branches too, about a second per cell.")
    ] = True,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Real threads, a cell per number; 0: the usual replay."),
    ] = None,
    pin: Annotated[bool, typer.Option(help="Pin the processes to one CPU.")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where runs are kept.")] = Path(
        "reports/runs"
    ),
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Continue this run (name, folder or `last`).", autocompletion=complete.runs),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="With --resume: crashed and timed-out cells again.")] = False,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, mail, markdown, csv or latex.")
    ] = "text",
) -> int:
    """Time strategies beside their baseline, check every answer first, and print a latency table.

    Without --workload and --trace the shipped traces tagged default are run; without --strategy, all strategies.

    Exit codes: 0, 1 (a cell is wrong, crashed or timed out), 2 (bad input or usage), 3 (disk full, no permission),
    130 (Ctrl-C; --resume continues).

    \b
    Examples:
      benchframe run --quick --strategy pmdcache
      benchframe run -s pmdcache,mmap_cache -w uniform,zipf:vmas=1000,alpha=1.2
      benchframe run -s mine --plugin mine.py --trace firefox.parquet --budget 5m
      benchframe run -s pmdcache,vmacache -w zipf --until-decided --budget 2m --within 2
      benchframe run -s pmdcache,rbtree -w multi-fault-all-split --threads 0,1,2
      benchframe run --resume last
    """
    from benchframe.cli.table import check_form, print_table

    start = time.perf_counter()
    check_form(form)
    options = settings(quick, rigorous, rounds, budget, timeout, pin)
    options = replace(options, within=within / 100, cost=options.cost if cost else 0)
    if until_decided:
        options = adaptive(options, rounds, decide)
        rounds = options.rounds
    files = plugin_files(plugin)
    known = loaded(files, no_plugin)
    if resume is not None:
        if strategy or workload or trace or baseline or threads or seed is not None or quick or rigorous or skip:
            raise UsageError("--resume takes strategies, workloads and schedule from the run; leave those options out")
        folder, streams = resumed_run(known, resume, output, rounds, files, retry)
        folder.save(
            replace(
                folder.manifest,
                options=replace(
                    folder.manifest.options,
                    budget=options.budget,
                    until_decided=folder.manifest.options.until_decided or until_decided,
                    decide=options.decide if until_decided else folder.manifest.options.decide,
                    timeout=options.timeout if timeout else folder.manifest.options.timeout,
                ),
            )
        )
    else:
        if workload and not split(workload):
            raise UsageError("--workload names nothing; leave it out to take the shipped traces tagged default")
        streams = make_streams(known, split(workload), trace or [], stream_seed, baseline, thread_counts(threads))
        asked = strategy_names(strategy, known)
        folder = new_run(known, asked, streams, options, seed, output, files, split(no_plugin), skip or [])
    _sit(known, folder, streams, files, split(no_plugin), start)
    print_table(folder, form)
    _closing(folder)
    failed = sum(cell.state.failed for cell in folder.cells())
    _look_closer(folder, plugin or [])
    return fail(f"{failed} of {len(folder.manifest.cells)} cells failed: see the state column", FAILED) if failed else 0


def _sit(
    known: "Registry",
    folder: "RunFolder",
    streams: "list[Stream]",
    plugins: Sequence[Path],
    blocked: Sequence[str],
    start: float,
) -> None:
    from benchframe.cli.progress import watching
    from benchframe.results.campaign import Campaign

    try:
        with watching(folder) as observer:
            Campaign(
                folder,
                {cell.strategy: known.strategy(cell.strategy) for cell in folder.manifest.cells},
                {stream.entry.label: stream.trace for stream in streams},
                observer,
                plugins=[str(path.resolve()) for path in plugins],
                blocked=blocked,
                start=start,
            ).run()
    except BaseException:
        if not folder.discard_if_empty():
            typer.echo(f"benchframe: what was measured is in {folder.path}; --resume {folder.path} continues", err=True)
        raise


def _look_closer(folder: "RunFolder", plugins: Sequence[Path]) -> None:
    """If strategies failed, name the command that runs them by the interpreter, where a mistake has a line."""
    names = list(dict.fromkeys(cell.entry.strategy for cell in folder.cells() if cell.state.failed))
    if names:
        files = [word for path in plugins for word in ("--plugin", str(path))]
        command = shlex.join(["benchframe", "check", "--strategy", ",".join(names), *files])
        typer.echo(f"benchframe: what goes wrong, and in which line: {command}", err=True)


def _closing(folder: "RunFolder") -> None:
    from benchframe.results.folder import RUNS

    manifest = folder.manifest
    if manifest.wall > 0:
        share = {name: 100 * getattr(manifest, name) / manifest.wall for name in ("measured", "timed", "warmup")}
        typer.echo(
            f"{manifest.wall:.1f} s: {share['measured']:.0f} % inside measured loops ({share['timed']:.0f} % on the "
            f"clock, the rest restores the start state), {share['warmup']:.0f} % in warm-up and calibration",
            err=True,
        )
    there = folder.path.parent.resolve() == RUNS.resolve()  # a run is found there by its name alone
    name = folder.path.name if there else folder.path
    typer.echo(f"results: {folder.path}   ({shlex.join(['benchframe', 'report', str(name)])})", err=True)
