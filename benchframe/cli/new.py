"""``benchframe new``: create a plugin."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded, registry
from benchframe.errors import UsageError, did_you_mean


@guarded
def new(
    name: Annotated[str, typer.Argument(help="Name of the strategy or workload, and of its folder.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="cache, index, protocol or workload.")] = "cache",
    language: Annotated[
        str, typer.Option("--lang", help="python, or c: a cache whose hot path is C, with its twin.")
    ] = "python",
    from_linux: Annotated[
        Path | None,
        typer.Option("--from-linux", metavar="DIR", help="An index that is a file of this kernel source tree itself."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of --from-linux: lib/maple_tree.c (default) or lib/rbtree.c."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Parent of the new folder.")] = Path(),
    remember: Annotated[bool, typer.Option(help="Let every command load it from there, without installing it.")] = True,
) -> None:
    """Make an installable package with a working strategy or workload, its tests and a README.

    It is added to your list of plugins (`benchframe plugin list`), so that check and run can use it at once; with
    --no-remember it must be installed, or named with --plugin. Nothing is overwritten.

    With --from-linux the strategy's text stays in the source tree: edit it there, and every run compiles it again
    (docs/c-strategies.md).

    Exit codes: 0, 2 (a bad name, or the folder exists already), 3 (the disk, no source tree).

    \b
    Examples:
      benchframe new mine && benchframe check --strategy mine && benchframe run --quick --strategy mine
      benchframe new my-tree --kind index -o ~/src
      benchframe new fast --lang c
      benchframe new patched --from-linux ~/linux && benchframe run --quick -s patched,maple -w mmap-churn
      benchframe new my-load --kind workload --no-remember
    """
    from benchframe.linux.tree import one_tree
    from benchframe.registry import PluginPathError
    from benchframe.registry import remember as keep
    from benchframe.scaffold import KINDS, MAPLE, make

    if file is not None and from_linux is None:
        raise UsageError("--file names a file of the source tree that --from-linux names; add that")
    if from_linux is not None and (kind != "cache" or language != "python"):
        raise UsageError("--from-linux makes an index in C; leave --kind and --lang out")
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r}; {did_you_mean(kind, KINDS)}")
    known = registry()
    if name in known.strategies or name in known.workloads:
        raise UsageError(f"{name!r} is already the name of a strategy or workload; choose another name")
    tree = one_tree(from_linux) if from_linux is not None else None
    project = make(name, kind, output, language, tree, file or MAPLE)
    refused = ""
    if remember:  # before anything is printed: the reader of the output may close it
        try:
            keep(project.folder)
        except (PluginPathError, OSError) as error:
            refused = str(error)
    edited = project.source.relative_to(project.folder) if tree is None else tree.path / (file or MAPLE)
    typer.echo(f"made {project.folder}: edit {edited}, then")
    extra = "" if remember else f" --plugin {_shown(project.folder)}"
    if kind == "workload":
        typer.echo(f"  benchframe run --quick --workload {name} --strategy mmap_cache{extra}")
    else:
        typer.echo(f"  benchframe check --strategy {name}{extra}")
        typer.echo(f"  benchframe run --quick --strategy {name}{extra}")
    typer.echo(f"  python -m pytest {_shown(project.folder)}")
    if refused:
        typer.echo(f"benchframe: warning: it cannot be remembered: {refused}; use --plugin {project.folder}", err=True)
    elif remember:
        typer.echo(f"every command loads it from there, until `benchframe plugin remove {name}`")


def _shown(path: Path) -> str:
    """The path as the user would type it here."""
    import shlex

    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
