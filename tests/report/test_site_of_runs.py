"""`benchframe site`: one page over runs and bundles, escaped, with nothing loaded."""

import re
from pathlib import Path

import pytest
from support.browser import chromium
from support.runs import HOST, made, noise
from typer.testing import CliRunner, Result

from benchframe.cli import app
from benchframe.report.bundle import pack
from benchframe.report.write import asset, content_hash

CELLS = {"base": {"lookup": noise(10, 5, 1)}, "mine": {"lookup": noise(8, 5, 2), "fault": noise(30, 5, 3)}}


def call(*arguments: object) -> Result:
    """benchframe with these arguments."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_runs_and_bundles_on_one_page(tmp_path: Path) -> None:
    """A row per figure of each; names are escaped; the bundle is linked, the broken run told; nothing is loaded."""
    made(tmp_path / "20261101-a", CELLS)
    evil = "</script><img src=x onerror=alert(1)>"
    other = made(tmp_path / "elsewhere" / "b", CELLS, host={**HOST, "cpu": evil}, created="2026-11-30T10:00:00+00:00")
    (tmp_path / "of others").mkdir()
    pack(other, tmp_path / "of others" / "theirs.zip")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("[]")
    done = call("site", tmp_path / "20261101-a", tmp_path / "of others", tmp_path / "broken", "-o", tmp_path / "p.html")
    assert done.exit_code == 0, done.output
    assert "6 figures of 2 runs" in done.output
    assert "left out" in done.output
    page = (tmp_path / "p.html").read_text()
    assert page.count("<tr>") == 1 + 6
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert 'href="./of%20others/theirs.zip"' in page
    assert page.count("<script>") == 1
    assert not re.search(r"(?:src|href)=\"(?!\./of%20others/theirs)", page)
    for name in ("site.css", "site.js"):
        assert asset(name) in page
        assert content_hash(asset(name)) in page
    options = re.findall(r"<option>([^<]*)</option>", page)
    assert options[:2] == ["base", "mine"]
    assert 'data-sort="' in page


@pytest.mark.needs_debian("chromium", "chromedriver")
def test_a_browser_filters_and_sorts(tmp_path: Path) -> None:
    """A choice, a search and a date hide rows; a heading sorts by number, both ways; no error, no request."""
    made(tmp_path / "20261101-a", CELLS, created="2026-11-01T10:00:00+00:00")
    made(tmp_path / "20261102-b", CELLS, created="2026-11-02T10:00:00+00:00")
    assert call("site", tmp_path).exit_code == 0
    with chromium(tmp_path / "profile") as driver:
        driver.get(f"file://{tmp_path / 'index.html'}")

        def shown() -> list[str]:
            rows = "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden)"
            found: list[str] = driver.execute_script(f"return {rows}.map(r => r.cells[5].textContent)")
            return found

        def put(selector: str, value: str) -> None:
            change = "e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
            driver.execute_script(f"const e = document.querySelector(arguments[0]); {change}", selector, value)

        assert len(shown()) == 6
        put("#since", "2026-11-02")
        assert len(shown()) == 3
        put("select", "mine")
        assert len(shown()) == 2
        put("#search", "fault")
        assert len(shown()) == 1
        for selector in ("#since", "select", "#search"):
            put(selector, "")
        for sign in (1, -1):
            driver.find_elements("tag name", "th")[5].click()
            numbers = [sign * float(text) for text in shown()]
            assert len(numbers) == 6
            assert numbers == sorted(numbers)
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert not [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.parametrize(
    ("place", "words"), [("empty", "no run or bundle with a figure"), ("nowhere", "no such folder")]
)
def test_nothing_to_show(place: str, words: str, tmp_path: Path) -> None:
    """Exit code 2, and no page."""
    (tmp_path / "empty").mkdir()
    done = call("site", tmp_path / place, "-o", tmp_path / "p.html")
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "p.html").exists()
