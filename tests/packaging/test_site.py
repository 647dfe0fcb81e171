"""The documentation site: every strategy, command and document has its page, links hold, and mkdocs finds no fault."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.environments import ROOT
from typer.main import get_command

from benchframe.registry import load


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """tools/site.py as a module."""
    spec = importlib.util.spec_from_file_location("benchframe_site", ROOT / "tools" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page."""
    out: Path = tmp_path_factory.mktemp("site")
    site.write(out)
    return out


def test_every_strategy_has_its_page(written: Path) -> None:
    """Each of benchframe's strategies stands in the table of a page, with its summary."""
    pages = "\n".join(path.read_text() for path in (written / "strategies").glob("*.md"))
    known = load()
    for name, strategy in known.strategies.items():
        if known.origins[("strategy", name)].distribution == "benchframe":
            assert f"| `{name}` | {strategy.summary}" in pages


def test_a_page_has_its_drawing(written: Path) -> None:
    """Drawings and lists of a docstring keep their form: rbtree's rotation is a block, its invariants are a list."""
    text = (written / "strategies" / "rbtree.md").read_text()
    assert re.search(r"```\n +parent +parent\n", text)
    assert "\n\n1. a node is red or black" in text
    assert "**History:**" in text


def test_every_command_is_in_the_reference(written: Path) -> None:
    """The reference has each command and subcommand, and all their options."""
    from benchframe.cli import app

    text = (written / "reference" / "cli.md").read_text()
    top = get_command(app)
    for name, command in getattr(top, "commands", {}).items():
        assert f"## benchframe {name}\n" in text
        for option in [opt for p in command.params for opt in p.opts if opt.startswith("--")]:
            assert option in text
        for sub in getattr(command, "commands", {}):
            assert f"### benchframe {name} {sub}\n" in text


def test_links_are_turned(site: ModuleType) -> None:
    """Links between documents, to pictures, to files and to elsewhere each lead where they must."""
    known = site.pages()
    text = "[a](docs/plugins.md#x) [b](examples/y) ![c](docs/ratios.svg) [d](https://e.f/g) [h](#i) [j](CHANGELOG.md)"
    assert site.relinked(text, "README.md", known) == (
        f"[a](plugins.md#x) [b]({site.SOURCE}examples/y) ![c](ratios.svg) [d](https://e.f/g) [h](#i) [j](changelog.md)"
    )
    assert site.relinked("[a](../README.md) [b](cli.md)", "docs/plugins.md", known) == "[a](index.md) [b](cli.md)"


def test_lists_get_their_blank_line(site: ModuleType) -> None:
    """A list after a paragraph is set off, one within a fence is left alone."""
    assert site.spaced("a\n- b\n- c\n") == "a\n\n- b\n- c\n"
    assert site.spaced("```\na\n- b\n```\n") == "```\na\n- b\n```\n"


def test_it_builds(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mkdocs --strict builds it: no dead link, no page without a place in the nav, nothing loaded from elsewhere."""
    pytest.importorskip("mkdocs", reason="the docs group is not installed")
    pytest.importorskip("material", reason="the docs group is not installed")
    monkeypatch.setattr(site, "CONFIG", tmp_path / "mkdocs.yml")
    names = site.write(tmp_path / "pages")
    site.configure(names, tmp_path / "pages", tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", tmp_path / "mkdocs.yml"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        page = tmp_path / "site" / Path(name).with_suffix(".html")
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]+)\"", page.read_text())
        assert loaded == [], f"{name} loads {loaded}"
