"""``benchframe oracle``: the running kernel judges the model, or the oracle that judges the model."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded, registry, seconds


@guarded
def oracle(
    ops: Annotated[int | None, typer.Option(min=1, help="Operations to check (default 100000).")] = None,
    budget: Annotated[str | None, typer.Option(help="Check for this long instead: 90s, 5m.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random operations.")] = 0,
    generator: Annotated[str, typer.Option(help="Which operations: all, or one generator's name.")] = "all",
    ablate: Annotated[
        str | None, typer.Option(help="Turn one rule off, or all in turn: the comparison must notice.")
    ] = None,
    judged: Annotated[str, typer.Option(help="What is compared: the model (compiled) or the oracle.")] = "model",
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="The strategy that the model runs.")] = "rbtree",
    save: Annotated[Path, typer.Option(help="Folder for mismatches.")] = Path("oracle-mismatch"),
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
) -> int:
    """Do random mapping calls on the running kernel and on the model, and compare every result.

    After each call the return value or errno and the exact list of VMAs must be equal. --ablate switches a rule off in
    the oracle, to see that the comparison notices.

    Exit codes: 0, 1 (the kernel disagrees with the oracle or the model), 2 (bad input or usage), 3 (the environment).

    \b
    Examples:
      benchframe oracle --ops 20000
      benchframe oracle --budget 5m --seed 7 --strategy pmdcache
      benchframe oracle --judged oracle --ablate merge_pgoff
    """
    from benchframe.judge.command import run_oracle_command

    minutes = seconds(budget) / 60 if budget else None
    if judged not in ("model", "oracle"):
        raise typer.BadParameter(f"{judged!r}: choose model or oracle", param_hint="--judged")
    if judged == "oracle" or ablate:
        return run_oracle_command(ops, minutes, seed, generator, ablate=ablate, save=save)
    from benchframe.engine.runner import NativeRunner
    from benchframe.judge.judge import model_side, speaks

    side = model_side(NativeRunner(registry(plugin).strategy(strategy)))
    return run_oracle_command(ops, minutes, seed, generator, side, save=save, accept=speaks)
