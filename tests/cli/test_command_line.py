"""The command line: exit codes, one-line errors, the whole way from `run` to `report` with a made-up session."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.sessions import strategy, stream
from typer.testing import CliRunner

import benchframe
from benchframe import strategy as hookspecs
from benchframe.cli import app, options
from benchframe.dialect import DialectError
from benchframe.engine.job import worker_command
from benchframe.errors import ENVIRONMENT
from benchframe.host.measure import FAULTS, HostError, HostTimes, Row
from benchframe.registry import Origin, Problem, Registry
from benchframe.workload import Parameter, Workload

QUICK = ["--quick", "--rounds", "2", "--seed", "3"]


def fake_registry(*_: object) -> Registry:
    """Strategies of tests/support/fake_worker.py and two workloads."""
    names = ["fake30", "fake20", "wrong", "crash", "hang", "slow25"]
    workloads = {
        "toy": Workload("toy", "ten lookups", "nothing", (), lambda p, s: stream().trace, "fake30", ("default",)),
        "big": Workload(
            "big",
            "lookups",
            "nothing",
            (Parameter("rows", 20, "events", low=2, high=1000),),
            lambda params, seed: stream(rows=params["rows"]).trace,
            "fake30",
        ),
    }
    origins = {("workload", name): Origin(name, f"/plugins/{name}.py") for name in workloads}
    origins |= {("strategy", name): Origin(name, "/plugins/fake.py", "dist") for name in names}
    strategies: dict[str, Any] = {name: strategy(name) for name in names}
    for name in names:
        strategies[name].summary = f"the {name} one"
        strategies[name].known_bugs = ()
    problems = [Problem("broken", "/plugins/broken.py", "it implements no hook", "define one")]
    registry = Registry(strategies, workloads, problems=problems, origins=origins)
    registry.manager.add_hookspecs(hookspecs)
    return registry


def put_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up plugins, engine and worker; everything between is real."""
    monkeypatch.setattr("benchframe.registry.load", fake_registry)
    compiled = "benchframe.engine.compile.compile_strategies"
    monkeypatch.setattr(compiled, lambda strategies, progress: progress("all", 1.0))
    monkeypatch.setattr("benchframe.engine.compile.check_texts", lambda strategies: None)
    command = worker_command("support.fake_worker")
    monkeypatch.setattr("benchframe.engine.job.worker_command", lambda: command)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test works in a folder of its own, on fakes."""
    put_fakes(monkeypatch)
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Any:
    """The result of ``benchframe ARGUMENTS`` in this process."""
    return CliRunner().invoke(app, list(arguments))


def one_line(result: Any) -> str:
    """The last line on stderr; there is no traceback."""
    assert "Traceback" not in result.output + result.stderr
    return str(result.stderr.strip().splitlines()[-1])


def test_from_run_to_report(tmp_path: Path) -> None:
    """A run prints its table and where it is; table, load and report read it; the report names the way to repeat it."""
    done = call("run", "-s", "fake20", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"fake20 +20\.\d", done.stdout)
    assert "inside measured loops" in done.stderr
    assert "warning: plugin broken (/plugins/broken.py): it implements no hook" in done.stderr
    (folder,) = (tmp_path / "reports" / "runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-fake20-toy", folder.name)
    frame = benchframe.load("last")
    assert set(frame.strategy) == {"fake30", "fake20"}
    for form in ("mail", "markdown", "csv", "latex"):
        again = call("table", "last", "--format", form)
        assert again.exit_code == 0
        assert "fake20" in again.stdout
    assert "p99.9" in call("table", "--tails").stdout
    elsewhere = ["--runs", "reports/runs"]
    assert f"{folder.name}  finished  fake30, fake20" in call("list", "runs", *elsewhere).stdout
    assert "no run found" in call("list", "runs", "--runs", "none").stderr
    assert call("table", *elsewhere).stdout == call("table").stdout
    assert call("report").exit_code == 0
    report = (folder / "report.md").read_text()
    assert "fake20 on toy, ns/lookup: faster, ratio 0.6" in report
    assert "--seed 3" in report
    assert (folder / "charts" / "ratios.svg").read_text().startswith("<svg")
    assert (folder / "charts" / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_the_running_kernel_as_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--host` measures after the cells, keeps the figures, and `table` shows them again; what cannot be performed,
    and a machine that cannot be timed, are told in a line and the run ends well."""
    asked = ["run", "-s", "fake20", "--host", *QUICK]

    def refused(program: object, cpu: int) -> None:
        raise HostError("the process that performs the trace ended with status 1: no permission")

    monkeypatch.setattr("benchframe.host.measure.unsupported", lambda: "")
    monkeypatch.setattr("benchframe.host.measure.measure", refused)
    done = call(*asked)
    assert done.exit_code == 0, done.stderr
    assert "--host: toy was not performed on the running kernel: the process" in done.stderr
    assert "no permission" in call("table").stdout
    times = HostTimes([Row(FAULTS, 9, (800.0, 820.0), 800.0, 900.0)], 30.0, 150.0, 0.0, 2, 77, 1, 100, 3, 2)
    monkeypatch.setattr("benchframe.host.measure.measure", lambda program, cpu: times)
    done = call(*asked)
    assert re.search(r"this kernel \([\d.]+\).* 810\.0 ± 14\.1 +2$", done.stdout, re.MULTILINE), done.stdout
    assert call("table").stdout == done.stdout
    monkeypatch.setattr("benchframe.host.measure.unsupported", lambda: "only Linux can be timed; this is darwin")
    done = call("run", "--resume", "last", "--host", "--rounds", "3")
    assert done.exit_code == 0
    assert "--host: the running kernel was not timed: only Linux can be timed; this is darwin" in done.stderr


