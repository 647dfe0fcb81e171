"""``benchframe header``: the records as a C header."""

from pathlib import Path
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, registry


@guarded
def header(
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", "-s", help="Include the private slabs of this strategy.", autocompletion=options.strategies
        ),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
) -> None:
    """Print benchframe.h: the records that C code of a strategy sees, with every offset asserted.

    C files of a strategy get it without including it; this copy is for reading, and for an editor.

    Exit codes: 0, 3 (the disk).

    \b
    Examples:
      benchframe header > benchframe.h
      benchframe header --strategy mine --plugin mine.py
    """
    from benchframe.cstrategy import header as text

    slabs = registry(plugin).strategy(strategy).slabs if strategy else ()
    typer.echo(text(slabs), nl=False)
