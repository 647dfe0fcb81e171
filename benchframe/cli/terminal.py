"""The terminal: how wide it is, whether it shows colours, and tables and lists that fit it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from benchframe.report.table import Table

PLAIN_WIDTH = 100
"""Columns of a list that goes to a file or a pipe."""


def width() -> int:
    """The columns of the terminal behind stdout; 0 if it is none: a table in a file or a pipe keeps all columns."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def colour() -> bool:
    """Whether stdout shows colours: it is a terminal, not a dumb one, and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shown(table: Table, form: str) -> str:
    """``table`` in a format of :data:`~benchframe.report.table.FORMATS`; as text it fits the terminal. Raises KeyError
    if there is no such format."""
    from benchframe.report.table import render, to_text

    return to_text(table, width(), colour()) if form == "text" else render(table, form)


def print_list(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; the last one is wrapped, and may have lines of its own. Nothing is left out."""
    if not rows:
        typer.echo(f"no {heads[0]} found", err=True)
        return
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads) - 1)]
    indent = sum(widths) + 2 * len(widths)
    room = max((width() or PLAIN_WIDTH) - indent, 20)
    for row in [heads, *rows]:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        parts = [line for text in row[-1].split("\n") for line in wrap(text, room, break_on_hyphens=False)]
        first, *rest = parts or [""]
        typer.echo("  ".join([*cells, first]).rstrip())
        for line in rest:
            typer.echo(" " * indent + line)