def test_a_failed_cell_is_exit_code_1_and_the_rest_is_there() -> None:
    """Wrong and crashed strategies are named with their message; the good one is timed."""
    done = call("run", "-s", "fake20,wrong,crash", *QUICK)
    assert done.exit_code == 1
    assert one_line(done) == "benchframe: 2 of 4 cells failed: see the state column"
    assert "benchframe check" not in done.stderr  # neither has an interpreted text in which it would find anything
    assert "wrong on toy: wrong: find_vma(0x1000) gave NIL, the oracle says [0x1000, 0x2000) (event 17)" in done.stdout
    assert "slot 99 is out of range" in done.stdout
    assert call("table").exit_code == 1


def test_workload_parameters_and_the_same_workload_twice() -> None:
    """Parameters reach the maker; two variants of a workload are two rows; a repeated one is run once."""
    done = call("run", "-s", "fake20", "-w", "big:rows=50,big,big:rows=50,toy", *QUICK, "-f", "csv")
    assert done.exit_code == 0, done.stderr
    labels = [line.split(",")[0] for line in done.stdout.splitlines()[1:]]
    assert labels == ["big:rows=50", "big:rows=50", "big", "big", "toy", "toy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-s", "fake2"], "no strategy is called 'fake2'; did you mean fake20?"),
        (["run", "-s", "fake20", "-w", "bog"], "no workload is called 'bog'; did you mean big?"),
        (["run", "-w", "big:row=3"], "workload big has no parameter row; did you mean rows?"),
        (["run", "-w", "big:rows=1"], "workload big: rows=1 is not int in [2, 1000]"),
        (["run", "--baseline", "fake300"], "no strategy is called 'fake300'; did you mean fake30?"),
        (["run", "--until-decided", "--decide", "cold", "--caches", "warm"], "--decide cold needs cold lookups"),
        (["run", "--trace", "none.parquet"], "trace none.parquet does not exist"),
        (["run", "--trace", "text.parquet"], "text.parquet: this is not a Parquet file"),
        (["run", "--quick", "--rigorous"], "--quick and --rigorous exclude each other"),
        (["run", "--budget", "soon"], "'soon' is not a duration; write 90s, 5m or 1h30m"),
        (["run", "--format", "markdwon"], "no format is called 'markdwon'; did you mean markdown?"),
        (["compare", "a", "b", "-f", "cvs"], "no format is called 'cvs'; did you mean csv?"),
        (["run", "--resume", "last"], "last: there is no run in reports/runs"),
        (["run", "--resume", "x", "-s", "fake20"], "--resume takes strategies"),
        (["table", "nowhere"], "nowhere: there is no run in reports/runs"),
        (["table", "--mail", "--tails"], "--tails has no mail format"),
        (["report", "."], ".: it has no manifest.json"),
        (["show", "fake200"], "no strategy or workload is called 'fake200'; did you mean fake20?"),
        (["list", "strategy"], "cannot list 'strategy'; did you mean strategies?"),
        (["run", "-s", "", "-w", "toy"], "--strategy is empty; omit it to run every strategy"),
        (["run", "-s", "fake20", "-w", ""], "--workload is empty"),
        (["trace", "replay", "-s", "fake2", "none.parquet"], "no strategy is called 'fake2'; did you mean fake20?"),
        (["record"], "give either a program after -- or --attach PID"),
        (["record", "--outptu", "x.parquet", "--", "true"], "record has no option --outptu; did you mean --output?"),
        (["run", "-s", "fake20", "-w", "toy", "--seed", "many"], "--seed many: give a number from 0 to"),
        (["trace", "info", "none.parquet"], "none.parquet: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    """Every kind of bad input says what was wrong and what to do, without a traceback, before anything is made."""
    Path("text.parquet").write_text("This is no Parquet file, only some text.")
    done = call(*arguments)
    assert message in one_line(done)
    assert one_line(done).startswith("benchframe")
    assert done.exit_code == 2
    assert not Path("reports").exists()


def test_unknown_options_are_usage_errors() -> None:
    """typer's own usage errors have exit code 2 too."""
    assert call("run", "--fast").exit_code == 2
    assert call("runn").exit_code == 2


def test_no_permission_is_exit_code_3(tmp_path: Path) -> None:
    """Where results cannot be written the environment is at fault, and the line says so."""
    (tmp_path / "file").write_text("")
    done = call("run", "-s", "fake20", *QUICK, "-o", str(tmp_path / "file" / "runs"))
    assert done.exit_code == 3
    assert "cannot be written" in one_line(done)


def test_full_disk_is_exit_code_3_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up during a run costs the process that was going; --resume continues from there."""
    real, left = os.fsync, [8]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = call("run", "-s", "fake20", *QUICK)
    assert done.exit_code == 3
    assert "No space left on device" in one_line(done)
    before = len(benchframe.load("last").dropna(subset=["ns"]))
    done = call("run", "--resume", "last")
    assert done.exit_code == 0, done.stderr
    assert len(benchframe.load("last").dropna(subset=["ns"])) > before
    assert benchframe.load("last").groupby("strategy")["round"].nunique().to_dict() == {"fake30": 2, "fake20": 2}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "free space"),
        (OSError("1163 requested and 507 written"), "the disk is full: 1163 requested and 507 written); free space"),
        (OSError(27, "File too large"), "ulimit -f"),
        (OSError(13, "Permission denied"), "check the permissions"),
        (OSError(2, "No such file or directory"), "check the path"),
    ],
)
def test_a_disk_that_refuses_is_told_with_the_mend(error: OSError, words: str) -> None:
    """Each reason has its own advice; NumPy's short write, which has no error number, is a full disk too."""
    from benchframe.errors import disk_error

    told = disk_error("runs/x", error, "written")
    assert words in str(told)
    assert told.exit_code == ENVIRONMENT


def test_a_run_without_a_measurement_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a strategy does not compile no empty run is left behind for `last` to name; every mistake is a line."""

    def refuse(strategies: object, progress: object) -> None:
        raise DialectError("mine.py:7 (find): a list; use a slab\nmine.py:9 (find): a dict; use a slab")

    monkeypatch.setattr("benchframe.engine.compile.compile_strategies", refuse)
    done = call("run", "-s", "fake20", *QUICK)
    assert done.exit_code == 2
    assert done.stderr.endswith("\n  mine.py:7 (find): a list; use a slab\n  mine.py:9 (find): a dict; use a slab\n")
    assert "--resume" not in done.stderr
    assert list((tmp_path / "reports" / "runs").iterdir()) == []


def test_resume_adds_rounds_and_retries() -> None:
    """--resume --rounds deepens a finished run; --retry runs a crashed cell again, and a wrong one stays wrong."""
    call("run", "-s", "fake20,wrong,crash", *QUICK)
    done = call("run", "--resume", "last", "--rounds", "3", "--retry")
    assert done.exit_code == 1
    frame = benchframe.load("last")
    assert frame[frame.state == "ok"].groupby("strategy")["round"].nunique().to_dict() == {"fake30": 3, "fake20": 3}
    assert done.stderr.count("crash on toy: crashed") == 1
    assert "wrong on toy: wrong" not in done.stderr


def test_all_names_every_strategy() -> None:
    """--strategy all is what leaving it out is: every strategy there is."""
    known = options.loaded([])
    assert options.strategy_names(["all"], known) == options.strategy_names(None, known) == list(known.strategies)
    assert len(known.strategies) > 2
    assert options.strategy_names(["fake20,wrong"], known) == ["fake20", "wrong"]


def test_resume_does_not_run_code_that_a_manifest_names(tmp_path: Path) -> None:
    """A manifest that names a plugin file has no power to load it: the user must name the file again."""
    call("run", "-s", "fake20", *QUICK)
    (path,) = (tmp_path / "reports" / "runs").glob("*/manifest.json")
    path.write_text(path.read_text().replace('"plugins": []', '"plugins": ["/tmp/evil.py"]'))
    done = call("run", "--resume", "last")
    assert done.exit_code == 2
    assert "if you trust it, add --plugin /tmp/evil.py" in one_line(done)


def test_expected_errors_raise_with_debug() -> None:
    """--debug shows the traceback instead of the line."""
    done = call("--debug", "table", "nowhere")
    options.settings.debug = False
    assert type(done.exception).__name__ == "ResultsError"


INTERRUPTED = """
import sys
sys.path[:] = eval(sys.argv[1])
import pytest, test_command_line
test_command_line.put_fakes(pytest.MonkeyPatch())
from benchframe.__main__ import main
sys.argv = ["benchframe", "run", "-s", "slow25", "--quick", "--rounds", "50"]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C and SIGTERM end in one line, their exit code, no worker left, and a run that --resume continues."""
    arguments = [sys.executable, "-c", INTERRUPTED, repr(sys.path)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not [path for path in tmp_path.glob("reports/runs/*/cells/*.json") if path.suffixes == [".json"]]:
        assert time.monotonic() < deadline  # a suite: the state file comes first, and holds no values yet
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert "continues" in stderr
    (folder,) = (tmp_path / "reports" / "runs").iterdir()
    assert not (folder / "spool").exists()
    frame = benchframe.load(folder)
    assert 0 < frame["round"].nunique() < 50


def test_lists_and_show() -> None:
    """Lists name what plugins bring and where from; show explains a workload's parameters."""
    assert re.search(r"fake20 +dist +the fake20 one", call("list", "strategies").stdout)
    assert re.search(r"big +lookups\n +rows=20", call("list", "workloads").stdout)
    shown = call("show", "big").stdout
    assert "rows=20  events (int in [2, 1000])" in shown
    assert "benchframe run --workload big:rows=20" in shown


def test_help_groups_the_commands() -> None:
    """Each command stands under one of six headings, once; none is left under typer's own."""
    from typer.main import get_command

    shown = call("--help").stdout
    headings = re.findall(r"^(\w[\w ]*):$", shown, re.MULTILINE)[1:]
    assert headings[0] == "Measure"
    assert headings[-1] == "Housekeeping"
    assert len(headings) == 6
    for name, command in vars(get_command(app))["commands"].items():
        summary = command.short_help.split()[0]
        assert len(re.findall(rf"^  {name} +{summary}", shown, re.MULTILINE)) == 1, name


def test_help_has_examples() -> None:
    """Every command's help has an example and its exit codes, and the main one all codes."""
    from collections.abc import Iterator

    from typer.main import get_command

    def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*path, name))
            else:
                yield " ".join((*path, name)), command

    assert "130  Ctrl-C" in call("--help").stdout
    found = dict(commands(get_command(app)))
    assert {"run", "trace info", "cache clear", "plugin add", "verify"} <= found.keys()
    for name, command in found.items():
        assert re.search(r"\n *Examples?:\n.*benchframe", command.help or "", re.DOTALL), name
        assert re.search(r"Exit codes?\b", command.help or ""), name
    assert "Exit codes: 0, 1 " in call("run", "--help").stdout


