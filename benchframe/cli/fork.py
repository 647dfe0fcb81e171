"""``benchframe fork``: what fork, exec and exit cost, and what each VMA adds."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, loaded, plugin_files, split, strategy_names
from benchframe.errors import UsageError

DEFAULT = ("linux-6.1", "linux-6.15")
"""A maple tree and the same with a lock per VMA, beside the red-black tree."""


@guarded
def fork(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME,...",
            help="Names; default: linux-6.1 and linux-6.15.",
            autocompletion=options.strategies,
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(metavar="NAME", help="Compare with this strategy.", autocompletion=options.strategies)
    ] = "rbtree",
    counted: Annotated[
        bool, typer.Option("--counted", help="Count loads, stores, atomics and lines per VMA; no time is measured.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures every strategy.")
    ] = 6,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex.")
    ] = "text",
) -> None:
    """Measure what fork, exec and exit cost in address spaces of 50 and 1,000 VMAs, and what each VMA adds.

    These calls walk the whole address space and build or free the index, so they show what its nodes and locks cost to
    make. Times are paired by round, with verdicts (a minute); --counted gives figures that are the same everywhere.

    Exit codes: 0, 1 (a measuring process failed, a wrong answer), 2 (bad input or usage), 3 (disk).

    \b
    Examples:
      benchframe fork
      benchframe fork -s maple,per_vma_refcnt --rounds 20
      benchframe fork -s rbtree,maple --counted --format csv
    """
    from benchframe.cli.table import check_form
    from benchframe.cli.terminal import shown
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.study.fork import OPERATIONS, count, count_table, measure, walk_table

    check_form(form)
    if form == "mail":
        raise UsageError("fork has no mail format; use --format text")
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    names = strategy_names(strategy, known) if strategy else list(DEFAULT)
    names = list(dict.fromkeys([baseline, *names]))
    strategies = {name: known.strategy(name) for name in names}
    compile_strategies(
        list(strategies.values()), lambda name, share: typer.echo(f"benchframe: compiled {name}", err=True)
    )
    if counted:
        table = count_table({(name, op): count(strategies[name], op) for name in names for op in OPERATIONS})
    else:
        cpu = spare_cpu()
        walks = measure(
            known,
            names,
            baseline,
            rounds,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
            plugins=[str(path) for path in files],
            blocked=split(no_plugin),
        )
        table = walk_table(walks, baseline)
    typer.echo(shown(table, form), nl=False)
