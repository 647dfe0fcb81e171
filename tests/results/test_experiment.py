"""Experiment files: what they say is what is measured; what is wrong in one has a name; a run can be written as one."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchframe.cli import app
from benchframe.cli.run import _no_crew, _unused_files, make_streams, planned, settings
from benchframe.engine.caches import Caches
from benchframe.engine.job import DEPTHS
from benchframe.errors import ResultsError
from benchframe.registry import load
from benchframe.results.campaign import cells_of, without
from benchframe.results.experiment import Experiment, PluginFile, as_toml, labelled, like, read_experiment
from benchframe.results.manifest import CellEntry, Manifest, WorkloadEntry, read_manifest
from benchframe.workload import WorkloadError, sweep

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
FULL = Experiment(
    strategies=("rbtree", "pmdcache"),
    workloads=("zipf:vmas=10..1e3:log",),
    traces=('a "quoted"\n.parquet',),
    skip=("linked_list@*",),
    plugins=(PluginFile("mine.py", 64 * "0"), PluginFile("other.py")),
    labels={"zipf:vmas=10": "tiny \\ zipf"},
    mode="quick",
    rounds=7,
    seed=2026,
    threads=(0, 2),
    budget="5m",
    until_decided=True,
    within=1.5,
    cost=False,
    host=True,
)


def written(folder: Path, text: str) -> Path:
    """The experiment file with this text."""
    path = folder / "exp.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("experiment", [FULL, Experiment()])
def test_written_and_read(experiment: Experiment, tmp_path: Path) -> None:
    """Every member comes back, whatever its text holds; what has its default is not written."""
    text = as_toml(experiment, "A head.\nOf two lines.")
    assert read_experiment(written(tmp_path, text)) == experiment
    assert ("baseline" in text, text.startswith("# A head.\n# Of two lines.\n")) == (False, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('strategy = ["rbtree"]', "it has a member 'strategy'; did you mean strategies?"),
        ("rounds = 0", "member 'rounds': expected `int` >= 1"),
        ('rounds = "3"', "member 'rounds': expected `int"),
        ('mode = "fast"', "member 'mode': invalid enum value 'fast'"),
        ("rounds = ", "it is not TOML"),
        ('[[plugins]]\nfile = "mine.py"\nsha256 = "0"', "member 'plugins[0].sha256'"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    """A misspelt member, a value out of range, a file that is no TOML: one line with the place."""
    with pytest.raises(ResultsError) as told:
        read_experiment(written(tmp_path, text))
    assert said in str(told.value)
    assert "exp.toml" in str(told.value)


def test_a_plugin_that_was_edited(tmp_path: Path) -> None:
    """Another file than the one that was measured is refused, with its digest; the right one is found beside the
    experiment."""
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1\n")
    digest = hashlib.sha256(plugin.read_bytes()).hexdigest()
    good = Experiment(plugins=(PluginFile("mine.py", digest),))
    assert good.plugin_files(tmp_path) == [plugin]
    plugin.write_text("x = 2\n")
    with pytest.raises(ResultsError, match="its sha256 differs; restore it, or write sha256 = "):
        good.plugin_files(tmp_path)


def test_a_run_as_an_experiment(tmp_path: Path) -> None:
    """The reference run as a file: strategies, workloads, settings and exactly the cells that it has."""
    manifest = read_manifest(REFERENCE)
    made = read_experiment(written(tmp_path, as_toml(like(manifest))))
    assert set(made.strategies) == {cell.strategy for cell in manifest.cells}
    assert set(made.workloads) | set(made.traces) == {entry.spec or entry.path for entry in manifest.workloads}
    assert (made.mode, made.seed) == (manifest.options.mode, manifest.seed)
    first = manifest.cells[-1]
    fewer = without(manifest, [f"{first.strategy}@{first.workload}"])
    pattern = f"{first.strategy}@{first.workload}"
    assert [one for one in like(fewer).skip if one not in made.skip] == [pattern.replace("*", "[*]")]


def test_states_of_the_caches(tmp_path: Path) -> None:
    """A run with two states for one workload and one for another, with a label: the file has both states, the label
    without them, and leaves out the state that was not run."""
    manifest = read_manifest(REFERENCE)
    plain = manifest.workloads[0]
    states = [Caches(), Caches("llc", 1 << 20), Caches("program", 4096)]
    entries = [replace(plain, label=labelled({}, "Mine", 0, s), spec="uniform", caches=str(s)) for s in states]
    entries.append(replace(plain, label=labelled({}, "zipf", 0, states[0]), spec="zipf"))
    assert [entry.label for entry in entries] == ["Mine", "Mine@llc", "Mine@program=4K", "zipf"]
    cells = tuple(CellEntry(32 * "0", "rbtree", entry.label) for entry in entries)
    made = like(replace(manifest, workloads=tuple(entries), cells=cells))
    again = read_experiment(written(tmp_path, as_toml(made)))
    assert again.caches == ("warm", "llc", "program=4K")
    assert again.labels == {"uniform": "Mine"}
    assert set(again.skip) == {"*@zipf@llc", "*@zipf@program=4K"}
    warm = replace(manifest, workloads=(plain,), cells=(CellEntry(32 * "0", "rbtree", plain.label),))
    column = replace(warm, workloads=(replace(plain, cold="program=40960"),))
    assert like(warm).caches == ("warm",), "an older run had no column of cold lookups"
    assert like(column).caches == ()


def test_a_workload_alone_and_in_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that has the default among its values, and the workload by its name: one stream, which runs once, under
    the text that says the value; the file of that run has exactly these cells."""
    known = load()
    for names in (
        ["zipf:events=100", "zipf:vmas=1000/10,events=100"],
        ["zipf:vmas=1000/10,events=100", "zipf:events=100"],
    ):
        streams = make_streams(known, names, [], 0, None, [0])
        labels = ["zipf:vmas=1000,events=100", "zipf:vmas=10,events=100"]
        assert [stream.entry.label for stream in streams] == labels
        assert "zipf:events=100 is given twice: it runs once, as zipf:vmas=1000,events=100" in capsys.readouterr().err
        options = settings(True, False, None, None, None, False)
        made = like(planned(known, ["rbtree"], streams, options, None, [], [], []))
        again = make_streams(known, made.workloads, [], 0, None, [0], made.labels)
        assert [stream.entry.label for stream in again] == labels


