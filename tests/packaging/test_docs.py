"""The documents: generated tables are up to date, links lead somewhere, commands exist, indexes are complete.

``python tests/packaging/test_docs.py`` writes the generated tables anew.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from benchframe.dialect import primitives
from benchframe.dialect.lint import _FORBIDDEN
from benchframe.mm import layout
from benchframe.mm.defaults import DEFAULTS
from benchframe.mm.hooks import ALL
from benchframe.testing import assert_no_race, load_plugin

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


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
    parts = {"index": "Index", "cache": "Cache", "protocol": "Protocol", "engine": "Engine: not for plugins"}
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
    for what, mend in _FORBIDDEN.values():
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


GENERATED: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/strategy-interface.md", "hooks"): hooks_table,
    ("docs/dialect.md", "fields"): fields_table,
    ("docs/dialect.md", "rules"): rules_table,
    ("docs/dialect.md", "primitives"): primitives_table,
}


def section(name: str) -> re.Pattern[str]:
    """What stands between a generated table's marks."""
    return re.compile(rf"(<!-- {name}: tests/packaging/test_docs\.py -->\n).*?(\n<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize(("document", "name"), GENERATED)
def test_generated_tables(document: str, name: str) -> None:
    """Tables made from the code say what the code says now."""
    text = (ROOT / document).read_text()
    found = section(name).search(text)
    assert found, f"{document} has no section {name}"
    wanted = section(name).sub(lambda m: m[1] + GENERATED[document, name]() + m[2], text)
    assert wanted == text, f"{document} is out of date: python tests/packaging/test_docs.py"


def test_every_hook_has_its_lock() -> None:
    """Each hook of the model says what its caller holds."""
    assert [h.name for h in ALL if not h.holds] == []


def test_readme_is_short() -> None:
    """README has a screen's worth of sentences before its table, and 110 lines at most; the rest is in docs/."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(text[: text.index("ns/lookup")].split()) < 150


def test_readme_shows_the_example() -> None:
    """The strategy in README is the example package's file, and has at most 30 lines."""
    source = (ROOT / "examples/benchframe-two-entry/benchframe_two_entry.py").read_text()
    assert f"```python\n{source}```" in (ROOT / "README.md").read_text()
    assert len(source.splitlines()) <= 30


def test_named_files_exist() -> None:
    """Every Python file that README and docs/ name in backticks exists, from the root or below benchframe/."""
    seen = 0
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*\.py)`", document.read_text()):
            if ("/" in name or document.name == "reading.md") and not name.startswith("two/"):  # the tutorial makes two
                seen += 1
                there = (ROOT / name).exists() or (ROOT / "benchframe" / name).exists()
                assert there, f"{document.relative_to(ROOT)} names {name}"
    assert seen > 80


def test_an_address_takes_thirty_modules_at_most() -> None:
    """docs/reading.md has its twelve stops, and the path of one address names at most 30 modules, each once."""
    stops, _, path = (ROOT / "docs" / "reading.md").read_text().partition("## One address")
    assert len(re.findall(r"^\d+\. \*\*", stops, re.MULTILINE)) == 12
    modules = re.findall(r"^\| \d+ \| `([^`]+)`", path, re.MULTILINE)
    assert len(modules) == len(set(modules))
    assert 20 < len(modules) <= 30


def test_links_lead_somewhere() -> None:
    """Relative links and pictures in the documents exist."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.relative_to(ROOT)}: {target}"


def test_index_lists_every_document() -> None:
    """docs/index.md leads to each document, docs/decisions/index.md to each decision."""
    for folder in (ROOT / "docs", ROOT / "docs/decisions"):
        index = (folder / "index.md").read_text()
        for document in folder.glob("*.md"):
            assert document.name == "index.md" or f"({document.name})" in index, document.name


def commands() -> Iterator[tuple[str, list[str]]]:
    """(document, words) of every benchframe command in the documents, in fenced blocks and in the text."""
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = re.findall(r"```(?:sh|console)?\n(.*?)```", text, re.DOTALL)
        lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        lines += [" ".join(inline.split()) for inline in re.findall(r"`(benchframe\s[^`]+)`", prose)]
        for line in lines:
            if line.startswith("benchframe "):
                words = shlex.split(line, comments=True)
                yield (
                    str(document.relative_to(ROOT)),
                    list(itertools.takewhile(lambda w: w not in ("\\|", "|", ">"), words)),
                )


def test_commands_exist() -> None:
    """Each command in the documents is one of benchframe's, with options that it has."""
    from benchframe.cli import app

    top = get_command(app)
    seen = 0
    for document, words in commands():
        command, names = top, {"--help", "--version", "--debug", "--install-completion"}
        for word in words[1:]:
            if word in ("--", "COMMAND"):
                break
            subcommands = getattr(command, "commands", {})
            if word in subcommands:
                command = subcommands[word]
                names |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
            elif word.startswith("-"):
                assert word.partition("=")[0] in names, f"{document}: {' '.join(words)}: no option {word}"
            else:
                assert command is not top, f"{document}: {' '.join(words)}: no command {word}"
                seen += 1
    assert seen


def main() -> None:
    """Write the generated tables into their documents."""
    for (document, name), make in GENERATED.items():
        path = ROOT / document
        table = make()
        path.write_text(section(name).sub(lambda m, t=table: m[1] + t + m[2], path.read_text()))  # type: ignore[misc]


def test_scenarios_of_a_plugin(tmp_path: Path) -> None:
    """The plugin of docs/plugins.md: its own scenario finds what is shown there, and nothing with the fix."""
    text = (ROOT / "docs" / "plugins.md").read_text()
    code = text.split("<!-- turns.py: tests/packaging/test_docs.py -->\n```python\n")[1].split("```")[0]
    bug, mend = "mm.strategy0 = NULL", re.search(r"With `(mm\.strategy0 = [^`]*)` it is right", text)
    assert mend is not None
    assert code.count(bug) == 1
    told = re.search(r"^ +use after free: .*$", text, re.M)
    assert told is not None
    for name, source in (("turns", code), ("mended", code.replace(bug, mend[1]).replace('"turns"', '"mended"'))):
        (tmp_path / f"{name}.py").write_text(source)
    known = load_plugin(tmp_path / "turns.py", tmp_path / "mended.py")
    with pytest.raises(AssertionError, match=re.escape(told[0].strip())):
        assert_no_race(known, "turns", ["turns-munmap"])
    assert_no_race(known, "mended", ["turns-munmap"])


if __name__ == "__main__":
    main()
