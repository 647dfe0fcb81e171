"""``benchframe list`` and ``show``: strategies, workloads, traces and runs, or everything about one."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, print_list, registry
from benchframe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from types import FunctionType

    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.workload import Workload


KINDS = ("strategies", "workloads", "traces", "runs")


@guarded
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar=f"[{'|'.join(KINDS)}]", help="One of these; all without it.", autocompletion=lambda: KINDS
        ),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(help="Leave a plugin out.")] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Only workloads or traces with this tag: a kind of program, such as server."),
    ] = None,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("reports/runs"),
) -> None:
    """List what can be run, and the runs made so far.

    Exit codes: 0, 2 (no such kind, a file that is not a plugin).

    \b
    Examples:
      benchframe list
      benchframe list workloads
      benchframe list traces --tag runtime
      benchframe list runs --runs reports/nightly
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"cannot list {kind!r}; {did_you_mean(kind, KINDS)}")
    if tag is not None and kind not in ("workloads", "traces"):
        raise UsageError(f"--tag {tag} selects workloads or traces: benchframe list traces --tag {tag}")
    known = registry(plugin, no_plugin) if kind != "runs" else None
    for number, each in enumerate(KINDS if kind is None else [kind]):
        if number:
            typer.echo("")
        if known is None or each == "runs":
            _runs(root)
        elif each == "strategies":
            _strategies(known)
        elif each == "workloads":
            _workloads(_tagged(known, each, tag))
        else:
            _traces(_tagged(known, each, tag))


def _strategies(known: "Registry") -> None:
    origins = [known.origins[("strategy", name)] for name in known.strategies]
    rows = [
        (name, origin.distribution or origin.file, strategy.summary)
        for (name, strategy), origin in zip(known.strategies.items(), origins, strict=True)
    ]
    print_list(("strategy", "from", "what it is"), rows)


def _workloads(found: "Sequence[Workload]") -> None:
    rows = [
        (
            w.name,
            "yes" * (w.make_threads is not None),
            f"{w.summary}\n{', '.join(f'{p.name}={p.default}' for p in w.parameters)}".rstrip(),
        )
        for w in found
    ]
    print_list(("workload", "threads", "what it is, and its parameters"), rows)


def _traces(found: "Sequence[Workload]") -> None:
    plain = ("trace", "default")
    rows = [
        (w.name, "yes" * ("default" in w.tags), ", ".join(t for t in w.tags if t not in plain), w.summary)
        for w in found
    ]
    print_list(("trace", "default", "tags", "what it is"), rows)


def _tagged(known: "Registry", kind: str, tag: str | None) -> "list[Workload]":
    """The workloads with a tag, or all if no tag is given. Raises UsageError naming the existing tags."""
    found = [w for w in known.workloads.values() if ("trace" in w.tags) == (kind == "traces")]
    tags = sorted({t for w in found for t in w.tags})
    if tag is not None and tag not in tags:
        raise UsageError(f"--tag {tag}: no such tag; {did_you_mean(tag, tags)}")
    return [w for w in found if tag is None or tag in w.tags]


def _runs(root: Path) -> None:
    from benchframe.errors import ResultsError
    from benchframe.results.folder import list_runs
    from benchframe.results.manifest import read_manifest

    rows = []
    for path in list_runs(root):
        try:
            manifest = read_manifest(path)
        except ResultsError as error:
            rows.append((path.name, "damaged", error.what))
            continue
        strategies = ", ".join(dict.fromkeys(cell.strategy for cell in manifest.cells))
        rows.append((path.name, "finished" if manifest.finished else "unfinished", strategies))
    print_list(("run", "state", "strategies"), rows)


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
    for part in ("index", "cache", "protocol", "allocator"):
        value = getattr(strategy, part)
        missing = "free: a stack of free slots" if part == "allocator" else "the default"
        typer.echo(f"{part:<10}  {missing if value is None else value}")
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
    from benchframe.trace.analysis import lines, nominal

    workload = known.workloads[name]
    programs = {other: values for other, values in known.recorded().items() if other != name}
    own = workload.nominal or nominal(workload.spec().trace(0))
    found = lines(own, programs)
    head = f"\nbeside the {len(programs)} recorded programs (docs/workloads.md)"
    return [head, *(f"  {line}" for line in found)] if found else []