def cells_planned(experiment: Experiment) -> set[tuple[str, str]]:
    """The cells (strategy, workload) that a run of ``experiment`` has, without making its events."""
    known = load()
    specs = [found for text in experiment.workloads for found in known.sweep(text).items()]
    entries = [
        WorkloadEntry(labelled({}, text, crew, Caches()), spec.label, "", 0, 64 * "0", 1, 1, "rbtree", crew)
        for text, spec in specs
        for crew in experiment.threads
        if crew == 0 or not _no_crew(spec, crew)
    ]
    cells = [
        CellEntry(32 * "0", name, entry.label)
        for entry in entries
        for name in cells_of(experiment.strategies, "rbtree")
    ]
    options = read_manifest(REFERENCE).options
    whole = Manifest("", (), 0, options, tuple(entries), tuple(cells))
    return {(cell.strategy, cell.workload) for cell in without(whole, experiment.skip).cells}


def test_a_plugin_that_was_only_remembered_is_not_written(tmp_path: Path) -> None:
    """``--like`` names the files that bring what was measured, and those of which nothing is known now."""
    files = [tmp_path / f"{name}.py" for name in ("mine", "other", "gone")]
    text = "from benchframe.api import Strategy, hookimpl\n\n\n@hookimpl\ndef benchframe_strategies():\n"
    for file in files[:2]:
        file.write_text(f'{text}    return [Strategy("{file.stem}", "", "rbtree")]\n')
    known = load(files[:2])
    streams = make_streams(known, ["zipf:events=100"], [], 0, None, [0])
    options = settings(True, False, None, None, None, False)
    manifest = planned(known, ["mine"], streams, options, None, [], [], [])
    assert str(files[0]) not in _unused_files(known, manifest)
    assert str(files[1]) in _unused_files(known, manifest)
    assert str(files[2]) not in _unused_files(known, manifest)


