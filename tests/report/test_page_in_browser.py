"""The report's page in headless Chromium: no error, sorting, filtering, tooltips, keyboard, dark colours, a phone.

What a person sees is checked by looking at it; these tests hold what was seen to work.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium
from support.report_run import STRATEGIES, WORKLOADS, a_study, made_up

from benchframe.report.write import page

EVIL = "<script>document.title = 'owned'</script>"
pytestmark = pytest.mark.needs_debian("chromium", "chromedriver")


class Page:
    """The page in a browser, with what the tests ask it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, width: int = 1280, *, dark: bool = False) -> None:
        """Load the page anew at a window's width and in the system's colours."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(self.url)

    def js(self, code: str, *arguments: object) -> Any:
        """What ``code`` returns in the page."""
        return self.driver.execute_script(code, *arguments)

    def one(self, selector: str) -> Any:
        """The first element that fits."""
        return self.driver.find_element("css selector", selector)

    def column(self, number: int, table: str = "latency-table") -> list[str]:
        """Texts of a column's visible cells, from top to bottom."""
        code = (
            "return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(r => !r.hidden)"
            ".map(r => r.cells[arguments[1]].textContent)"
        )
        found: list[str] = self.js(code, table, number)
        return found

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def errors(self) -> list[str]:
        """What the console has said since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests, with a profile of its own."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def report(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The made-up run's page, opened from disk."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = made_up((*STRATEGIES, EVIL), failed=(), crews=(1, 2), studies=[a_study(EVIL)])
    path.write_text(page(run), encoding="utf-8")
    return Page(browser, path.as_uri())


def test_no_error_and_no_request(report: Page) -> None:
    """The console stays empty, a hostile name runs nothing, and the page's own file is all that is asked for."""
    import json

    report.driver.get_log("performance")
    report.open()
    assert report.errors() == []
    assert report.driver.title == "20260101-000000-made-up - benchframe report"
    assert EVIL in report.column(1)
    events = [json.loads(entry["message"])["message"] for entry in report.driver.get_log("performance")]
    # Not what the browser asks for its own pages.
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = {
        one["request"]["url"] for one in sent if one["documentURL"].startswith("file:")
    }  # not the browser's own pages
    own = {url for url in asked if url.startswith("chrome://resources/")}  # the browser draws its controls with these
    assert asked - own <= {report.url}


def test_the_policy_holds(report: Page) -> None:
    """A script or an image that got into the page all the same would not run, nor be asked for."""
    report.open()
    report.js(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\";"
        "document.body.append(s);"
        "const i = new Image(); i.src = 'https://example.org/x.png'; document.body.append(i);"
    )
    assert report.driver.title != "owned"
    messages = "\n".join(report.errors())
    assert "script-src" in messages
    assert "Refused" in messages or "violates" in messages


def test_sorting_with_the_mouse(report: Page) -> None:
    """A head sorts numbers by value: up, down, then the order of the run. aria-sort tells; empty cells come last."""
    report.open()
    before = report.column(1)
    head = report.one("#latency-table th:nth-child(3) button")
    head.click()
    values = [float(text.split(" ")[0]) for text in report.column(2)]
    assert values == sorted(values)
    assert report.one("#latency-table th:nth-child(3)").get_attribute("aria-sort") == "ascending"
    head.click()
    values = [float(text.split(" ")[0]) for text in report.column(2)]
    assert values == sorted(values, reverse=True)
    head.click()
    assert report.column(1) == before
    assert report.one("#latency-table th:nth-child(3)").get_attribute("aria-sort") is None
    ratio = report.one("#latency-table th:nth-child(4) button")
    for _ in range(2):
        ratio.click()
        texts = report.column(3)
        assert all(texts[: -len(WORKLOADS)])
        assert not any(texts[-len(WORKLOADS) :])


def test_filtering(report: Page) -> None:
    """Words narrow the table in any order, the list of workloads too; the count says so; Escape shows all again."""
    report.open()
    words = report.one("#latency .words")
    words.send_keys("maple json")
    assert set(report.column(1)) == {"maple"}
    assert set(report.column(0)) == {"python-json"}
    total = len(WORKLOADS) * (len(STRATEGIES) + 1)
    assert report.one("#latency .count").text == f"1 of {total} rows"
    words.send_keys("\ue00c")
    assert len(report.column(1)) == total
    report.js(
        "const p = document.querySelector('#latency .pick'); p.value = arguments[0];"
        "p.dispatchEvent(new Event('change'))",
        WORKLOADS[1],
    )
    assert set(report.column(0)) == {WORKLOADS[1]}


