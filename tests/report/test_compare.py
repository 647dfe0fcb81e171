"""Comparing runs and the gate: what is paired, what is refused, exit codes. Runs are made of given values."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from support.runs import HOST, OPTIONS, VERSIONS, made, noise
from typer.testing import CliRunner, Result

from benchframe.cli import app
from benchframe.report.compare import (
    ABSOLUTE,
    INVALID,
    PAIRED,
    PASS,
    REGRESSION,
    RELATIVE,
    Side,
    compare,
    comparison_table,
    gate,
    machine_change,
    read_sides,
)
from benchframe.results import ResultsError
from benchframe.results.folder import CellState
from benchframe.results.manifest import WorkloadEntry

ROUNDS = 10


def speeds(base: float = 10.0, mine: float = 8.0, seed: int = 1) -> dict[str, dict[str, list[float]]]:
    """A baseline and one strategy, on two figures."""
    return {
        name: {"lookup": noise(ns, ROUNDS, seed + i), "fault": noise(4 * ns, ROUNDS, seed + i + 50)}
        for i, (name, ns) in enumerate({"base": base, "mine": mine}.items())
    }


def counted(cost: dict[str, float]) -> dict[str, CellState]:
    """States with counted cost."""
    return {"mine": CellState(state="ok", message="", loops=4, cost={"events": 900, "counted": 900, **cost})}


def call(*arguments: object) -> Result:
    """benchframe with these arguments."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_strategies_of_one_run_are_paired(tmp_path: Path) -> None:
    """RUN:STRATEGY and :STRATEGY compare within the run, by rounds."""
    made(tmp_path / "a", speeds())
    a, b = read_sides(f"{tmp_path / 'a'}:base", ":mine")
    found = compare(a, b)
    assert {line.how for line in found.lines} == {PAIRED}
    assert [line.verdict.word for line in found.lines] == ["faster", "faster"]
    assert found.lines[0].strategy == "base -> mine"
    assert not found.differences


def test_two_runs_of_the_same_are_the_same(tmp_path: Path) -> None:
    """Two runs of one thing: every figure the same within 2 %, the strategy by its ratio to each run's baseline."""
    sides = [Side(made(tmp_path / n, speeds(seed=s), start=60 * s)) for n, s in (("a", 1), ("b", 3))]
    found = compare(*sides)
    assert {line.verdict.word for line in found.lines} == {"same"}
    assert [line.how for line in found.lines] == [ABSOLUTE, ABSOLUTE, RELATIVE, RELATIVE]
    assert not found.refused


def test_machine_drift_between_runs_cancels_in_ratios(tmp_path: Path) -> None:
    """The machine is 10 % slower in the second run: the strategy reads the same, and with --absolute it does not."""
    a = Side(made(tmp_path / "a", speeds(10, 8, seed=1)))
    b = Side(made(tmp_path / "b", speeds(11, 8.8, seed=5), start=60))
    words = {line.strategy: line.verdict.word for line in compare(a, b).lines}
    assert words == {"base": "slower", "mine": "same"}
    shown = {row[1]: row[-2] for row in comparison_table(compare(a, b), a, b).rows}
    assert shown["base"] == "slower, or drift"
    assert "drift" not in shown["mine"]
    assert {line.verdict.word for line in compare(a, b, absolute=True).lines} == {"slower"}


def test_a_slowed_strategy_is_slower(tmp_path: Path) -> None:
    """3 % more in one strategy: slower; its source differs, which is told and not refused."""
    a = Side(made(tmp_path / "a", speeds(seed=1)))
    b = Side(made(tmp_path / "b", speeds(mine=8.24, seed=5), digests={"mine": "d" * 64}, start=60))
    found = compare(a, b)
    assert [line.verdict.word for line in found.lines if line.strategy == "mine"] == ["slower", "slower"]
    assert [difference.what for difference in found.differences] == ["source of mine"]
    assert not found.refused


