"""Commands that ask the running kernel: ``benchframe host`` times a trace on it, ``oracle`` compares answers."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import Accel, Cpu, KernelImage, guarded, loaded, plugin_files, registry, seconds, split
from benchframe.errors import UsageError

if TYPE_CHECKING:
    from benchframe.host.measure import Counted
    from benchframe.host.program import Program


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
    kernel: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="IMAGE",
            help="Boot this kernel image (a bzImage) in QEMU and count instructions there instead; repeat it to "
            "compare kernels.",
        ),
    ] = None,
    cpu_model: Annotated[
        str, typer.Option("--cpu", metavar="MODEL", help="With --kernel: the processor, as QEMU's -cpu has it.")
    ] = "",
    icount: Annotated[Path | None, typer.Option(hidden=True, help="In a guest: write what was counted here.")] = None,
    program_file: Annotated[
        Path | None, typer.Option("--program", hidden=True, help="With --icount: what to perform.")
    ] = None,
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
      benchframe host -w python-json --kernel vmlinuz-6.1 --kernel vmlinuz-6.12
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.job import spare_cpu
    from benchframe.host.measure import (
        FORK_ROUNDS,
        KERNEL_ROUNDS,
        ROUNDS,
        HostError,
        counted_json,
        fork_table,
        host_table,
        kernels_table,
        measure,
        measure_forks,
        model_figures,
        preset_of,
        unsupported,
    )
    from benchframe.host.program import make_program, read_program
    from benchframe.judge.command import kernel_name
    from benchframe.trace.trace import largest, select
    from benchframe.workload import trace_workload

    if icount is not None:
        counted = measure(read_program(program_file), rounds or KERNEL_ROUNDS, icount=True)
        icount.write_text(counted_json(counted, kernel_name()), encoding="utf-8")
        return
    check_form(form)
    if form == "mail":
        raise UsageError("the host table has no mail format; use --format text")
    spare = spare_cpu() if pin else None
    cpu = -1 if spare is None else spare
    if fork:
        if kernel:
            raise UsageError("--fork times the running kernel; leave --kernel out")
        if workload is not None or trace is not None or strategy:
            raise UsageError("--fork makes VMAs of its own; leave --workload, --trace and --strategy out")
        found = measure_forks(rounds=rounds or FORK_ROUNDS, cpu=cpu)
        typer.echo(shown(fork_table(found, kernel_name()), form), nl=False)
        return
    if (workload is None) == (trace is None):
        raise UsageError("name one workload with --workload, or one recorded trace with --trace")
    if not kernel and (reason := unsupported()):
        raise HostError(reason)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    spec = trace_workload(trace).spec() if trace is not None else known.spec(workload or "")
    names = split(strategy)
    if not names and model and not kernel:
        preset = preset_of(platform.release(), known.strategies)
        if preset is None:
            raise UsageError("no strategy is a preset of this kernel; name one with --strategy, or use --no-model")
        names = [preset]
    stream = spec.trace(0)
    if stream.mms > 1:
        chosen = largest(stream)
        typer.echo(
            f"benchframe: {spec.label} is a tree of {stream.mms} address spaces; the one with the most faults is "
            f"performed, number {chosen} (others: benchframe trace select)",
            err=True,
        )
        stream = select(stream, chosen)
    presets: list[str] = []
    program = make_program(stream, memory << 20)
    if kernel:
        others = _on_kernels(kernel, cpu_model, program, rounds or KERNEL_ROUNDS)
        if model:
            presets = [preset_of(one.kernel, known.strategies) or "" for one in others]
            names = names or list(dict.fromkeys(filter(None, presets)))
    else:
        times = measure(program, rounds or ROUNDS, cpu)
    strategies = [known.strategy(name) for name in names] if model else []
    figures = {}
    if strategies:
        from benchframe.engine.compile import compile_strategies

        compile_strategies(strategies)
        plugins = [str(path) for path in files]
        figures = model_figures(strategies, stream, max(2, min(rounds or ROUNDS, 5)), cpu, plugins, split(no_plugin))
    if kernel:
        typer.echo(shown(kernels_table(others, program, figures, presets, spec.label), form), nl=False)
        return
    typer.echo(shown(host_table(times, program, figures, kernel_name(), spec.label), form), nl=False)


def _on_kernels(images: Sequence[Path], cpu: str, program: "Program", rounds: int) -> "list[Counted]":
    """Perform a program on each kernel, in a machine that counts instructions. Raises HostError, GuestError."""
    import tempfile

    from benchframe.guest import OUT, Guest, run_in_guest
    from benchframe.host.measure import HostError, read_counted
    from benchframe.host.program import write_program

    def say(line: str) -> None:
        typer.echo(line, err=True)

    found = []
    with tempfile.TemporaryDirectory(prefix="benchframe-host-") as name:
        packed, left = Path(name) / "program.npz", Path(name) / "counted.json"
        write_program(packed, program)
        arguments = ["host", "--program", str(packed), "--icount", f"{OUT}/{left.name}", "--rounds", str(rounds)]
        for image in images:
            guest = Guest(image, cpu=cpu, icount=True)
            if run_in_guest(guest, arguments, say=say, files=[packed], results=Path(name)):
                raise HostError(f"{image}: the machine performed nothing; what it said is above")
            found.append(read_counted(left))
            left.unlink()
    return found


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
        from benchframe.judge.kernel_sources import run_sources_command

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
    from benchframe.judge.judge import model_side, speaks
    from benchframe.runner import NativeRunner

    side = model_side(NativeRunner(registry(plugin).strategy(strategy)))
    return run_oracle_command(ops, minutes, seed, generator, side, save=save, accept=speaks)
