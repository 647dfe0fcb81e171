"""What a report reads and writes on disk: every form of file, damaged ones refused, nothing of the user in them."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from support.report_run import SOURCE, WORKLOADS, a_study, made_up, on_disk

from benchframe.cli import app
from benchframe.errors import ResultsError
from benchframe.report import FORMS, write_report
from benchframe.report.charts import PICTURES, charts_of, save
from benchframe.report.text import Run
from benchframe.results.folder import CellState, LatencyRow, RunFolder, find_run, read_state
from benchframe.results.studies import read_sources, read_studies, write_sources, write_study


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


def test_the_reference_report_is_of_its_results(tmp_path: Path) -> None:
    """The run in reports/reference can be read, every cell of it is sound, a page can be made of it, and the texts
    beside it are of that run."""
    root = Path(__file__).resolve().parents[2]
    folder = RunFolder.open(root / "reports" / "reference")
    run = Run.read(folder)
    assert {cell.state.state for cell in run.cells} == {"ok"}
    assert [list(family.sizes) for family in run.data.families] == [[6, 50, 500, 5000, 65530]]
    assert set(run.sources) == set(run.data.strategies)
    (page,) = write_report(folder, tmp_path, ("html",))
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 2_500_000
    assert folder.manifest.finished[:10] in (folder.path / "report.md").read_text(encoding="utf-8")
    assert folder.manifest.finished[:10] in text
    assert max(map(len, (folder.path / "mail.txt").read_text().splitlines())) <= 72
    assert (root / "docs" / "sweep.png").stat().st_size < 300_000
    for path in folder.path.rglob("*"):
        assert path.is_dir() or "/home/" not in path.read_text(errors="replace")


def test_a_run_ends_with_a_command_that_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below reports/runs the run's name is enough; with -o elsewhere the command says where."""
    from benchframe.cli.run import _closing

    monkeypatch.chdir(tmp_path)
    for path, named in (("reports/runs/made", "made"), ("else where/made", "'else where/made'")):
        _closing(on_disk(Path(path), made_up(("rbtree",), ("w",))))
        assert capsys.readouterr().err.splitlines()[-1].endswith(f"(benchframe report {named})")
        assert find_run(shlex.split(named)[0]).is_dir()
