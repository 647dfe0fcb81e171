"""Reports of made-up runs: complete, self-contained, the same each time, with commands that run."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.report_run import SOURCE, STRATEGIES, WORKLOADS, Reader, a_study, made_up, on_disk
from typer.testing import CliRunner

import benchframe
from benchframe.cli import app
from benchframe.engine.job import COLD
from benchframe.engine.session import bin_edge, histogram
from benchframe.errors import ResultsError
from benchframe.report import write_report
from benchframe.report.charts import CHARTS, Data, charts_of
from benchframe.report.charts.spec import COLOURS, GRID, INK, MUTED, SHAPES
from benchframe.report.details import HEADS, disturbed_passes
from benchframe.report.mail import mail
from benchframe.report.table import latency_table, to_text, what_failed
from benchframe.report.text import failures, headline, part_of_run
from benchframe.report.write import page, text_of
from benchframe.results.campaign import without
from benchframe.results.figures import FIGURES, figures_of, rows_of
from benchframe.results.folder import Cell, CellState, LatencyRow, Process
from benchframe.results.studies import HostFigures, HostWorkload


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
        "fallbacks",
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
    assert "nearest recorded program" in reader.text
    assert reader.text.count("javac-hello, at 0.3 standard deviations") == len(WORKLOADS)
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


def test_the_running_kernel_is_in_the_report() -> None:
    """Its row is in the page's table, and page, Markdown and mail say what share of a fault the lookup is, where it is
    the largest."""
    fault = (900.0, 910.0, 890.0)
    times = [HostWorkload(label, STRATEGIES[0], fault, fault, 5, 5) for label in WORKLOADS[:2]]
    run = replace(made_up(), host=HostFigures("6.18", tuple(times)))
    reader = Reader(page(run))
    assert reader.text.count("this kernel (6.18)") == 3  # two rows and a note
    said = f"Linux 6.18, the largest share: {WORKLOADS[1]}: a lookup is "
    assert said in reader.text
    assert said.replace("_", "\\_") in text_of(run, "markdown")
    assert "the best strategy can save" in " ".join(run.mail.split())
    assert max(map(len, run.mail.splitlines())) <= 72
    assert "this kernel" not in page(made_up())


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
    assert re.search(r"ns/lookup x with 95 % interval: pmdcache 0\.\d\d \[0\.\d\d, 0\.\d\d\],", text)
    command = text[text.index("\n$ ") + 3 :]
    assert shlex.split(command.replace("\\\n", "")) == [*words, "--seed", "7"]


def test_colours_of_charts_have_a_dark_twin() -> None:
    """Every colour that charts use for text, axes and strategies is mapped by the page's style, light and dark."""
    style = (Path(__file__).resolve().parents[2] / "benchframe/report/assets/report.css").read_text()
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
    cells = tuple(cell for cell in run.manifest.cells if cell.workload == traced.label)
    manifest = replace(run.manifest, workloads=(traced,), cells=cells, plugins=("/tmp/p.py",))
    command = shlex.split(part_of_run(manifest, ["a b"], ["rbtree"]))
    assert command[command.index("--trace") + 1] == "/tmp/my trace.parquet"
    assert command[command.index("--plugin") + 1] == "/tmp/p.py"
    assert "--workload" not in command


def _command(name: str):  # type: ignore[no-untyped-def]
    from typer.main import get_command

    return get_command(app).commands[name]  # type: ignore[attr-defined]


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


def test_skipped_cells() -> None:
    """`without` leaves out the cells that a pattern names, a baseline only with all that is compared with it, and then
    the workload; the command of a figure says so."""
    manifest = made_up().manifest
    left = without(manifest, ["maple@uniform:*", "*@zipf:vmas=1000,alpha=1.2"])
    pairs = {(cell.strategy, cell.workload) for cell in left.cells}
    assert ("maple", "uniform:vmas=6") not in pairs
    assert ("maple", "python-json") in pairs
    assert ("rbtree", "uniform:vmas=6") in pairs
    assert "zipf:vmas=1000,alpha=1.2" not in {entry.label for entry in left.workloads}
    assert len(pairs) == 15 - 3 - 3
    command = shlex.split(part_of_run(left, ["python-json", "uniform:vmas=6"], STRATEGIES))
    assert command[-2:] == ["--skip", "maple@uniform:vmas=6"]
    for pattern, why in (
        ("maple", "no cell of this run"),
        ("nobody@*", "no cell of this run"),
        ("rbtree@*", "only baselines"),
        ("*@*", "no cell of this run is left"),
    ):
        with pytest.raises(ResultsError, match=why):
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
        re.search(r"rbtree: [\d.]+ M faults per second with 2 threads; speed-up 2\.\d\d \[.*\] over 1", t)
        for t in labels
    )
    assert "By threads" in text_of(run, "markdown")
    assert "Nothing to compare" not in text_of(run, "markdown")
    assert any("pmdcache: 90.0 % of 1,000 within 20.7 ns" in text for text in labels)
    command = shlex.split(part_of_run(manifest, chart.workloads, chart.strategies))
    assert command[command.index("--threads") + 1] == "1,2"
    assert command[command.index("--workload") + 1] == "ebizzy"


