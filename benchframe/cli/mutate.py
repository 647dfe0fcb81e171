"""``benchframe mutate``: how many small faults in a strategy's text a check finds."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, registry, seconds, strategy_names
from benchframe.errors import FAILED

if TYPE_CHECKING:
    from benchframe.check.mutate import Outcome


@guarded
def mutate(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", help="Strategies, with commas, or all (the default).", autocompletion=options.strategies
        ),
    ] = None,
    faults: Annotated[int, typer.Option(help="Faults of each strategy, by a seeded draw.", min=1)] = 60,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything: 30s, 5m (default: as long as it takes).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    at_least: Annotated[float, typer.Option(help="Share in % below which the exit code is 1.", min=0, max=100)] = 95.0,
    every: Annotated[bool, typer.Option("--every", help="Print the faults that are found, too.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Processes (default: one per core).", min=1)] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="A Python file with more strategies.")] = None,
) -> int:
    """Put small faults into a strategy's text, one at a time, and print the share that a check finds.

    A fault leaves out a test, a store, a call or a barrier, swaps bounds, or is off by one. Faults that survive are
    listed, with the judgement that FILE.mutants.json beside the plugin has about them: an object of faults and reasons.
    Exit code 1 if the share of a strategy is below --at-least.

    \b
    Examples:
      benchframe mutate --strategy vmacache
      benchframe mutate --strategy mine --plugin mine.py --faults 200
      benchframe mutate --strategy all --faults 20 --budget 10m
    """
    from benchframe.check.mutate import score, table
    from benchframe.engine.launch import usable

    known = registry(plugin)
    deadline = time.monotonic() + seconds(budget) if budget is not None else None
    scores = []

    def say(outcome: "Outcome") -> None:
        if every or not outcome.found:
            fault = outcome.fault
            state = outcome.found or f"SURVIVED{': ' + outcome.judgement if outcome.judgement else ''}"
            typer.echo(f"  {fault.place}: {fault.key}\n    {state}")

    for name in strategy_names(strategy, known):
        if deadline is not None and time.monotonic() >= deadline:
            typer.echo(f"{name}: not tried, the time is over")
            continue
        typer.echo(name)
        scores.append(score(known.strategy(name), faults, deadline, seed, jobs or usable(), say))
    typer.echo("\n" + table(scores))
    low = [s.strategy for s in scores if 100 * s.share < at_least]
    return fail(f"below {at_least:g} %: {', '.join(low)}", FAILED) if low else 0
