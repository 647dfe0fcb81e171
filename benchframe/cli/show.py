"""``benchframe show NAME``: everything about one strategy or workload."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, registry

if TYPE_CHECKING:
    from types import FunctionType

    from benchframe.registry import Registry
    from benchframe.strategy import Strategy

EXCERPT = 60
"""Lines of source to show without --source."""


@guarded
def show(
    name: Annotated[str, typer.Argument(help="A strategy or a workload.", autocompletion=options.anything)],
    source: Annotated[bool, typer.Option("--source", help="Print the complete source.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(help="Leave a plugin out.")] = None,
) -> None:
    """Show documentation, parameters and source of a strategy or workload.

    Exit codes: 0, 2 (no strategy or workload of this name).

    \b
    Examples:
      benchframe show pmdcache
      benchframe show zipf
      benchframe show rbtree --source
    """
    from benchframe.registry import UnknownName

    known = registry(plugin, no_plugin)
    if name in known.strategies:
        _strategy(known, name, source)
    elif name in known.workloads:
        _workload(known, name)
    else:
        raise UnknownName("strategy or workload", name, [*known.strategies, *known.workloads])


def _strategy(known: "Registry", name: str, whole: bool) -> None:
    from benchframe.cstrategy import c_sources

    strategy = known.strategies[name]
    typer.echo(f"strategy {name}: {strategy.summary}\n")
    typer.echo(f"defined in  {strategy.file}")
    for part in ("index", "cache", "protocol"):
        value = getattr(strategy, part)
        typer.echo(f"{part:<10}  {'the default' if value is None else value}")
    typer.echo(f"\n{inspect.cleandoc(strategy.doc or '')}\n")
    lines, file = [], strategy.file
    for function in _own_first(strategy):
        if function.__code__.co_filename != file:
            file = function.__code__.co_filename
            lines += [f"# ---- {file}", ""]
        lines += [*inspect.getsource(function).rstrip().splitlines(), ""]
    for source in c_sources(strategy.functions()):
        lines += [f"/* {source.path} */", *source.text().rstrip().splitlines(), ""]
    shown = lines if whole else lines[:EXCERPT]
    typer.echo("\n".join(shown))
    if len(lines) > len(shown):
        typer.echo(f"... {len(lines) - len(shown)} more lines: benchframe show {name} --source")


def _own_first(strategy: "Strategy") -> "list[FunctionType]":
    """The strategy's functions: those of its own module before those of the index and the parts that it takes over."""
    own = f"{strategy.module}."
    return sorted(strategy.functions(), key=lambda function: not f"{function.__module__}.".startswith(own))


def _workload(known: "Registry", name: str) -> None:
    workload = known.workloads[name]
    origin = known.origins[("workload", name)]
    typer.echo(f"workload {name}: {workload.summary}\n")
    typer.echo(f"defined in  {origin.file}")
    typer.echo(f"baseline    {workload.baseline}")
    typer.echo(f"stands for  {workload.stands_for}")
    if workload.parameters:
        typer.echo("\nparameters")
        width = max(len(f"{p.name}={p.default}") for p in workload.parameters)
        for p in workload.parameters:
            typer.echo(f"  {f'{p.name}={p.default}'.ljust(width)}  {p.doc} ({p.range})")
        first = workload.parameters[0]
        typer.echo(f"\nexample     benchframe run --workload {name}:{first.name}={first.default}")
    for line in _representative(known, name):
        typer.echo(line)


def _representative(known: "Registry", name: str) -> list[str]:
    """Where the default stream lies among the recorded programs; a plugin's is replayed in the oracle for that."""
    from benchframe.trace.nominal import lines, nominal

    workload = known.workloads[name]
    programs = {other: values for other, values in known.recorded().items() if other != name}
    own = workload.nominal or nominal(workload.spec().trace(0))
    found = lines(own, programs)
    head = f"\nbeside the {len(programs)} recorded programs (docs/workloads.md)"
    return [head, *(f"  {line}" for line in found)] if found else []
