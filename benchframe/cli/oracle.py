"""``benchframe oracle``: compare the model, or the oracle that judges the model, with the running kernel."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import Accel, Cpu, KernelImage, guarded, registry, seconds


@guarded
def oracle(
    ops: Annotated[
        int | None, typer.Option(min=1, help="Operations to check (default 100000, with --kernel 8000).")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Check for this long instead: 90s, 5m.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random operations.")] = 0,
    generator: Annotated[str, typer.Option(help="Which operations: all, or one generator's name.")] = "all",
    ablate: Annotated[
        str | None, typer.Option(help="Turn one rule off, or all in turn: the comparison must notice.")
    ] = None,
    judged: Annotated[
        str | None,
        typer.Option(
            help="What is compared: the model (compiled) or the oracle [default: model; with --kernel oracle]."
        ),
    ] = None,
    strategy: Annotated[str, typer.Option("--strategy", "-s", help="The strategy that the model runs.")] = "rbtree",
    kernel: KernelImage = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Compare with lib/rbtree.c, lib/maple_tree.c and mm/vma.c of this kernel source tree, or of all in "
            "this folder, instead; --generator: rbtree, maple, traces, vma.",
        ),
    ] = None,
    accel: Accel = "tcg",
    cpu: Cpu = "",
    save: Annotated[
        Path, typer.Option(help="A mismatch is saved under this name with .txt, .py and .c appended.")
    ] = Path("oracle-mismatch"),
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
) -> int:
    """Do random mapping calls on the running kernel and on the model, and compare every result.

    After each call the return value or errno and the exact list of VMAs must be equal. --ablate switches a rule off in
    the oracle, to show that the comparison notices it.

    Exit codes: 0, 1 (the kernel disagrees with the oracle or the model), 2 (bad input or usage), 3 (the environment).

    \b
    Examples:
      benchframe oracle --ops 20000
      benchframe oracle --budget 5m --seed 7 --strategy pmdcache
      benchframe oracle --judged oracle --ablate merge_pgoff
      benchframe oracle --kernel /boot/vmlinuz-6.1.0-53-cloud-amd64 --ops 8000
      benchframe oracle --sources linux-source-6.12 --generator maple
    """
    if sources:
        if kernel is not None or ablate or judged:
            raise typer.BadParameter("it goes with neither --kernel nor --ablate nor --judged", param_hint="--sources")
        from benchframe.judge.sources.compare import run_sources_command

        limit = seconds(budget) / 60 if budget else None
        return run_sources_command(sources, registry(plugin), ops, limit, seed, generator)
    from benchframe.judge.command import run_oracle_command

    minutes = seconds(budget) / 60 if budget else None
    if judged not in (None, "model", "oracle"):
        raise typer.BadParameter(f"{judged!r}: choose model or oracle", param_hint="--judged")
    if kernel is not None:
        if judged == "model":
            raise typer.BadParameter("with --kernel the oracle is compared", param_hint="--judged")
        from benchframe.guest import OUT, Guest, run_in_guest

        arguments = ["oracle", "--judged", "oracle", "--seed", str(seed), "--generator", generator]
        arguments += ["--budget", budget] if budget else ["--ops", str(ops or 8000)]
        arguments += ["--ablate", ablate] if ablate else []
        arguments += ["--save", f"{OUT}/{save.name}"]
        limit = 300 + 4 * minutes * 60 if minutes else 3600 + (ops or 0) / 10
        return run_in_guest(Guest(kernel, accel, cpu, limit), arguments, say=typer.echo, results=save.absolute().parent)
    if cpu or accel != "tcg":
        raise typer.BadParameter("it goes with --kernel", param_hint="--cpu, --accel")
    if judged == "oracle" or ablate:
        return run_oracle_command(ops, minutes, seed, generator, ablate=ablate, save=save)
    from benchframe.engine.runner import NativeRunner
    from benchframe.judge.judge import model_side, speaks

    side = model_side(NativeRunner(registry(plugin).strategy(strategy)))
    return run_oracle_command(ops, minutes, seed, generator, side, save=save, accept=speaks)
