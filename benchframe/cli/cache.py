"""``benchframe cache``: compiled code and the oracle's answers, which only save time."""

from pathlib import Path
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
    """Print the cache folder, and how many compiled units, lowered functions and answers of the oracle it holds.

    Exit codes: 0 always.

    \b
    Example:
      benchframe cache info
    """
    from benchframe.dialect.store import cache_folder

    typer.echo(f"folder     {cache_folder()}")
    for name, folder in _folders().items():
        sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
        typer.echo(f"{name:<9}  {len(sizes)} files, {sum(sizes):,} bytes")


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
    from benchframe.dialect.store import cache_folder
    from benchframe.dialect.store import clear as cleared

    if not yes and not typer.confirm(f"Remove compiled code and answers from {cache_folder()}?"):
        return 1
    files, size = map(sum, zip(*map(cleared, _folders().values()), strict=True))
    typer.echo(f"removed {files} files, {size:,} bytes")
    return 0


def _folders() -> dict[str, Path]:
    """What the cache holds, and where: machine code, functions on the way to it, the oracle's answers."""
    from benchframe.dialect.store import Functions, Store, cache_folder

    return {"code": Store().folder, "functions": Functions().folder, "answers": cache_folder() / ANSWERS}
