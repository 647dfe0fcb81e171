"""The documentation site: every strategy, command and document has its page, links hold, and mkdocs finds no fault."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.browser import chromium
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
def written(site: ModuleType) -> dict[str, str]:
    """Every page that is generated, with its text."""
    found: dict[str, str] = site.generated()
    return found


def test_every_strategy_has_its_page(written: dict[str, str]) -> None:
    """Each of benchframe's strategies stands in the table of a page, with its summary."""
    pages = "\n".join(text for page, text in written.items() if page.startswith("strategies/"))
    known = load()
    for name, strategy in known.strategies.items():
        if known.origins[("strategy", name)].distribution == "benchframe":
            assert f"| `{name}` | {strategy.summary}" in pages


def test_a_page_has_its_drawing(written: dict[str, str]) -> None:
    """Drawings and lists of a docstring keep their form: rbtree's rotation is a block, its invariants are a list."""
    text = written["strategies/rbtree.md"]
    assert re.search(r"```\n +parent +parent\n", text)
    assert "\n\n1. a node is red or black" in text
    assert "**History:**" in text
    mail = "20091218093849.8ba69ad9.kamezawa.hiroyu@jp.fujitsu.com"
    assert f"[{mail}](https://lore.kernel.org/r/{mail})" in written["strategies/pmdcache.md"]


def test_every_command_is_in_the_reference(written: dict[str, str]) -> None:
    """The reference has each command and subcommand, and all their options but those that benchframe gives itself."""
    from benchframe.cli import app

    text = written["reference/cli.md"]
    top = get_command(app)
    for name, command in getattr(top, "commands", {}).items():
        assert f"## benchframe {name}\n" in text
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        for option in [opt for parameter in shown for opt in parameter.opts if opt.startswith("--")]:
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
    assert site.relinked("[a](../oracle.md) ![b](../a.png)", "docs/decisions/dpor.md", known) == (
        "[a](../oracle.md) ![b](../a.png)"
    )
    assert site.relinked("[a](docs/decisions/dpor.md)", "README.md", known) == "[a](decisions/dpor.md)"


def test_lists_get_their_blank_line(site: ModuleType) -> None:
    """A list after a paragraph is set off, one within a fence is left alone."""
    assert site.spaced("a\n- b\n- c\n") == "a\n\n- b\n- c\n"
    assert site.spaced("```\na\n- b\n```\n") == "```\na\n- b\n```\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as mkdocs --strict builds it: no dead link, no page without a place in the navigation."""
    pytest.importorskip("mkdocs", reason="the docs group is not installed")
    pytest.importorskip("material", reason="the docs group is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_builds(built: Path) -> None:
    """It has its pages, and none of them loads anything from elsewhere."""
    pages = sorted(built.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]+)\"", page.read_text())
        assert loaded == [], f"{page.name} loads {loaded}"


@pytest.mark.needs_debian("chromium", "chromedriver")
def test_search_works_from_a_folder(built: Path, tmp_path: Path) -> None:
    """Opened from disk, the search finds a strategy's page, and its link leads there."""
    from selenium.webdriver.support.ui import WebDriverWait

    with chromium(tmp_path) as driver:
        driver.get((built / "reference/cli.html").as_uri())
        driver.find_element("css selector", "input[name=query]").send_keys("pmdcache_rcu")
        found = WebDriverWait(driver, 60).until(
            lambda d: d.execute_script(
                "return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
            )
        )
        assert found[0].startswith((built / "strategies").as_uri())
        assert Path(found[0].partition("?")[0].partition("#")[0].removeprefix("file://")).is_file()
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
