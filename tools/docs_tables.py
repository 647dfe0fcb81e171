"""Tables in the documents that are made from the code: ``make docs-tables`` writes them anew.

A test holds that they say what the code says (tests/packaging/test_docs.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchframe.dialect import primitives
from benchframe.dialect.lint import FORBIDDEN
from benchframe.mm import layout
from benchframe.mm.defaults import DEFAULTS
from benchframe.mm.hooks import ALL

ROOT = Path(__file__).resolve().parents[1]


def prose(text: str | None) -> str:
    """A docstring as one Markdown table cell."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join((text or "").split()))
    return text.replace("``", "`").replace("|", "\\|")


def default_of(name: str) -> str:
    """What runs where a strategy does not fill the hook."""
    if name in DEFAULTS:
        return f"`{DEFAULTS[name].__name__}`"
    hook = next(h for h in ALL if h.name == name)
    if hook.default is None:
        return "**must be filled**"
    return "nothing found" if name == "cache_find" else "nothing"


def hooks_table() -> str:
    """Every hook, in the order of the model."""
    parts = {"index": "Index", "cache": "Cache", "protocol": "Protocol", "allocator": "Allocator"}
    parts["engine"] = "Engine: not for plugins"
    lines = []
    for part, title in parts.items():
        lines += [
            "",
            f"### {title}",
            "",
            "| hook | when it is called | the caller holds | default |",
            "|---|---|---|---|",
        ]
        for h in (h for h in ALL if h.part == part):
            short = h.name.removeprefix(f"{part}_")
            signature = f"`{short}({', '.join(h.parameters)})`" + (" *hot*" if h.hot else "")
            lines.append(f"| {signature} | {prose(h.__doc__)} | {h.holds} | {default_of(h.name)} |")
    return "\n".join([*lines[1:], ""])


def rules_table() -> str:
    """What the syntax check refuses, with the mends."""
    grouped: dict[str, list[str]] = {}
    for what, mend in FORBIDDEN.values():
        grouped.setdefault(mend, [])
        if what not in grouped[mend]:
            grouped[mend].append(what)
    rows = [f"| {', '.join(whats)} | {mend} |" for mend, whats in grouped.items()]
    return "\n".join(["| not in strategy code | instead |", "|---|---|", *rows])


def primitives_table() -> str:
    """The named operations on shared memory."""
    found = [p for p in vars(primitives).values() if isinstance(p, primitives.Primitive)]
    rows = []
    for p in found:
        names = p.run.__code__.co_varnames[: p.run.__code__.co_argcount]
        rows.append(f"| `{p.name}({', '.join(names)})` | {prose(p.__doc__)} |")
    return "\n".join(["| call | meaning |", "|---|---|", *rows])


def fields_table() -> str:
    """The records that a strategy may look at, field by field."""
    lines = []
    for slab in (layout.MM, layout.VMA, layout.TASK, layout.PAGE, layout.PTE, layout.FILE):
        lines += ["", f"### `{slab.name}(mm, i)`: {slab.struct.name}, {slab.struct.size} bytes", ""]
        lines += ["| offset | field | holds [protected by] |", "|--:|---|---|"]
        for name, (offset, kind) in slab.struct.fields.items():
            width = "" if kind == "i8" else f" ({kind})"
            lines.append(f"| {offset} | `{name}`{width} | {prose(slab.struct.members[name].comment)} |")
    return "\n".join([*lines[1:], ""])


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/strategy-interface.md", "hooks"): hooks_table,
    ("docs/dialect.md", "fields"): fields_table,
    ("docs/dialect.md", "rules"): rules_table,
    ("docs/dialect.md", "primitives"): primitives_table,
}


def section(name: str) -> re.Pattern[str]:
    """What stands between a generated table's marks."""
    return re.compile(rf"(<!-- {name}: make docs-tables -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the generated tables into their documents."""
    for (document, name), make in TABLES.items():
        path = ROOT / document
        table = make()
        path.write_text(section(name).sub(lambda m, t=table: m[1] + t + m[2], path.read_text()))  # type: ignore[misc]


if __name__ == "__main__":
    main()