@pytest.mark.parametrize("name", ["reference", "sweep"])
def test_our_own_runs_are_experiments(name: str) -> None:
    """reports/NAME.toml has the cells, the settings and the seed of the run in reports/NAME; so has what ``--like``
    makes of that run."""
    reports = REFERENCE.parent
    manifest = read_manifest(reports / name)
    file = read_experiment(reports / f"{name}.toml")
    made = like(manifest, lambda entry, crew: not _no_crew(load().spec(entry.spec), crew))
    for experiment in (file, made):
        assert cells_planned(experiment) == {(cell.strategy, cell.workload) for cell in manifest.cells}
        assert (experiment.mode, experiment.seed) == (manifest.options.mode, manifest.seed)
        assert (experiment.rounds or DEPTHS[experiment.mode].rounds) == manifest.options.rounds


def test_sweeps() -> None:
    """Values of a parameter: a list, powers of ten, so many with equal ratios or steps; two parameters give every
    pair. What is no range says how one is written."""
    assert sweep("uniform:vmas=6/50,touch=0/1") == [
        f"uniform:vmas={vmas},touch={touch}" for vmas in (6, 50) for touch in (0, 1)
    ]
    assert sweep("z:vmas=10..1e6:log") == [f"z:vmas={10**power}" for power in range(1, 7)]
    assert sweep("z:vmas=20..500:log") == ["z:vmas=20", "z:vmas=200", "z:vmas=500"]
    assert sweep("z:vmas=1..16:log5") == [f"z:vmas={1 << power}" for power in range(5)]
    assert sweep("z:alpha=0.5..1.5:3") == ["z:alpha=0.5", "z:alpha=1", "z:alpha=1.5"]
    for wrong in (
        "z:v=1..",
        "z:v=1..10",
        "z:v=10..1:log",
        "z:v=0..10:log",
        "z:v=1..10:1",
        "z:v=1..10:999999",
        "z:v=a..b:3",
    ):
        with pytest.raises(WorkloadError, match=r"is not a range; write 10\.\.1e6:log"):
            sweep(wrong)


def test_dry_run(tmp_path: Path) -> None:
    """Cells, processes and an estimate, with the file's labels; nothing is made. An option that the file decides is
    refused, a label of no workload too."""
    text = 'strategies = ["linked_list"]\nworkloads = ["uniform:vmas=6/50,events=200"]\nrounds = 2\n'
    text += 'skip = ["linked_list@few"]\n[labels]\n"uniform:vmas=6,events=200" = "few"\n'
    path = written(tmp_path, text)
    done = CliRunner().invoke(app, ["run", str(path), "--dry-run", "-o", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("few (200 timed events, beside rbtree): rbtree")
    assert lines[1].endswith("rbtree, linked_list")
    assert lines[2] == "3 cells, 2 rounds: 6 processes"
    assert lines[3].startswith("about ")
    assert not (tmp_path / "runs").exists()
    done = CliRunner().invoke(app, ["run", str(path), "-s", "rbtree"])
    assert done.exit_code == 2
    assert "--strategy stands in the experiment file" in done.stderr
    path.write_text(text.replace("vmas=6,events", "vmas=7,events"))
    done = CliRunner().invoke(app, ["run", str(path), "--dry-run"])
    assert done.exit_code == 2
    assert "labels: no workload here is called uniform:vmas=7,events=200; did you mean uniform:vmas=" in done.stderr


def test_table_as_json_and_a_chart_that_cannot_be_made(tmp_path: Path) -> None:
    """JSON has what CSV has, missing values as null. A chart that was asked for and that the run has nothing for: why,
    and exit code 2."""
    done = CliRunner().invoke(app, ["table", str(REFERENCE), "--format", "json"])
    assert done.exit_code == 0, done.output
    cells = {(row["workload"], row["strategy"]) for table in json.loads(done.stdout) for row in table["rows"]}
    manifest = read_manifest(REFERENCE)
    alone = {entry.label for entry in manifest.workloads if not entry.threads}
    assert cells >= {(cell.workload, cell.strategy) for cell in manifest.cells if cell.workload in alone}
    done = CliRunner().invoke(
        app, ["report", str(REFERENCE.parent / "sweep"), "--chart", "threads", "-f", "svg", "-o", str(tmp_path)]
    )
    assert done.exit_code == 2
    assert "nothing for the chart threads: it needs cells with threads" in done.stderr
