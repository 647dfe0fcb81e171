"""The documents: generated tables are up to date, links lead somewhere, commands exist, indexes are complete.

``make docs-tables`` writes the generated tables anew.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_tables import ROOT, TABLES, section
from typer.main import get_command

from benchframe.mm.hooks import ALL
from benchframe.oracle import RULE_NAMES
from benchframe.testing import assert_no_race, load_plugin

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize(("document", "name"), TABLES)
def test_generated_tables(document: str, name: str) -> None:
    """Tables made from the code say what the code says now."""
    text = (ROOT / document).read_text()
    found = section(name).search(text)
    assert found, f"{document} has no section {name}"
    wanted = section(name).sub(lambda m: m[1] + TABLES[document, name]() + m[2], text)
    assert wanted == text, f"{document} is out of date: make docs-tables"


def test_every_hook_has_its_lock() -> None:
    """Each hook of the model says what its caller holds."""
    assert [h.name for h in ALL if not h.holds] == []


def test_every_rule_of_the_oracle_is_in_its_table() -> None:
    """docs/oracle.md says of each switch what it means and how soon the judge notices its absence."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \| [\d ]+ \| \w+ \|$", (ROOT / "docs/oracle.md").read_text(), re.MULTILINE)
    assert tuple(rows) == RULE_NAMES


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
