"""``benchframe list``: strategies, workloads, traces and runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli.options import guarded, registry
from benchframe.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.workload import Workload

KINDS = ("strategies", "workloads", "traces", "runs")


@guarded
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="|".join(KINDS), help="strategies, workloads, traces or runs.", autocompletion=lambda: KINDS
        ),
    ],
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(help="Leave a plugin out.")] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Only workloads and traces with this tag: a kind of program, such as server."),
    ] = None,
    root: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("reports/runs"),
) -> None:
    """List what can be run, and the runs made so far.

    Exit codes: 0, 2 (no such kind, a file that is not a plugin).

    \b
    Examples:
      benchframe list strategies
      benchframe list workloads
      benchframe list traces
      benchframe list traces --tag runtime
      benchframe list runs
      benchframe list runs --runs reports/nightly
    """
    if kind == "runs":
        return _runs(root)
    known = registry(plugin, no_plugin)
    if kind == "strategies":
        origins = [known.origins[("strategy", name)] for name in known.strategies]
        rows = [
            (name, origin.distribution or origin.file, strategy.summary)
            for (name, strategy), origin in zip(known.strategies.items(), origins, strict=True)
        ]
        _print(("strategy", "from", "what it is"), rows)
    elif kind == "workloads":
        found = _tagged(known, kind, tag)
        lines = [
            (
                w.name,
                "yes" * (w.make_threads is not None),
                w.summary,
                ", ".join(f"{p.name}={p.default}" for p in w.parameters),
            )
            for w in found
        ]
        _print(("workload", "threads", "what it is", "parameters"), lines)
    elif kind == "traces":
        plain = ("trace", "default")
        shown = [
            (w.name, "yes" * ("default" in w.tags), ", ".join(t for t in w.tags if t not in plain), w.summary)
            for w in _tagged(known, kind, tag)
        ]
        _print(("trace", "default", "tags", "what it is"), shown)
    else:
        raise UsageError(f"cannot list {kind!r}; {did_you_mean(kind, KINDS)}")
    return None


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
    _print(("run", "state", "strategies"), rows)


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; the last one is as wide as its content."""
    if not rows:
        typer.echo(f"no {heads[0]} found", err=True)
        return
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads) - 1)]
    for row in [heads, *rows]:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())