def by_layout(tmp_path: Path, mine: float, seeds: tuple[int, int]) -> tuple[Side, Side]:
    """Two runs in which the layout moves every figure by some 6 %, for each strategy in its own way."""
    effects = {
        (name, figure): noise(1, ROUNDS, 90 + i, sd=0.06)
        for i, (name, figure) in enumerate(product(("base", "mine"), ("lookup", "fault")))
    }
    sides = []
    for number, seed in enumerate(seeds):
        level = {"base": 10.0, "mine": 8.0 if number == 0 else mine}
        cells = {
            name: {
                figure: [
                    ns * x * effects[name, figure][(r + seed) % ROUNDS]
                    for r, x in enumerate(noise(1, ROUNDS, 10 * number + i + 5 * (figure == "fault")))
                ]
                for figure in ("lookup", "fault")
            }
            for i, (name, ns) in enumerate(level.items())
        }
        quiet = {name: [(100, 90, 500.0)] * ROUNDS for name in cells}
        path = tmp_path / f"run{number}-{seeds}-{mine}"
        seeds_of_rounds = [100 * seed + r for r in range(ROUNDS)]
        sides.append(Side(made(path, cells, start=60 * number, layouts=seeds_of_rounds, quiet=quiet)))
    return sides[0], sides[1]


def test_runs_with_one_seed_are_paired_by_layout(tmp_path: Path) -> None:
    """What the layout does cancels: same, and 3 % more is slower. The same values with another seed's layouts tell
    nothing, and the table says what would help."""
    a, b = by_layout(tmp_path, 8.0, (1, 1))
    same = compare(a, b)
    assert {line.verdict.word for line in same.lines} == {"same"}
    assert all(line.layouts and line.verdict.ratio.method == "trimmed" for line in same.lines)
    assert "paired by layout" in "\n".join(comparison_table(same, a, b).notes)
    slower = compare(*by_layout(tmp_path, 8.24, (1, 1)))
    assert [line.verdict.word for line in slower.lines if line.strategy == "mine"] == ["slower", "slower"]
    a, b = by_layout(tmp_path, 8.24, (1, 2))
    apart = compare(a, b)
    assert {line.verdict.word for line in apart.lines} == {"undecided"}
    assert not any(line.layouts for line in apart.lines)
    notes = "\n".join(comparison_table(apart, a, b).notes)
    assert "two runs with the same --seed need fewer rounds" in notes
    assert "more rounds of both runs should settle" in notes


def test_the_control_says_whether_the_machine_changed(tmp_path: Path) -> None:
    """Code that no strategy changes took half as long again in the second run: said beside the verdicts."""
    quiet = [{name: [(100, 90, level)] * ROUNDS for name in ("base", "mine")} for level in (500.0, 505.0, 750.0)]
    sides = [
        Side(made(tmp_path / f"{i}", speeds(seed=2 * i), start=60 * i, quiet=marks)) for i, marks in enumerate(quiet)
    ]
    steady, changed = (compare(sides[0], other) for other in sides[1:])
    assert machine_change(steady) == pytest.approx(0.01)
    assert "the machine was equally fast" in "\n".join(comparison_table(steady, *sides[:2]).notes)
    assert machine_change(changed) == pytest.approx(0.5)
    assert "+50.0 % in B: the speed of the machine changed" in "\n".join(
        comparison_table(changed, sides[0], sides[2]).notes
    )
    unknown = compare(sides[0], Side(made(tmp_path / "old", speeds(), start=300)))
    assert machine_change(unknown) is None


def test_baselines_of_other_code_are_no_measure(tmp_path: Path) -> None:
    """If the baseline itself was edited, the strategy is compared in ns."""
    a = Side(made(tmp_path / "a", speeds(seed=1)))
    b = Side(made(tmp_path / "b", speeds(seed=5), digests={"base": "d" * 64}, start=60))
    assert {line.how for line in compare(a, b).lines} == {ABSOLUTE}


