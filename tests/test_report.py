"""Reports of made-up runs in every form: complete, self-contained, escaped, the same each time."""

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_kit import SOURCE, STRATEGIES, WORKLOADS, a_study, made_up

from benchframe.charts import CHARTS, PICTURES, Data, charts_of, save, to_svg
from benchframe.charts.spec import COLOURS, GRID, INK, MUTED, SHAPES, together
from benchframe.cli import app
from benchframe.engine.latency import bin_edge, histogram
from benchframe.report import FORMS, write_report
from benchframe.report.again import part_of_run
from benchframe.report.page import page
from benchframe.report.picture import inline
from benchframe.report.run import Run
from benchframe.report.write import text_of
from benchframe.results.cell import CellState, LatencyRow, read_state
from benchframe.results.errors import ResultsError
from benchframe.results.folder import RunFolder
from benchframe.results.plan import without
from benchframe.results.sources import read_sources, write_sources
from benchframe.results.studies import read_studies, write_study
from benchframe.tables.scaling import HEADS

EVIL = "<script>alert(1)</script>"
NASTY = f"{EVIL}\"'`|&#x3c;]]>--><!-- {{{{7*7}}}} {{% raw %}} \\input{{x}} $x$ =1+1 </style></textarea>"


class Reader(HTMLParser):
    """Elements with their attributes, and the text of the page without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data


@pytest.fixture(scope="module")
def plain() -> str:
    """The page of the made-up run."""
    return page(made_up())


def test_the_page_has_every_part(plain: str) -> None:
    """Table, charts whose marks speak, tails, counts, sources, trust, environment and commands are there."""
    reader = Reader(plain)
    ids = {attrs["id"] for _, attrs in reader.elements if "id" in attrs}
    assert ids >= {*CHARTS} - {"threads"} | {
        "glance",
        "latency",
        "tails",
        "counted",
        "sources",
        "trust",
        "environment",
        "again",
    }
    labels = [attrs.get("aria-label") or "" for _, attrs in reader.elements if attrs.get("class") == "m"]
    assert any(
        re.match(r"pmdcache: [\d.]+ ns/lookup \[.*6 processes; faster: 0\.\d\d \[.*\] of rbtree", text)
        for text in labels
    )
    assert any("hit rate 40.0 %" in text for text in labels)
    assert any("65,530 VMAs" in text for text in labels)
    assert any("bytes per VMA" in text for text in labels)
    assert SOURCE.strip() in reader.text
    rows = [tag for tag, _ in reader.elements].count("tr")
    assert rows > 2 * len(STRATEGIES) * len(WORKLOADS)
    for name in ids & {*CHARTS}:
        assert f"--chart {name} " in reader.text


def test_the_page_loads_nothing(plain: str) -> None:
    """No element refers to anything outside the page, and its policy forbids what none does."""
    policy = next(
        a["content"] or "" for tag, a in Reader(plain).elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attrs in Reader(plain).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "audio", "video")
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "style", "action", "xlink:href", "data", "poster"), (tag, name)
            if name == "href":
                assert (value or "").startswith("#")
    assert "http://" not in plain
    assert "https://" not in plain
    assert "url(" not in plain


def test_the_page_is_small_and_the_same_each_time(plain: str) -> None:
    """Two renderings are equal byte for byte; 15 cells take some hundred kilobytes."""
    assert page(made_up()) == plain
    assert len(plain.encode()) < 500_000


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
    run = made_up(("rbtree", "b"), ("w" + long, "v"), name="long", text=long, crews=(2,), studies=[a_study(long)])
    text = text_of(run, form)
    assert len(text) < 3_000_000
    if form == "mail":
        assert max(map(len, text.splitlines())) <= 72


def test_one_report_with_and_without_threads() -> None:
    """Cells of one replay fill the latency table, cells with threads the one by threads; neither is in the other's."""
    run = made_up(crews=(1, 2), studies=[a_study()])
    reader = Reader(page(run))
    ids = {attrs["id"] for _, attrs in reader.elements if "id" in attrs}
    assert ids >= {"latency", "scaling", "threads", "studies", "breakeven-rbtree-maple"}
    assert not [row for row in run.latency.rows if "@" in row[0]]
    assert {row[0] for row in run.scaling.rows} == {"multi-fault-all-split"}
    assert "with 1 and 2 threads" in reader.text
    assert "multi-fault-all-split, 2 threads" in reader.text
    assert "Made on another machine: elsewhere." in reader.text
    assert any(
        attrs.get("aria-label", "").startswith("VMAs nothing 10: maple / rbtree 1.2")
        for _, attrs in reader.elements
        if attrs.get("class") == "m"
    )
    words = {row[HEADS.index("to baseline [95 %]")].rpartition(" ")[2] for row in run.scaling.rows}
    assert "faster" in words
    text = text_of(run, "markdown")
    assert "## Latency" in text
    assert "## By threads" in text
    assert "## Where maple beats rbtree" in text
    mail_ = text_of(run, "mail")
    assert "ns/lookup" in mail_
    assert "multi-fault-all-split: faults, 6 processes" in mail_


