"""Numba's typing errors in an author's words: the place in the author's file, what is wrong, the mend. Table-driven.

Most mistakes never come here: :mod:`benchframe.dialect.lint` finds them in the text. What is left is about types, which
only the compiler knows: a name that is a number on one path and a record on another, a sum of records, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

Make = Callable[[re.Match[str]], tuple[str, str]]
_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "lshift": "<<", "rshift": ">>", "and_": "and",
    "or_": "or", "xor": "^", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "iadd": "+=",
    "isub": "-=", "getitem": "[]", "not_": "not", "neg": "-", "invert": "~",
}  # fmt: skip
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'File "([^"\n]+)", line (\d+)|at (\S+\.py) \((\d+)\)')
_TYPES = (
    (re.compile(r"Literal\[int\]\((-?\d+)\)"), r"the number \1"),
    (re.compile(r"Literal\[str\]\((\w*)\)"), r"the text '\1'"),
    (re.compile(r"\b(?:unicode_type)\b"), "a text"),
    (re.compile(r"\b(?:u?int64|u?int32|bool|boolean|Literal\[bool\]\(\w+\))"), "a number"),
    (re.compile(r"\bfloat64\b"), "a number with a fraction"),
    (re.compile(r"\bOptionalType\((.*)\)|\bnone\b"), "nothing"),
)
_KEEP_INDEX = "keep the index (a number) in the name, and write the record where it is used: VMA(mm, i).field"


def _unified(match: re.Match[str]) -> tuple[str, str]:
    name = match["name"].partition(".")[0].lstrip("$")
    return f"{name} is {match['a']} on one path and {match['b']} on another", _KEEP_INDEX


def _operator(match: re.Match[str]) -> tuple[str, str]:
    sign = _OPERATORS.get(match["name"], match["name"])
    operands = _split(match["operands"])
    shown = f" {sign} ".join(operands) if len(operands) == 2 else f"{sign} of {', '.join(operands)}"
    return (
        f"{shown} is not possible",
        "a record has fields and nothing else: compute and compare with its index or a field",
    )


TABLE: tuple[tuple[re.Pattern[str], Make], ...] = (
    (re.compile(r"DialectError: (?P<what>[^\n]+)"), lambda m: (m["what"], "see docs/dialect.md")),
    (
        re.compile(r"Cannot unify (?P<a>.+?) and (?P<b>.+?) for '(?P<name>[^']+)'"),
        _unified,
    ),
    (
        re.compile(r"NameError: name '(?P<name>\w+)' is not defined"),
        lambda m: (f"{m['name']} is not defined", "define it in this file or import it"),
    ),
    (
        re.compile(r"Unknown attribute '(?P<field>\w+)' of type (?P<type>[^\n]+)"),
        lambda m: (f"{m['type']} has no field {m['field']}", f"make a record of the index: VMA(mm, i).{m['field']}"),
    ),
    (
        re.compile(r"No implementation of function Function\(<built-in function (?P<name>\w+)>\).*?"
                   r">>> \w+\((?P<operands>[^\n]*)\)", re.DOTALL),
        _operator,
    ),
    (
        re.compile(r"Cannot bind .* to signature '(?P<wanted>[^']*)'", re.DOTALL),
        lambda m: (f"the function takes {m['wanted']}, it is given another number of arguments", "write each of them"),
    ),
    (
        re.compile(r"(?:Can't|Cannot) unify return type from the following types: (?P<types>[^\n]+)"),
        lambda m: (f"returns {' or '.join(_split(m['types']))}", "return one integer on every path"),
    ),
    (
        re.compile(r"missing (?P<n>\d+) required positional argument"),
        lambda m: ("a call has too few arguments", "docs/dialect.md lists what each call takes"),
    ),
)  # fmt: skip
"""What Numba says, and what that means. The first that matches counts."""


def readable(text: str, records: Mapping[str, str]) -> str:
    """Numba's types in words. ``records`` maps a record type's text to the struct's name."""
    text = _ANSI.sub("", text)
    for shape, name in records.items():
        text = text.replace(shape, f"a {name} record")
    text = re.sub(r"Record\(.*?;\d+;(?:True|False)\)|Record\(\[.*?\], \d+, (?:True|False)\)", "a record", text)
    for pattern, words in _TYPES:
        text = pattern.sub(words, text)
    return text


def returned(kind: str, records: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with a function of which the result's type is ``kind``, and the mend."""
    kind = readable(kind, records)
    mend = "return its index" if kind.endswith("record") else "return one integer on every path: 0, or NULL"
    return f"returns {kind}", mend


def translated(text: str, fallback: str, records: Mapping[str, str]) -> str:
    """One finding, ``FILE:LINE: what; mend``, from Numba's report; ``fallback`` is the place if it names none."""
    plain = readable(text, records)
    for pattern, make in TABLE:
        match = pattern.search(plain)
        if match is not None:
            what, mend = make(match)
            return f"{place(plain, fallback)}: {what}; {mend}"
    skipped = ("Failed in", "File", "During", ">>>")
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    reason = next((line for line in lines if not line.startswith(skipped)), lines[0] if lines else "it cannot be typed")
    mend = "strategy code has 64-bit integers and records; see docs/dialect.md"
    return f"{place(plain, fallback)}: {reason[:300]}; {mend}"


def place(text: str, fallback: str) -> str:
    """The innermost line of an author's file that the report names: the first one, since Numba tells inside out."""
    for match in _PLACE.finditer(text):
        file, line = match[1] or match[3], match[2] or match[4]
        if "/numba/" not in file and Path(file).name not in ("backend.py", "lowering.py", "waiting.py", "<string>"):
            return f"{_full(file, fallback)}:{line}"
    return fallback


def _full(file: str, fallback: str) -> str:
    """Numba may shorten a path; the entry's own folder completes it."""
    path = Path(file)
    if path.is_absolute() or path.exists():
        return str(path)
    other = Path(fallback.partition(":")[0]).parent / path.name
    return str(other) if other.exists() else file


def _split(text: str) -> list[str]:
    """Operands of a signature, split at the commas between them."""
    return [part.strip() for part in re.split(r",\s*(?![^()\[\]]*[)\]])", text) if part.strip()]