def test_names_beside_marks_cover_nothing() -> None:
    """Names are placed where neither a mark nor another name is; the one for which there is no room is left out."""
    from benchframe.report.charts.spec import CHARACTER, LINE, place

    marks = [(100.0, 100.0, 6.0), (108.0, 101.0, 6.0), (180.0, 40.0, 6.0), (30.0, 100.0, 6.0)]
    spots = place([(x, y, "a_strategy") for x, y, _ in marks], marks, 200, 200)
    boxes = [(s[0], s[1] - LINE / 2, s[0] + 10 * CHARACTER, s[1] + LINE / 2) for s in spots if s is not None]
    assert len(boxes) == 4
    boxes += [(x - r, y - r, x + r, y + r) for x, y, r in marks]
    for i, one in enumerate(boxes[:4]):
        for other in boxes[i + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert place([(5, 5, "far_too_long_for_it")], [], 20, 20) == [None]
    line = (100.0, 99.0, 200.0, 101.0)
    (spot,) = place([(100.0, 100.0, "name")], [(100.0, 100.0, 6.0)], 200, 200, [line])
    assert spot == (100 - 9 - 4 * CHARACTER, 100)


def test_an_outlier_squeezes_no_chart() -> None:
    """Where one strategy takes many times as long the axis of times is logarithmic, and no interval leaves an axis."""
    run = made_up(("rbtree", *(f"s{i}" for i in range(12))), ("w",), rounds=2)
    for cells, title in ((run.data, "ns per lookup (log)"), (made_up(("rbtree", "b"), ("w",)).data, "ns per lookup")):
        (chart,) = charts_of(cells, ["lookup"])
        assert chart.panels[0].spec["hconcat"][0]["layer"][1]["encoding"]["x"]["title"] == title
    (chart,) = charts_of(run.data, ["ratios"])
    low, high = chart.panels[0].spec["layer"][1]["encoding"]["x"]["scale"]["domain"]
    for record in chart.panels[0].spec["data"]["values"]:
        assert low <= record["low"] <= record["ratio"] <= record["high"] <= high


def test_a_list_squeezes_no_bar() -> None:
    """One strategy that touches many times as many lines as the others is cut, at the axis' end, and its total said."""
    cells = []
    for i, cell in enumerate(made_up(("a", "b", "c"), ("w",)).cells):
        lines = {"lookup.lines.vma": 5.0 if i else 600.0, "lookup.lines.mm": 1.0}
        cells.append(replace(cell, state=replace(cell.state, cost={"lookup.n": 9.0, **lines})))
    (chart,) = charts_of(cells, ["cost"])
    bars, cut = chart.panels[0].spec["layer"]
    end = bars["encoding"]["x"]["scale"]["domain"][1]
    sums: dict[str, float] = {}
    for record in chart.panels[0].spec["data"]["values"]:
        sums[record["strategy"]] = sums.get(record["strategy"], 0.0) + record["lines"]
    assert sums == {"a": end, "b": 6.0, "c": 6.0}
    assert [(record["strategy"], record["text"]) for record in cut["data"]["values"]] == [("a", "→ 601")]


def test_threads_are_compared_by_one_figure() -> None:
    """A crew's figures are one throughput under several names, so only the leading one is a comparison."""
    cells = made_up(workloads=(), crews=(2,)).cells
    cells = tuple(replace(cell, figures={**cell.figures, "lookup": cell.figures["fault"]}) for cell in cells)
    assert {figures_of(cell) for cell in cells} == {("fault",)}
    _, row, _ = rows_of(cells)
    assert row.figures["fault"].verdict is not None
    assert row.figures["lookup"].verdict is None
    assert figures_of(made_up(("rbtree",), ("w",)).cells[0]) == tuple(FIGURES)


def test_the_first_sentence_says_who_wins_and_why() -> None:
    """Above all else: the fastest on how many workloads, what it does less of, and how sure that is."""
    run = made_up()
    reader = Reader(page(run))
    assert "Fastest: maple on 5 of 5 workloads." in reader.text
    assert "hits 80 %, loads" not in reader.text  # loads are the same in both: only what differs is said
    cells = [
        replace(c, state=replace(c.state, cost={**c.state.cost, "lookup.loads": 5.0}))
        if c.entry.strategy == "maple"
        else c
        for c in run.cells
    ]
    text = text_of(replace(run, cells=tuple(cells)), "markdown")
    assert "hits 80 %, loads 20 → 5" in text
    assert "30 of 30 comparisons are decided" in text
    assert "No kernel code runs" in text
    assert "No kernel code runs" in text_of(run, "mail")
    assert headline(made_up(("slow", "slower"), ("w",), failed=["slower"])) == ""
    assert headline(made_up(workloads=(), crews=(2,))) == "Most per second: maple on multi-fault-all-split, 2 threads."


def test_failures_stand_together() -> None:
    """A strategy that fails everywhere is one line, with the first message; the event is said once."""
    (line,) = failures(made_up(failed=["maple"], text="x"))
    assert line.startswith("maple on python-json, zipf:vmas=1000,alpha=1.2, uniform:vmas=6, and 2 more is wrong: ")
    assert line.endswith("on python-json: find_vma(0x1000) gave NIL: x (event 17)")
    assert what_failed(CellState("wrong", "event 17 (FAULT): no", event=17)) == "event 17 (FAULT): no"


def test_fallbacks_are_told_by_reason(tmp_path: Path) -> None:
    """A cell whose lookups gave up their fast path: a table below the run's, columns in CSV and data frame."""
    folder = on_disk(tmp_path / "run", made_up(("rbtree", "linux-6.4"), ("w",)))
    shown = CliRunner().invoke(app, ["table", str(folder.path)]).stdout
    (line,) = [line for line in shown.splitlines() if "3.0%" in line]
    assert line.split() == ["w", "linux-6.4", "1,000", "3.0%", "0", "10", "20", "0", "0", "0"]
    assert "stack: below a stack" in shown
    (record,) = [r for r in latency_table(folder.cells()).records if r["strategy"] == "linux-6.4"]
    assert (record["fallbacks"], record["fallbacks.file"]) == (30, 20)
    frame = benchframe.load(folder.path, "figures").query("strategy == 'linux-6.4'")
    assert set(frame["fallbacks.stack"]) == {10}


def test_cold_lookups_are_a_column_and_a_family_of_their_own() -> None:
    """Cells with a time per cold lookup: table, mail and report have it with its state and the number of lookups, and
    the verdicts on all other figures are those without it."""
    plain = made_up(("rbtree", "avl", "maple"), ("w",))
    rng = np.random.default_rng(3)

    def colder(cell: Cell, ns: float) -> Cell:
        entry = replace(cell.workload, cold="program=40960")
        times = [Process(r, (v,), (), 12, 300, {}) for r, v in enumerate(ns * rng.normal(1, 0.01, 6))]
        return replace(cell, workload=entry, figures={**cell.figures, COLD: times})

    cells = [colder(cell, ns) for cell, ns in zip(plain.cells, (50.0, 51.0, 25.0), strict=True)]
    before, after = rows_of(plain.cells), rows_of(cells)
    for one, two in zip(before, after, strict=True):
        assert {name: figure.verdict for name, figure in two.figures.items() if name != COLD} == {
            name: figure.verdict for name, figure in one.figures.items()
        }
    cold = after[2].figures[COLD].verdict
    assert cold is not None
    assert cold.word == "faster"
    text = to_text(latency_table(cells))
    assert "ns/cold lookup" in text
    assert "corrected for 6 comparisons, and apart from them for 2 of cold lookups" in text
    assert "300 lookups a process" in text
    assert "40 KiB of other memory" in text
    assert "ns/cold lookup" not in to_text(latency_table(plain.cells))
    assert "cold lookups, ns: rbtree 4" in mail(cells) or "cold lookups, ns: rbtree 5" in mail(cells)


def test_a_disturbed_pass_is_named() -> None:
    """A distribution that lies far to the right of the figure from loops, and of the other strategies', is said to."""
    import numpy as np

    cells = []
    for i, cell in enumerate(made_up(("a", "b", "c", "d"), ("w",)).cells):
        loops = [process.mean for process in cell.figures["fault"]]
        times = np.full(1000, np.mean(loops) + (9 if i != 2 else 9 + 0.4 * np.mean(loops)))
        row = LatencyRow("fault", "all", 1000, *(float(times[0]),) * 5, histogram(times))
        cells.append(replace(cell, state=replace(cell.state, latencies=(row,))))
    assert disturbed_passes(cells) == [("c", "w")]
    (chart,) = charts_of(cells, ["distribution"])
    assert chart.note.endswith("so these times are too long: c on w.")
    assert disturbed_passes(cells[:2]) == []