def test_a_report_of_threads_alone(tmp_path: Path) -> None:
    """A run that has threaded cells only: no latency table, no empty section, and files of the other table."""
    run = made_up(workloads=(), crews=(1, 2))
    reader = Reader(page(run))
    ids = {attrs["id"] for _, attrs in reader.elements if "id" in attrs}
    assert ids >= {"scaling", "threads", "tails"}
    assert not ids & {"latency", "counted", "heat", "lookup", "studies"}
    assert "Nothing to compare" not in reader.text
    folder = on_disk(tmp_path / "run", replace(run, sources={}))
    names = {path.name for path in write_report(folder, tmp_path / "out", ("html", "csv", "latex", "mail"))}
    assert names == {"report.html", "threads.csv", "threads.tex", "mail.txt"}
    assert "## Latency" not in text_of(run, "markdown")


def test_studies_on_disk(tmp_path: Path) -> None:
    """A study survives the file; one of the same title takes its place; a damaged one is refused by file and member."""
    assert read_studies(tmp_path) == ()
    study = a_study()
    path = write_study(tmp_path, study)
    assert write_study(tmp_path, study) == path
    (read,) = read_studies(tmp_path)
    assert replace(read, created="", hostname="elsewhere") == study
    assert read.created
    for member, bad in (("kind", "run"), ("rows", [["one"]]), ("right", [1, 2]), ("heads", "x"), ("version", 2)):
        data = {**json.loads(path.read_text()), member: bad}
        (tmp_path / "bad/studies").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad/studies/x.json").write_text(json.dumps(data))
        with pytest.raises(ResultsError, match=member):
            read_studies(tmp_path / "bad")
    curve = {**json.loads(path.read_text())["curves"][0], "points": [{"value": -1, "low": 1, "high": 2, "x": 1}]}
    (tmp_path / "bad/studies/x.json").write_text(json.dumps({**json.loads(path.read_text()), "curves": [curve]}))
    with pytest.raises(ResultsError, match="points"):
        read_studies(tmp_path / "bad")


def test_the_mail_says_where_and_how() -> None:
    """Machine, kernel, versions, processes and noise stand above the figures; the command below is what a shell reads
    as the run's own words, however long they are."""
    run = made_up(crews=(1, 2), text="busy")
    words = ("benchframe", "run", "-s", ",".join(f"strategy_{i}" for i in range(40)), "--skip", "it's a 'long' " * 9)
    run = replace(run, manifest=replace(run.manifest, command=words))
    text = text_of(run, "mail")
    for part in ("busy, 2 CPUs, Linux 6.1", "CPython 3.11.7, numba 0.68.1; 2026-01-01; 6 processes", "Noise: busy."):
        assert part in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 72
    command = text[text.index("\n$ ") + 3 :]
    assert shlex.split(command.replace("\\\n", "")) == [*words, "--seed", "7"]


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


def test_colours_of_charts_have_a_dark_twin() -> None:
    """Every colour that charts use for text, axes and strategies is mapped by the page's style, light and dark."""
    style = (Path(__file__).parent.parent / "benchframe/report/assets/report.css").read_text()
    for colour in (*COLOURS, INK, MUTED):
        assert f'[fill="{colour}"]' in style
    assert f'[stroke="{GRID}"]' in style
    assert style.count("--c10:") == 3
    assert len(set(COLOURS)) == len(COLOURS)
    assert len({(COLOURS[i % 11], SHAPES[i % 7]) for i in range(77)}) == 77


def test_verdicts_of_a_failed_strategy(plain: str) -> None:
    """A strategy that answered wrongly has a row with its state and the reason, and no time in any chart."""
    reader = Reader(page(made_up(failed=["maple"])))
    assert "find_vma(0x1000) gave NIL" in reader.text
    assert f"{len(WORKLOADS)} of {len(WORKLOADS) * len(STRATEGIES)} cells have no figures" in reader.text
    assert "cells have no figures" not in plain
    labels = [attrs.get("aria-label") or "" for _, attrs in reader.elements if attrs.get("class") == "m"]
    assert labels
    assert not [label for label in labels if label.startswith("maple:")]