def test_cache_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cache info counts, cache clear removes, and only inside the cache folder."""
    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(tmp_path / "cache"))
    for folder, content in (("units", b"12345"), ("answers", b"123")):
        (tmp_path / "cache" / folder).mkdir(parents=True)
        (tmp_path / "cache" / folder / "a").write_bytes(content)
    (tmp_path / "cache" / "mine").write_text("stays")
    assert "code       1 files, 5 bytes" in call("cache", "info").stdout
    assert call("cache", "clear", "--yes").stdout == "removed 2 files, 8 bytes\n"
    assert "answers    0 files" in call("cache", "info").stdout
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["mine"]


def test_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells complete the last name of a list; a broken plugin does not disturb them."""
    assert options.strategies("fake20,fa") == ["fake20,fake30"]
    assert options.workloads("b") == ["big"]
    monkeypatch.setattr("benchframe.registry.load", lambda: 1 / 0)
    assert options.strategies("") == []
    assert options.runs("") == ["last"]


def test_bars_count_down_when_cells_fail() -> None:
    """On a terminal the bar ends at the number of processes that were really run; failures stand above it."""
    import io

    from rich.console import Console
    from rich.progress import Progress

    from benchframe.cli.progress import Bars
    from benchframe.engine.job import Outcome
    from benchframe.results.manifest import CellEntry

    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=120)) as progress:
        bars = Bars(progress, rounds=3, table=str)
        bars.compiling("", 0.0)
        assert progress.tasks[0].total is None
        bars.compiling("hooks-mine", 0.5)
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (50, 100)
        bars.begin(6)
        bars.process(CellEntry("0" * 32, "mine", "[red]toy"), 0, Outcome("wrong", "[bold]no"))
        bars.dropped(2)
        bars.process(CellEntry("0" * 32, "rbtree", "[red]toy"), 0, Outcome("ok"))
        bars.note("stopped")
        timing = next(task for task in progress.tasks if task.id == bars.timing)
        assert (timing.completed, timing.total) == (2, 4)
    assert "mine on [red]toy: wrong: [bold]no" in out.getvalue()
    assert "stopped" in out.getvalue()


