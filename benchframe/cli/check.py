"""``benchframe check``: is a strategy right, alone and with other tasks beside it?"""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.common import UsageError, guarded, registry, seconds, split
from benchframe.cli.complete import strategies as strategy_names


@guarded
def check(
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", "-s", help="Strategies, with commas (default: all).", autocompletion=strategy_names),
    ] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Scenarios, with commas (default: all).")] = None,
    budget: Annotated[str, typer.Option(help="Time for everything: 30s, 5m.")] = "60s",
    replay: Annotated[
        str | None, typer.Option(help="Run one schedule again: the string that a story ends with.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the findings to this JSON file.")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="A Python file with more strategies.")] = None,
) -> int:
    """Check strategies: random calls against the oracle, then every interleaving of small concurrent scenarios.

    A failure is told as a story with the schedule that led to it; --replay runs that again. Exit code 1 if anything
    is wrong.

    \b
    Examples:
      benchframe check --strategy pmdcache
      benchframe check --strategy pmdcache_rcu --scenario fault-munmap --budget 5m
      benchframe check --strategy pmdcache --scenario lookup-munmap --replay v1:0x10.1x100.0x1.
    """
    from benchframe.check.command import CheckError, run_check_command
    from benchframe.csource import unseen

    known = registry(plugin)
    names = split(strategy) or sorted(known.strategies)
    for name in names:
        for function in unseen(known.strategy(name).functions()):
            typer.echo(
                f"benchframe: warning: {name}: {function}() is C without a twin: races in it are not found",
                err=True,
            )
    try:
        return run_check_command(
            [known.strategy(name) for name in names],
            split(scenario),
            seconds(budget),
            again=replay,
            save=save,
            say=typer.echo,
        )
    except CheckError as error:
        raise UsageError(str(error)) from error
