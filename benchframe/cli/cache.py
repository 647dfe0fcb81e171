"""``benchframe cache``: the store of compiled code."""

from typing import Annotated

import typer

from benchframe.cli.common import guarded

app = typer.Typer(
    help="The store of compiled code: where it is, how large, and how to empty it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("info")
@guarded
def info() -> None:
    """Print the cache folder, and how many files and bytes it holds.

    \b
    Example:
      benchframe cache info
    """
    from benchframe.dialect.store import Store

    folder = Store().folder
    sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
    typer.echo(f"folder  {folder}")
    typer.echo(f"files   {len(sizes)}")
    typer.echo(f"bytes   {sum(sizes):,}")


@app.command("clear")
@guarded
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove all compiled code; the next run compiles again.

    \b
    Example:
      benchframe cache clear --yes
    """
    from benchframe.dialect.store import Store

    store = Store()
    if not yes and not typer.confirm(f"Remove compiled code from {store.folder}?"):
        return 1
    files, size = store.clear()
    typer.echo(f"removed {files} files, {size:,} bytes")
    return 0