def test_a_run_of_baselines_alone() -> None:
    """One strategy on one workload: a report without comparisons, and without charts that compare."""
    run = made_up(("rbtree",), ("w",))
    assert {chart.name for chart in run.charts} == {"lookup", "distribution", "cost"}
    assert "Nothing to compare" in page(run)
    assert "Nothing to compare" in text_of(run, "markdown")


def test_one_process_has_no_interval() -> None:
    """A run of one round is drawn and written without intervals."""
    text = page(made_up(rounds=1))
    assert "[-]" in text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", Reader(text).text.lower())


def test_figures_say_commands_that_run() -> None:
    """The command below a figure is one that `benchframe run` understands: options exist, words survive the shell."""
    run = made_up(("rbtree", "pmd cache"), ("a b", "zipf:vmas=9"))
    command = shlex.split(part_of_run(run.manifest, ["a b", "zipf:vmas=9"], ["rbtree", "pmd cache"]))
    assert command[:6] == ["benchframe", "run", "--strategy", "rbtree,pmd cache", "--workload", "a b,zipf:vmas=9"]
    known = {option for parameter in _command("run").params for option in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known
    traced = replace(run.manifest.workloads[0], spec="", path="/tmp/my trace.parquet", seed=5)
    manifest = replace(run.manifest, workloads=(traced,), plugins=("/tmp/p.py",))
    command = shlex.split(part_of_run(manifest, ["a b"], ["rbtree"]))
    assert command[command.index("--trace") + 1] == "/tmp/my trace.parquet"
    assert command[command.index("--plugin") + 1] == "/tmp/p.py"
    assert "--workload" not in command


def _command(name: str):  # type: ignore[no-untyped-def]
    from typer.main import get_command

    return get_command(app).commands[name]  # type: ignore[attr-defined]


def on_disk(path: Path, run: Run) -> RunFolder:
    """The made-up run as a folder."""
    folder = RunFolder.create(path, run.manifest)
    write_sources(path, run.sources)
    for cell in run.cells:
        cell.state.write(folder.state_path(cell.entry))
        runs = {
            name: [
                {"metadata": {"benchframe_round": p.round, **p.metadata}, "values": [v * 1e-9 for v in p.values]}
                for p in processes
            ]
            for name, processes in cell.figures.items()
        }
        benches = [{"metadata": {"name": name, "inner_loops": 100}, "runs": found} for name, found in runs.items()]
        folder.suite_path(cell.entry).write_text(json.dumps({"version": "1.0", "benchmarks": benches}))
    return folder


def test_all_files_of_a_report(tmp_path: Path) -> None:
    """`write_report` makes every form from a folder, each of its kind; a second report of it is the same."""
    run = made_up(workloads=WORKLOADS[2:])
    folder = on_disk(
        tmp_path / "run", replace(run, sources={n: replace(s, text=SOURCE) for n, s in run.sources.items()})
    )
    written = write_report(folder, tmp_path / "out")
    names = {str(path.relative_to(tmp_path / "out")) for path in written}
    assert names >= {
        "report.html",
        "report.md",
        "mail.txt",
        "table.csv",
        "table.tex",
        *(f"charts/sweep.{p}" for p in PICTURES),
    }
    kinds = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!doctype html>"}
    for path in written:
        assert path.read_bytes().startswith(kinds.get(path.suffix[1:], b"")), path
    again = write_report(folder, tmp_path / "again", ("html", "svg"), ("sweep",))
    assert [path.name for path in again] == ["report.html", "sweep.svg"]
    assert again[1].read_bytes() == (tmp_path / "out/charts/sweep.svg").read_bytes()
    with pytest.raises(ResultsError, match=r"no chart is called 'sweeps'.*there are heat"):
        write_report(folder, tmp_path / "out", ("html",), ("sweeps",))
    with pytest.raises(ResultsError, match="no format is called 'htm'"):
        write_report(folder, tmp_path / "out", ("htm",))
    assert set(FORMS) >= set(PICTURES)


def test_pictures_show_what_the_page_shows(tmp_path: Path) -> None:
    """An exported chart has a title per panel and a legend where marks have no names beside them."""
    (chart,) = charts_of(made_up().cells, ["distribution"])
    (path,) = save([chart], tmp_path, ["svg"])
    text = path.read_text()
    for word in ("python-json: lookups", "the tail", "pmdcache", "1 in 1,000"):
        assert word in text


def test_sweeps_are_told_from_single_workloads() -> None:
    """Workloads that differ in vmas= alone are one family; what is no sweep keeps a panel of its own."""
    data = Data(made_up().cells)
    assert [family.name for family in data.families] == ["uniform"]
    assert list(data.families[0].sizes) == [6, 500, 65530]
    assert data.single == ["python-json", "zipf:vmas=1000,alpha=1.2"]


def test_histogram_bins() -> None:
    """A bin's upper edge is not below its times and at most 9.1 % above them; counts add up."""
    import numpy as np

    times = np.random.default_rng(3).lognormal(4, 2, 5000)
    bins = histogram(times)
    assert sum(count for _, count in bins) == len(times)
    for time in times[times > 1][:500]:
        ((number, _),) = histogram(np.array([time]))
        assert time <= bin_edge(number) * (1 + 1e-9) < time * 1.0906


def test_histograms_on_disk(tmp_path: Path) -> None:
    """A cell's histogram survives the file as one line; a damaged one is refused with the member's name."""
    path = tmp_path / "x.state.json"
    row = LatencyRow("lookup", "all", 10, 1.0, 2.0, 3.0, 4.0, 5.0, ((0, 4), (8, 6)))
    CellState("ok", "", latencies=(row,)).write(path)
    assert '"bins": "0:4 8:6"' in path.read_text()
    assert read_state(path).latencies == (row,)
    for bad in ("8:6 0:4", "1:2 ", "a:1", "1:", "1:2,3:4", "1:99999999999999999999"):
        path.write_text(path.read_text().replace("0:4 8:6", bad))
        with pytest.raises(ResultsError, match="bins"):
            read_state(path)
        path.write_text(path.read_text().replace(bad, "0:4 8:6"))


def test_sources_on_disk(tmp_path: Path) -> None:
    """Sources are kept once per text; a text that was edited afterwards is refused, a run without the file has none."""
    assert read_sources(tmp_path) == {}
    run = made_up()
    sources = {name: replace(source, text=SOURCE) for name, source in run.sources.items()}
    write_sources(tmp_path, sources)
    assert read_sources(tmp_path) == sources
    path = tmp_path / "sources.json"
    assert path.read_text().count("def find") == 1
    path.write_text(path.read_text().replace("def find", "def evil"))
    with pytest.raises(ResultsError, match="has another digest: it was edited"):
        read_sources(tmp_path)


def test_skipped_cells() -> None:
    """`without` leaves out the cells that a pattern names but never a baseline; the command of a figure says so."""
    manifest = made_up().manifest
    left = without(manifest, ["maple@uniform:*", "*@zipf:vmas=1000,alpha=1.2"])
    pairs = {(cell.strategy, cell.workload) for cell in left.cells}
    assert ("maple", "uniform:vmas=6") not in pairs
    assert ("maple", "python-json") in pairs
    assert ("rbtree", "zipf:vmas=1000,alpha=1.2") in pairs
    assert len(pairs) == 15 - 3 - 2
    command = shlex.split(part_of_run(left, ["python-json", "uniform:vmas=6"], STRATEGIES))
    assert command[-2:] == ["--skip", "maple@uniform:vmas=6"]
    for pattern in ("maple", "nobody@*", "rbtree@*"):
        with pytest.raises(ResultsError, match="no cell of this run is called so"):
            without(manifest, [pattern])


def test_runs_with_threads() -> None:
    """Cells of one workload with one and two threads give a scaling chart, a table, and a command with --threads."""
    one, two = (made_up(("rbtree", "pmdcache"), (f"ebizzy@{n}",)) for n in (1, 2))
    cells = []
    for threads, run in ((1, one), (2, two)):
        for cell in run.cells:
            rates = ",".join(["1000000"] * threads)
            figures = {
                "fault": [
                    replace(p, values=tuple(v / threads for v in p.values), metadata={"benchframe_thread_rates": rates})
                    for p in cell.figures["fault"]
                ]
            }
            crew = {
                "threads": threads,
                "cores": 1,
                "ordered": 0,
                "address_spaces": 1,
                "histograms": {"lookup": [(20.0, 900), (40.0, 100)]},
            }
            latencies = tuple(replace(row, bins=()) for row in cell.state.latencies)
            state = replace(cell.state, threads=crew, latencies=latencies)
            cells.append(
                replace(
                    cell, workload=replace(cell.workload, spec="ebizzy", threads=threads), state=state, figures=figures
                )
            )
    workloads = tuple(dict.fromkeys(cell.workload for cell in cells))
    manifest = replace(one.manifest, workloads=workloads, cells=tuple(cell.entry for cell in cells))
    run = replace(one, manifest=manifest, cells=tuple(cells))
    (chart,) = [chart for chart in run.charts if chart.name == "threads"]
    assert [panel.title for panel in chart.panels] == ["ebizzy: faults per second", "ebizzy: speed-up"]
    labels = [attrs.get("aria-label") or "" for _, attrs in Reader(page(run)).elements if attrs.get("class") == "m"]
    assert any(
        re.search(r"rbtree: [\d.]+ M faults per second with 2 threads; 2\.\d\d \[.*\] times as many as with 1", t)
        for t in labels
    )
    assert "By threads" in text_of(run, "markdown")
    assert "Nothing to compare" not in text_of(run, "markdown")
    assert any("pmdcache: 90.0 % of 1,000 within 20.7 ns" in text for text in labels)
    command = shlex.split(part_of_run(manifest, chart.workloads, chart.strategies))
    assert command[command.index("--threads") + 1] == "1,2"
    assert command[command.index("--workload") + 1] == "ebizzy"


def test_a_run_names_no_folder_of_its_user(tmp_path: Path) -> None:
    """The path of Python and its build flags, which pyperf notes, do not get into a run that may be given to anyone."""
    run = made_up(("rbtree",), ("w",))
    folder = RunFolder.create(tmp_path / "run", run.manifest)
    metadata = {"name": "lookup", "unit": "second", "python_executable": "/home/me/python", "python_version": "3.11"}
    runs = [{"metadata": {"python_cflags": "-I/home/me", "benchframe_round": r}, "values": [1e-8]} for r in (0, 1)]
    for one in runs:
        suite = {"version": "1.0", "metadata": metadata, "benchmarks": [{"runs": [one]}]}
        folder.add_suite(run.manifest.cells[0], suite)
    text = folder.suite_path(run.manifest.cells[0]).read_text()
    assert "/home/me" not in text
    assert "3.11" in text
    assert [process.round for process in folder.cells()[0].figures["lookup"]] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chart", "sweeps"], "--chart: no chart is called 'sweeps'; there are heat, "),
        (["--format", "html,word"], "--format: no format is called 'word'; there are html, "),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    """A chart or a form that does not exist: exit code 2, what there is, and no file."""
    from typer.testing import CliRunner

    on_disk(tmp_path / "run", made_up(("rbtree",), ("w",)))
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-o", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"benchframe: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_reference_report_is_of_its_results() -> None:
    """The run in reports/reference can be read, every cell of it is sound, and the report beside it is of that run."""
    root = Path(__file__).resolve().parent.parent
    folder = RunFolder.open(root / "reports" / "reference")
    run = Run.read(folder)
    assert {cell.state.state for cell in run.cells} == {"ok"}
    assert [list(family.sizes) for family in run.data.families] == [[6, 50, 500, 5000, 65530]]
    assert set(run.sources) == set(run.data.strategies)
    text = (folder.path / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 2_500_000
    assert folder.manifest.finished[:10] in text
    assert max(map(len, (folder.path / "mail.txt").read_text().splitlines())) <= 72
    assert (root / "docs" / "sweep.png").stat().st_size < 300_000
    for path in folder.path.rglob("*"):
        assert path.is_dir() or "/home/" not in path.read_text(errors="replace")


def test_names_beside_marks_cover_nothing() -> None:
    """Names are placed where neither a mark nor another name is; the one for which there is no room is left out."""
    from benchframe.charts.labels import CHARACTER, LINE, place

    marks = [(100.0, 100.0, 6.0), (108.0, 101.0, 6.0), (180.0, 40.0, 6.0), (30.0, 100.0, 6.0)]
    spots = place([(x, y, "a_strategy") for x, y, _ in marks], marks, 200, 200)
    boxes = [(s[0], s[1] - LINE / 2, s[0] + 10 * CHARACTER, s[1] + LINE / 2) for s in spots if s is not None]
    assert len(boxes) == 4
    boxes += [(x - r, y - r, x + r, y + r) for x, y, r in marks]
    for i, one in enumerate(boxes[:4]):
        for other in boxes[i + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert place([(5, 5, "far_too_long_for_it")], [], 20, 20) == [None]


def test_an_outlier_squeezes_no_chart() -> None:
    """Where one strategy takes many times as long the axis of times is logarithmic, and no interval leaves an axis."""
    run = made_up(("rbtree", *(f"s{i}" for i in range(12))), ("w",), rounds=2)
    assert "ns per lookup (log)" in page(run)
    assert "ns per lookup (log)" not in page(made_up(("rbtree", "b"), ("w",))).partition('id="pareto"')[0]
    (chart,) = charts_of(run.data, ["ratios"])
    low, high = chart.panels[0].spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    for record in chart.panels[0].spec["data"]["values"]:
        assert low <= record["low"] <= record["ratio"] <= record["high"] <= high


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
