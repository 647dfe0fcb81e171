"""Reports of runs whose names and notes are made to break out: in every form they are text."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.report_run import EVIL, Reader, a_study, made_up, on_disk

from benchframe.report import FORMS, write_report
from benchframe.report.charts import charts_of, to_svg
from benchframe.report.charts.spec import together
from benchframe.report.write import inline, page, text_of
from benchframe.results.folder import RunFolder
from benchframe.results.studies import write_study

NASTY = f"{EVIL}\"'`|&#x3c;]]>--><!-- {{{{7*7}}}} {{% raw %}} \\input{{x}} $x$ =1+1 </style></textarea>"


def test_hostile_text_is_text() -> None:
    """Names and notes made to break out of HTML, attributes, templates and SVG show as they are."""
    run = made_up(
        ("rbtree", NASTY, "x: y"),
        (f"w{NASTY}", "uniform:vmas=6"),
        name=NASTY,
        failed=["x: y"],
        text=NASTY,
        crews=(1, 2),
        studies=[a_study(NASTY)],
    )
    harmless = made_up(("rbtree", "b", "c"), ("w", "uniform:vmas=6"), failed=["c"], crews=(1, 2), studies=[a_study()])
    reader, twin = Reader(page(run)), Reader(page(harmless))
    tags, expected = ({tag for tag, _ in r.elements} for r in (reader, twin))
    assert tags == expected
    assert [tag for tag, _ in reader.elements].count("script") == 1
    assert {name for _, attrs in reader.elements for name in attrs} == {name for _, a in twin.elements for name in a}
    assert NASTY in reader.text
    assert "{{7*7}}" in reader.text
    assert any((attrs.get("aria-label") or "").startswith(f"{NASTY}: ") for _, attrs in reader.elements)


def test_hostile_text_in_markdown_latex_csv_and_mail() -> None:
    """The same names in the other forms: no raw tag, no unescaped LaTeX, no formula, plain ASCII of 72 columns."""
    text = "`x` \\def\\x{} &lt;b&gt; " + EVIL
    names, loads = ("rbtree", EVIL, "=1+1"), ("a|b", "@SUM(A1)")
    run = made_up(names, loads, text=text, crews=(1, 2), studies=[a_study(text)])
    markdown = text_of(run, "markdown", ("svg",))
    outside = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script", outside)
    assert not re.search(r"(?<!\\)&lt;b", outside)
    assert "a\\|b" in outside
    assert "![Time per lookup, and hit rate beside it](charts/lookup.svg)" in markdown
    assert markdown.count("```") % 2 == 0
    latex = "\n".join(line for line in text_of(run, "latex").splitlines() if not line.startswith("%"))
    assert r"\textless{}script\textgreater{}" in latex
    assert "<script" not in latex
    records = list(csv.DictReader(io.StringIO(text_of(run, "csv"))))
    assert {record["strategy"] for record in records} == {"rbtree", EVIL, "'=1+1"}
    assert {record["workload"] for record in records} == {"a|b", "'@SUM(A1)"}
    mail = text_of(run, "mail")
    assert mail.isascii()
    assert max(map(len, mail.splitlines())) <= 72


@pytest.mark.parametrize("form", ["html", "markdown", "mail", "csv", "latex"])
def test_names_as_long_as_a_file_may_hold(form: str) -> None:
    """10 000 characters, quotes, line ends and marks that turn the direction of text: every form is made, and the
    page does not grow beyond a few times the text."""
    long = "\"'\n\r\t\u202e" + "x" * 10_000
    run = made_up(("rbtree", "b"), ("w" + long,), name="long", text=long, studies=[a_study(long)])
    text = text_of(run, form)
    assert len(text) < 3_000_000
    if form == "mail":
        assert max(map(len, text.splitlines())) <= 72


def test_charts_escape_names() -> None:
    """A hostile name is text in every SVG: the file is well-formed, with the elements of a harmless one."""
    import xml.etree.ElementTree as ET

    for chart in charts_of(made_up(("rbtree", EVIL, "]]>&"), failed=()).cells):
        root = ET.fromstring(to_svg(together(chart)))
        assert {node.tag.rpartition("}")[2] for node in root.iter()} <= {
            "svg",
            "g",
            "path",
            "rect",
            "line",
            "text",
            "style",
            "title",
            "desc",
        }


def test_inline_keeps_only_what_it_knows() -> None:
    """Scripts, links, handlers, foreign elements and odd values are dropped; marks and their owners are kept."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x()" width="10"><script>alert(1)</script><a href="x"><g/></a>'
        '<foreignObject><b>hi</b></foreignObject><path d="M0.123456,1" fill="url(#x)"'
        ' aria-label="rbtree: 5 ns" onclick="y"/>'
        '<path d="M1,1" aria-label="rbtree"/><path d="M2,2" aria-label="other: 5"/><text>a &lt; b</text></svg>'
    )
    clean = inline(svg, {"rbtree": 3}, 'a "title"')
    assert clean == (
        '<svg role="group" aria-label="a &quot;title&quot;" width="10">'
        '<path d="M0.1,1" data-s="3" class="m" role="img" aria-label="rbtree: 5 ns" />'
        '<path d="M1,1" data-s="3" aria-hidden="true" /><path d="M2,2" /><text>a &lt; b</text></svg>'
    )
    for text in ("<svg", "<html/>", ""):
        with pytest.raises(ValueError, match="not an SVG"):
            inline(text, {}, "")


def test_a_run_with_a_hostile_name_is_reported(tmp_path: Path) -> None:
    """A strategy called like a script is read back from its run's files, and every form of the report is written."""
    run = made_up(("rbtree", EVIL), ("w",), crews=(1, 2), studies=[a_study(EVIL)])
    folder = on_disk(tmp_path / "<b>run", replace(run, sources={}))
    write_study(folder.path, a_study(EVIL))
    written = write_report(RunFolder.open(folder.path), tmp_path / "out", [form for form in FORMS if form != "pdf"])
    page_ = (tmp_path / "out/report.html").read_text()
    assert EVIL in Reader(page_).text
    assert [tag for tag, _ in Reader(page_).elements].count("script") == 1
    for path in written:
        if path.suffix == ".svg":
            assert "<script" not in path.read_text()
