"""``benchframe cache``: compiled code and the oracle's answers, which only save time."""

from typing import Annotated

import typer

from benchframe.cli.options import guarded

app = typer.Typer(
    help="Compiled code and the oracle's answers: where they are, how large, and how to remove them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ANSWERS = "answers"
"""The folder of the oracle's answers, below the cache folder (benchframe.verify)."""


@app.command("info")
@guarded
def info() -> None:
    """Print the cache folder, and how much compiled code and how many of the oracle's answers it holds.

    Exit codes: 0 always.

    \b
    Example:
      benchframe cache info
    """
    from benchframe.dialect.store import Store, cache_folder

    typer.echo(f"folder   {cache_folder()}")
    for name, folder in (("code", Store().folder), ("answers", cache_folder() / ANSWERS)):
        sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
        typer.echo(f"{name:<7}  {len(sizes)} files, {sum(sizes):,} bytes")


@app.command("clear")
@guarded
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove all compiled code and all answers; the next run makes them again.

    Exit codes: 0, 3 (the disk).

    \b
    Example:
      benchframe cache clear --yes
    """
    from benchframe.dialect.store import Store, cache_folder

    if not yes and not typer.confirm(f"Remove compiled code and answers from {cache_folder()}?"):
        return 1
    files, size = Store().clear()
    for path in (cache_folder() / ANSWERS).glob("*"):
        files, size = files + 1, size + path.stat().st_size
        path.unlink(missing_ok=True)
    typer.echo(f"removed {files} files, {size:,} bytes")
    return 0