def test_the_table_of_the_first_round_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each round's table takes the place of the one before it, and says what it is; the last is left to
    standard output."""
    import io

    from rich.console import Console

    from benchframe.cli.progress import Bars, bars_below_table

    out = io.StringIO()
    texts = iter(["rbtree 8.1 [x]", "rbtree 8.2"])
    with bars_below_table(Console(file=out, force_terminal=True, width=120), auto_refresh=False) as progress:
        bars = Bars(progress, rounds=3, table=lambda: next(texts))
        monkeypatch.setattr(bars, "SHARE", float("inf"))
        bars.begin(6)
        bars.round_ended(1)
        progress.refresh()
        assert "after round 1 of 3, a first look: one process a cell" in (first := out.getvalue())
        assert "rbtree 8.1 [x]" in first
        bars.round_ended(2)
        progress.refresh()
        assert "rbtree 8.2" in out.getvalue()
        bars.round_ended(3)
        assert "after round 2 of 3" in progress.table


def test_a_cache_that_cannot_be_written_costs_one_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command then keeps compiled code in a temporary folder, which its worker processes use too, and says so."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(blocked / "cache"))
    done = call("list", "strategies")
    assert done.exit_code == 0
    assert f"{blocked / 'cache'} cannot be written (Not a directory)" in done.stderr
    assert Path(os.environ["BENCHFRAME_CACHE_DIR"]).is_dir()
    assert "cannot be written" not in call("list", "strategies").stderr


def test_a_spent_budget_is_forgotten_when_the_run_goes_on() -> None:
    """The note that a budget was spent stands in the table until --resume does the rounds that were left out."""
    first = call("run", "-s", "fake20", "--quick", "--rounds", "4", "--seed", "3", "--budget", "0.01s")
    assert first.exit_code == 0, first.stderr
    assert "stopped after round 2 of 4" in call("table").stdout
    assert call("run", "--resume", "last").exit_code == 0
    table = call("table").stdout
    assert "stopped after round" not in table
    assert re.search(r"fake20 .* 4  ok", table)