def test_keyboard_alone(report: Page) -> None:
    """Enter on a focused head sorts; in a panel arrow keys go through the marks and say them; Escape closes."""
    report.open()
    report.js("document.querySelector('#latency-table th:nth-child(2) button').focus()")
    report.keys("\ue007")
    assert report.column(1) == sorted(report.column(1), key=str.lower)
    report.js("document.querySelector('#sweep .panel').focus()")
    report.keys("\ue014")
    assert report.one("#tip").is_displayed()
    first = report.js("return document.getElementById('live').textContent")
    report.keys("\ue015")
    second = report.js("return document.getElementById('live').textContent")
    assert first != second
    assert "ns/lookup" in first
    assert report.one("#tip b").text in second
    report.keys("\ue00c")
    assert not report.one("#tip").is_displayed()


def test_every_control_can_be_reached(report: Page) -> None:
    """Nothing that can be pressed is left out of the order of the Tab key, and each has a name."""
    report.open()
    left = report.js(
        "return [...document.querySelectorAll('button, a, input, select, summary, .panel, .scroll')].filter(e =>"
        " e.tabIndex < 0 || !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label'))).length"
    )
    assert left == 0


def test_tooltip_of_a_mark(report: Page) -> None:
    """Pointing at a mark shows what it stands for, within the window; a hostile name is text there too."""
    from selenium.webdriver import ActionChains

    report.open()
    for number in (0, 3):
        mark = report.driver.find_elements("css selector", "#lookup .panel:first-child .m[aria-label]")[number]
        report.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
        ActionChains(report.driver).move_to_element(mark).perform()
        tip = report.one("#tip")
        assert tip.is_displayed()
        label = mark.get_attribute("aria-label")
        assert report.one("#tip b").text == label.partition(": ")[0]
        assert "ns/lookup" in tip.text
        box = report.js(
            "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]", tip
        )
        assert box[0] >= 0 <= box[1]
        assert box[2] <= 1280
        assert box[3] <= 900
    assert report.driver.title != "owned"


def test_threads_and_studies(report: Page) -> None:
    """The table by threads sorts by its numbers, a verdict has its colour, and the marks of a study say what they are
    by keyboard, though they belong to no strategy."""
    report.open()
    report.one("#scaling-table th:nth-child(5) button").click()
    rates = [float(text.split()[0]) for text in report.column(4, "scaling-table")]
    assert rates == sorted(rates)
    assert len(rates) == 2 * (len(STRATEGIES) + 1)
    assert report.one("#scaling-table td.faster").text.endswith("] faster")
    report.js("document.querySelector('#studies .panel').focus()")
    report.keys("\ue014")
    assert report.one("#tip b").text == f"VMAs {EVIL} 10"
    assert "1.200 [1.100, 1.300]" in report.one("#tip").text
    assert report.driver.title != "owned"


def test_emphasis(report: Page) -> None:
    """A strategy's button dims the marks of all others in all charts; `all` ends it."""
    report.open()
    opacity = "return [...document.querySelectorAll('#sweep .m')].map(m => [m.dataset.s, getComputedStyle(m).opacity])"
    report.one("#chips button[data-s='1']").click()
    seen = dict(report.js(opacity))
    assert seen["1"] == "1"
    assert float(seen["0"]) < 0.5
    assert report.one("#chips button[data-s='1']").get_attribute("aria-pressed") == "true"
    report.one("#chips .none").click()
    assert {value for _, value in report.js(opacity)} == {"1"}


def test_dark_and_light(report: Page) -> None:
    """The page takes the system's colours, text and charts readable in both; the button overrides them."""
    style = "const s = getComputedStyle(arguments[0]); return [s.backgroundColor, s.color, s.fill]"

    def looks() -> tuple[list[str], list[str]]:
        return report.js(style, report.one("body")), report.js(style, report.one("#sweep svg text"))

    report.open()
    light, light_text = looks()
    report.open(dark=True)
    dark, dark_text = looks()
    for (back, ink, _), (_, _, fill) in ((light, light_text), (dark, dark_text)):
        assert contrast(back, ink) > 7
        assert contrast(back, fill) > 4.5
    assert luminance(dark[0]) < 0.05 < luminance(light[0])
    report.one("#theme").click()
    assert looks()[0] == light
    report.one("#theme").click()
    assert looks()[0] == dark


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2) of two colours."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_windows(report: Page, width: int) -> None:
    """On a phone nothing sticks out of the page: tables and wide charts scroll within their own frames."""
    report.open(width)
    assert report.js("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0
    assert (
        report.js(
            "return Math.max(...[...document.querySelectorAll('.panel')].map(p => p.getBoundingClientRect().right))"
        )
        <= width
    )


def test_it_reads_without_script(report: Page, tmp_path: Path) -> None:
    """Without JavaScript the tables, charts and sources are all there."""
    text = page(made_up())
    begin, end = text.rindex("<script>"), text.rindex("</script>")
    path = tmp_path / "silent.html"
    path.write_text(text[:begin] + text[end + len("</script>") :], encoding="utf-8")
    report.open()
    report.driver.get(path.as_uri())
    assert len(report.column(1)) == len(WORKLOADS) * len(STRATEGIES)
    assert report.js("return document.querySelectorAll('svg .m').length") > 50
    assert report.one("#sweep svg").is_displayed()
