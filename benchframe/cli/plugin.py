"""``benchframe plugin``: plugins that every command loads without being installed or named."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli.options import guarded
from benchframe.errors import UsageError

app = typer.Typer(
    help="List, add or remove the plugins that every command loads from their folders.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
@guarded
def list_() -> None:
    """List the remembered paths, and where the list is stored.

    Exit codes: 0 always.

    \b
    Example:
      benchframe plugin list
    """
    from benchframe.registry import LIST, config_folder, listed

    typer.echo(f"list  {config_folder() / LIST}")
    for path in listed():
        typer.echo(path)


@app.command("add")
@guarded
def add(path: Annotated[Path, typer.Argument(help="A Python file, or a project's folder.")]) -> None:
    """Remember a plugin: from now on every command loads it. Its code is executed: add only what you trust.

    Exit codes: 0, 2 (there is no plugin at this path), 3 (the disk).

    \b
    Examples:
      benchframe plugin add mine.py
      benchframe plugin add ../my-strategy
    """
    from benchframe.registry import remember

    typer.echo(f"{path.absolute()} is loaded from now on" if remember(path) else f"{path.absolute()} was on the list")


@app.command("remove")
@guarded
def remove(name: Annotated[str, typer.Argument(help="The path, or its last part.")]) -> None:
    """Forget a plugin; its files stay.

    Exit codes: 0, 2 (it is not remembered), 3 (the disk).

    \b
    Example:
      benchframe plugin remove my-strategy
    """
    from benchframe.registry import forget, listed

    gone = forget(name)
    if not gone:
        known = ", ".join(str(path) for path in listed()) or "nothing is"
        raise UsageError(f"there is no remembered plugin {name!r}; remembered: {known}")
    for path in gone:
        typer.echo(f"{path} is not loaded any more")