def test_runs_that_took_turns_are_paired(tmp_path: Path) -> None:
    """Two benchframes that ran round by round in turn: paired by round. One after the other: not."""
    a = Side(made(tmp_path / "a", speeds(seed=1), start=0))
    turns, later = (Side(made(tmp_path / n, speeds(seed=5), start=s)) for n, s in (("b", 0), ("c", 30)))
    assert {line.how for line in compare(a, turns).lines} == {PAIRED}
    assert PAIRED not in {line.how for line in compare(a, later).lines}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"host": HOST | {"cpu": "Other CPU"}}, "CPU model: Test CPU against Other CPU"),
        ({"host": HOST | {"kernel": "Linux 7.0"}}, "kernel"),
        ({"versions": VERSIONS | {"python": "CPython 3.13.0"}}, "Python"),
        ({"versions": VERSIONS | {"numba": "0.99"}}, "Numba"),
        ({"versions": VERSIONS | {"model": "f" * 16}}, "the model"),
        ({"aslr": "No randomization"}, "address space randomisation"),
        ({"trace": "e" * 64}, "events of toy"),
        (
            {"workloads": (WorkloadEntry("toy", "toy", "", 0, "b" * 64, 1000, 900, "base", caches="llc=1048576"),)},
            "caches of toy: warm against llc=1048576",
        ),
        ({"options": replace(OPTIONS, min_time=0.5)}, "values per process"),
    ],
)
def test_incomparable_runs_are_refused(tmp_path: Path, change: dict[str, object], what: str) -> None:
    """compare and gate end with exit code 2 and name what differs; --anyway goes on."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(seed=5), start=60, **change)  # type: ignore[arg-type]
    for command in ("compare", "gate"):
        refused = call(command, tmp_path / "a", tmp_path / "b")
        assert refused.exit_code == 2
        assert what in refused.stderr
        assert "not comparable" in refused.stderr
        assert call(command, tmp_path / "a", tmp_path / "b", "--anyway").exit_code == 0


def test_other_caches_are_refused_by_their_label(tmp_path: Path) -> None:
    """A warm run and a cold one of the same events have no row in common: compare says why, not what is missing."""
    made(tmp_path / "a", speeds(seed=1))
    run = made(tmp_path / "b", speeds(seed=5), start=60)
    cold = tuple(replace(entry, label="toy@llc", caches="llc=1048576") for entry in run.manifest.workloads)
    run.save(
        replace(run.manifest, workloads=cold, cells=tuple(replace(c, workload="toy@llc") for c in run.manifest.cells))
    )
    refused = call("compare", tmp_path / "a", tmp_path / "b")
    assert refused.exit_code == 2
    assert "caches of toy: warm against llc" in refused.stderr


def test_cold_lookups_are_compared_if_they_are_as_cold(tmp_path: Path) -> None:
    """Two runs with a column of cold lookups: a line for each strategy if the footprints are the same; with another
    footprint, or without the column, the other figures are compared and the difference is told."""
    for name, state in (("a", "program=40960"), ("b", "program=40960"), ("c", "program=65536"), ("d", "")):
        cells = speeds(seed=ord(name))
        if state:
            cells = {strategy: {**figures, "cold": figures["fault"]} for strategy, figures in cells.items()}
        entry = WorkloadEntry("toy", "toy", "", 0, "b" * 64, 1000, 900, "base", cold=state)
        made(tmp_path / name, cells, start=60 * (name != "a"), workloads=(entry,))
    same, other, none = (call("compare", tmp_path / "a", tmp_path / name) for name in "bcd")
    assert "ns/cold lookup" in same.stdout
    assert "and apart from them for" in same.stdout
    assert "differs: caches of cold lookups" not in same.stdout
    assert "ns/cold lookup" not in other.stdout + none.stdout
    assert "differs: caches of cold lookups: program=40960 against program=65536" in other.stdout
    assert "differs: caches of cold lookups: program=40960 against no such figure" in none.stdout


def test_another_host_of_the_same_kind_is_told(tmp_path: Path) -> None:
    """CI machines differ in name: told, not refused."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(seed=5), start=60, host=HOST | {"hostname": "there"})
    done = call("compare", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 0
    assert "differs: host: here against there" in done.stdout


def test_gate_in_both_directions(tmp_path: Path) -> None:
    """10 % slower fails at 5 %, passes at 20 %; the other way round it is an improvement."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(mine=8.8, seed=5), start=60)
    worse = call("gate", tmp_path / "a", tmp_path / "b")
    assert worse.exit_code == REGRESSION
    assert "regression: slower: mine on toy, ns/lookup: +10." in worse.stdout
    assert worse.stdout.splitlines()[-1] == "gate: regression, 2 reasons: mine on toy (2 figures slower)"
    assert call("gate", tmp_path / "a", tmp_path / "b", "--max-slowdown", "20%").exit_code == PASS
    better = call("gate", tmp_path / "b", tmp_path / "a")
    assert better.exit_code == PASS
    assert "better: faster: mine on toy" in better.stdout


def test_gate_is_loose_on_noise(tmp_path: Path) -> None:
    """4 % slower at a limit of 5 % passes; so does what is too noisy to say, and it is said."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(mine=8.32, seed=5), start=60)
    assert call("gate", tmp_path / "a", tmp_path / "b").exit_code == PASS
    wild = {name: {"lookup": noise(ns, 4, i, 0.2)} for i, (name, ns) in enumerate({"base": 10.0, "mine": 8.8}.items())}
    made(tmp_path / "c", wild, start=60)
    unsure = call("gate", tmp_path / "a", tmp_path / "c")
    assert unsure.exit_code == PASS
    assert "too noisy to say" in unsure.stdout


def test_gate_errs_seldom(tmp_path: Path) -> None:
    """Sixty gates of two equal runs: none or few fail, though each has four figures."""
    failed = 0
    for seed in range(60):
        sides = []
        for n in range(2):
            cells = speeds(seed=1000 * seed + 200 * n)
            sides.append(Side(made(tmp_path / f"{seed}-{n}", cells, start=60 * n)))
        failed += gate(compare(*sides), limit=0.0).code != PASS
    assert failed <= 7  # 3 are expected at a limit of 0


def test_gate_is_exact_on_cost(tmp_path: Path) -> None:
    """One load in a million more is a regression, one less an improvement; hits count the other way."""
    sides = {}
    for i, (name, cost) in enumerate(
        {
            "a": {"lookup.loads": 5.0, "lookup.loads_se": 0.001, "lookup.hits": 0.5},
            "more": {"lookup.loads": 5.000001, "lookup.hits": 0.5},
            "less": {"lookup.loads": 4.0, "lookup.hits": 0.5},
            "fewer": {"lookup.loads": 5.0, "lookup.hits": 0.4},
            "sampled": {"lookup.loads": 5.001, "lookup.loads_se": 0.001, "lookup.hits": 0.5, "counted": 800},
            "heavier": {"lookup.loads": 5.5, "lookup.loads_se": 0.001, "lookup.hits": 0.5, "counted": 800},
            "other": {"lookup.loads": 5.0, "lookup.hits": 0.5, "events": 901},
            "none": {},
        }.items()
    ):
        states = counted(cost) if cost else None
        sides[name] = Side(made(tmp_path / name, speeds(seed=1), states=states, start=60 * i))
    outcomes = {name: gate(compare(sides["a"], side)) for name, side in sides.items() if name != "a"}
    assert {name: outcome.code for name, outcome in outcomes.items()} == {
        "more": REGRESSION,
        "less": PASS,
        "fewer": REGRESSION,
        "sampled": PASS,
        "heavier": REGRESSION,
        "other": PASS,
        "none": PASS,
    }
    assert "cost: mine on toy, lookup.loads: 5 -> 5.000001 (+2e-05 %)" in outcomes["more"].bad
    assert "cost: mine on toy, lookup.loads: 5 -> 4 (-20 %)" in outcomes["less"].good
    assert any("different events" in note for note in outcomes["other"].notes)
    strict = gate(compare(sides["a"], sides["less"]), cost="exact")
    assert strict.code == INVALID
    assert "base on toy: no counted cost in BASE" in strict.bad
    assert gate(compare(sides["a"], sides["more"]), cost="off").code == PASS
    codes = [gate(compare(sides["a"], sides[name]), growth=0.1).code for name in ("more", "fewer", "heavier")]
    assert codes == [PASS, REGRESSION, PASS]  # by up to 10 %, and a fifth fewer hits is more than that


def test_a_gate_reads_as_a_page_and_as_a_table(tmp_path: Path) -> None:
    """As Markdown the outcome stands first, every reason is an item of a list; as CSV the table is all of stdout. What
    is slower though nothing that is counted grew is said to be so."""
    cost = counted({"lookup.loads": 5.0})
    made(tmp_path / "a", speeds(seed=1), states=cost)
    made(tmp_path / "b", speeds(mine=8.8, seed=5), states=cost, start=60)
    page = call("gate", tmp_path / "a", tmp_path / "b", "--format", "markdown").stdout.splitlines()
    assert page[0] == "**gate: regression, 2 reasons: mine on toy (2 figures slower)**"
    assert page[2].startswith("- regression: slower: mine on toy, ns/lookup: +1")
    assert any(line.startswith("- note: mine on toy: slower, though no counted cost grew") for line in page)
    assert next(line for line in page if line.startswith("|")).startswith("| workload ")
    table = call("gate", tmp_path / "a", tmp_path / "b", "--format", "csv")
    assert [line.count(",") for line in table.stdout.splitlines()] == [15] * 5
    assert table.stderr.splitlines()[-1] == page[0].strip("*")


def test_cost_of_another_model_is_not_compared(tmp_path: Path) -> None:
    """With --anyway over two models time is judged, cost is not."""
    a = Side(made(tmp_path / "a", speeds(seed=1), states=counted({"lookup.loads": 5.0})))
    other = VERSIONS | {"model": "f" * 16}
    b = Side(made(tmp_path / "b", speeds(seed=1), states=counted({"lookup.loads": 9.0}), versions=other, start=60))
    outcome = gate(compare(a, b))
    assert outcome.code == PASS
    assert "counted cost is not comparable: another model" in outcome.notes


def test_gate_on_what_failed_or_is_missing(tmp_path: Path) -> None:
    """A wrong or missing cell in NEW is exit code 2, whatever the figures; one that is new is a note."""
    made(tmp_path / "a", speeds(seed=1))
    wrong = {"mine": CellState(state="wrong", message="find_vma(0x1000) gave NIL")}
    made(tmp_path / "b", speeds(seed=5), states=wrong, start=60)
    made(tmp_path / "c", {"base": speeds()["base"]}, start=60)
    failed = call("gate", tmp_path / "a", tmp_path / "b")
    assert failed.exit_code == INVALID
    assert "invalid: not compared: mine on toy is wrong in b" in failed.stdout
    assert call("gate", tmp_path / "a", tmp_path / "c").exit_code == INVALID
    added = call("gate", tmp_path / "c", tmp_path / "a")
    assert added.exit_code == PASS
    assert "note: new: mine on toy is not in c" in added.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "a:nobody", "b"], "it has no strategy nobody; it has base, mine"),
        (["compare", "a", "a"], "both sides are the same"),
        (["compare", "a", "b", "--format", "html"], "no format is called 'html'"),
        (["compare", "a", "nothing"], "no such run"),
        (["gate", "a", "b", "--max-slowdown", "much"], "'much' is not a percentage"),
        (["gate", "a", "b", "--cost", "some"], "--cost takes auto, exact, off"),
    ],
)
def test_bad_usage_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    """Exit code 2 and one line that says what was wrong."""
    for name in "ab":
        made(tmp_path / name, speeds(seed=ord(name)), start=ord(name))
    done = call(*arguments, "--output", tmp_path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_formats_and_last(tmp_path: Path) -> None:
    """DIR/last names the newest run below DIR; Markdown and CSV hold the same lines."""
    for name, seed in (("20260101-a", 1), ("20260102-b", 5)):
        made(tmp_path / "x" / name, speeds(seed=seed), start=60 * seed)
    done = call("compare", tmp_path / "x" / "20260101-a", tmp_path / "x" / "last", "--format", "markdown")
    assert done.exit_code == 0
    assert "| toy" in done.stdout
    rows = call("compare", tmp_path / "x" / "20260101-a", tmp_path / "x" / "last", "-f", "csv").stdout.splitlines()
    assert len(rows) == 5
    assert rows[0].startswith("workload,first,second,figure,first_ns")


def test_verdicts_are_counted(tmp_path: Path) -> None:
    """Below the table stands how often each verdict was reached."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(mine=8.8, seed=5), start=60)
    text = call("compare", tmp_path / "a", tmp_path / "b").stdout
    assert "B is: slower 2, the same 2, of 4." in text


def test_within_moves_the_smallest_effect(tmp_path: Path) -> None:
    """3 % is slower, and the same within 5 %."""
    made(tmp_path / "a", speeds(seed=1))
    made(tmp_path / "b", speeds(mine=8.24, seed=5), start=60)
    assert "slower" in call("compare", tmp_path / "a:mine", tmp_path / "b").stdout
    assert "same within 5 %" in call("compare", tmp_path / "a:mine", tmp_path / "b", "--within", "5").stdout


def test_sides_need_a_run(tmp_path: Path) -> None:
    """A folder without a manifest is named as such."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError, match=r"no manifest\.json"):
        read_sides(str(tmp_path / "empty"), "last", tmp_path)
