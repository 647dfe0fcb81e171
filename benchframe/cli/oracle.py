"""``benchframe oracle``: the running kernel judges the oracle that judges the model."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.common import guarded, seconds


@guarded
def oracle(
    ops: Annotated[int | None, typer.Option(min=1, help="Operations to check (default 100000).")] = None,
    budget: Annotated[str | None, typer.Option(help="Check for this long instead: 90s, 5m.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random operations.")] = 0,
    generator: Annotated[str, typer.Option(help="Which operations: all, or one generator's name.")] = "all",
    ablate: Annotated[str | None, typer.Option(help="Switch one rule off: the kernel must notice.")] = None,
    save: Annotated[Path, typer.Option(help="Where a mismatch is saved.")] = Path("oracle-mismatch"),
) -> int:
    """Do random mapping calls on the running kernel and on the oracle, and compare every result.

    \b
    Examples:
      benchframe oracle --ops 20000
      benchframe oracle --budget 5m --seed 7
    """
    from benchframe.judge.command import run_oracle_command

    minutes = seconds(budget) / 60 if budget else None
    return run_oracle_command(ops, minutes, seed, generator, ablate=ablate, save=save)
