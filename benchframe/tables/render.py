"""A :class:`Table` as text, Markdown, CSV or LaTeX; every name is escaped, because it may come from anywhere."""

from __future__ import annotations

from collections.abc import Callable

from benchframe.files import printable
from benchframe.tables.build import Table, Value

Renderer = Callable[[Table], str]


def to_text(table: Table) -> str:
    """Plain text, as wide as it gets; repeated workloads are left out."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    rows, last = [], ""
    for row in table.rows:
        rows.append([row[0] if row[0] != last else "", *row[1:]])
        last = row[0]
    align = ["right" if right else "left" for right in table.right]
    body = tabulate(rows, list(table.heads), "simple", colalign=align if rows else None, disable_numparse=True)
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *table.notes, ""])


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|~&"})
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
}
"""Brackets too: after the end of a row one would be taken for the row's distance."""


def markdown_escape(text: str) -> str:
    """``text`` so that Markdown shows it as it is, in a table too.

    >>> markdown_escape("a|b_c")
    'a\\\\|b\\\\_c'
    """
    return " ".join(text.translate(_MARKDOWN).split())


def latex_escape(text: str) -> str:
    r"""``text`` so that LaTeX shows it as it is.

    >>> latex_escape("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return " ".join("".join(_LATEX.get(c) or (c if _shown(c) else "?") for c in text).split())


def _shown(character: str) -> bool:
    """Whether every LaTeX prints it: ASCII, and what its input encoding knows of the Latin letters; spaces too."""
    return " " <= character <= "~" or "\u00c0" <= character <= "\u00ff" or character.isspace()


def to_markdown(table: Table) -> str:
    """A Markdown table (GitHub's form), its notes as a list."""
    from tabulate import tabulate

    rows = [[markdown_escape(text) for text in row] for row in table.rows]
    align = ["right" if right else "left" for right in table.right]
    heads = [markdown_escape(head) for head in table.heads]
    body = tabulate(rows, heads, "pipe", colalign=align if rows else None, disable_numparse=True)
    return "\n".join([body, "", *(f"- {markdown_escape(note)}" for note in table.notes), ""])


def to_latex(table: Table) -> str:
    """A ``tabular`` environment that needs no package; notes as comments above it."""
    from tabulate import tabulate

    rows = [[latex_escape(text) for text in row] for row in table.rows]
    align = ["right" if right else "left" for right in table.right]
    heads = [latex_escape(head) for head in table.heads]
    body = tabulate(rows, heads, "latex_raw", colalign=align if rows else None, disable_numparse=True)
    notes = [f"% {' '.join(printable(note).split())}" for note in table.notes]
    return "\n".join([*notes, body, ""])


def to_csv(table: Table) -> str:
    """Numbers at full precision, one record a line (RFC 4180); what is missing is empty."""
    import csv
    import io

    buffer = io.StringIO()
    names = list(dict.fromkeys(name for record in table.records for name in record))
    writer = csv.DictWriter(buffer, names or list(table.heads), lineterminator="\n")
    writer.writeheader()
    for record in table.records:
        writer.writerow({name: _csv(value) for name, value in record.items()})
    return buffer.getvalue()


_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20|%")
"""What a spreadsheet may take for the beginning of a formula or a command, its wide forms too."""


def _csv(value: Value) -> Value:
    """A text that begins like a formula is not left for a spreadsheet to run."""
    if isinstance(value, str) and value.lstrip()[:1] in _FORMULA:
        return "'" + value
    return None if isinstance(value, float) and value != value else value


FORMATS: dict[str, Renderer] = {"text": to_text, "markdown": to_markdown, "csv": to_csv, "latex": to_latex}


def render(table: Table, form: str) -> str:
    """``table`` in one of :data:`FORMATS`; KeyError if there is no such format."""
    return FORMATS[form](table)
