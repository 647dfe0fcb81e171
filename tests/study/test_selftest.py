"""The self-test: conclusions from a recorded run and from simulated records; one small run with made-up sessions."""

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchframe.check.conform import Conformance
from benchframe.cli import app
from benchframe.engine.job import worker_command
from benchframe.registry import load
from benchframe.results import ResultsError
from benchframe.study.selftest import (
    FIGURES,
    PLUGIN,
    POWER,
    Load,
    Means,
    Record,
    SelfTest,
    detection,
    false_positives,
    injected,
    injected_exactly,
    judge_record,
    loaded,
    power,
    read_record,
    smallest_effect,
)
from benchframe.study.twins import BASELINE, COPIES, SLOWED

RECORDED = Path(__file__).resolve().parents[1] / "data" / "selftest.json"


def means(names: dict[str, float], rounds: int, sd: float, rng: np.random.Generator, jump: float = 0.0) -> Means:
    """Simulated process means with shared drift per round; from half on everything is ``jump`` slower."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for figure in FIGURES:
        drift = np.cumsum(rng.normal(0, 0.01, rounds)) + jump * (np.arange(rounds) >= rounds // 2)
        found[figure] = {
            name: dict(enumerate((level * np.exp(drift + rng.normal(0, sd, rounds))).tolist()))
            for name, level in names.items()
        }
    return found


def record(sd: float = 0.01, slow: float = 1.03, jump: float = 0.2, copy: float = 1.0, seed: int = 1) -> Record:
    """A simulated self-test."""
    rng = np.random.default_rng(seed)
    equal = dict.fromkeys((BASELINE, *COPIES), 10.0)
    return Record(
        workload="toy",
        quiet=means({**equal, SLOWED: 10 * slow}, 20, sd, rng),
        load=means({BASELINE: 10.0, COPIES[0]: 10.0 * copy, SLOWED: 10 * slow}, 24, sd, rng, jump),
        loaded_from=12,
        seconds=1.0,
        overhead=(8.0, 9.0),
        about={"cpu": "Test CPU"},
    )


def test_recorded_run_is_judged_as_it_was() -> None:
    """A real self-test (20 + 24 rounds on a machine with other load): few false positives, none in a table; passed."""
    found = read_record(RECORDED)
    false = false_positives(found.quiet)
    assert (false.n, false.independent, false.tables) == (180, 12, 4)
    assert false.wrong / false.n <= 0.05
    assert false.independent_wrong == false.wrong_tables == 0
    judgement = judge_record(found)
    assert judgement.problems == ()
    assert "passed" in judgement.text
    assert judge_record(found).text == judgement.text


def test_recorded_run_from_the_command_line() -> None:
    """`selftest --again` prints the conclusions of a file and measures nothing."""
    done = CliRunner().invoke(app, ["selftest", "--again", str(RECORDED)])
    assert done.exit_code == 0
    assert "A/A: rbtree against copies of itself" in done.stdout
    bad = CliRunner().invoke(app, ["selftest", "--again", "nowhere.json"])
    assert bad.exit_code == 2
    assert bad.stderr.count("\n") == 1


def test_false_positive_rate_is_that_of_the_noise() -> None:
    """Over 30 simulated self-tests the single rate is about 5 %, and few tables are wrong."""
    total = [0, 0, 0, 0]
    for seed in range(30):
        found = false_positives(record(seed=seed).quiet)
        total = [a + b for a, b in zip(total, (found.wrong, found.n, found.wrong_tables, found.tables), strict=True)]
    assert 0.03 < total[0] / total[1] < 0.07
    assert total[2] / total[3] < 0.08


def test_power_is_what_sampling_gives() -> None:
    """The noncentral t agrees with 4000 simulated experiments, and with drawing from the measured ratios."""
    rng = np.random.default_rng(2)
    logs = rng.normal(math.log(1.03), 0.02, (4000, 8))
    t = logs.mean(axis=1) / (logs.std(axis=1, ddof=1) / math.sqrt(8))
    assert detection(0.02, 8, math.log(1.03)) == pytest.approx((t > 2.365).mean(), abs=0.02)
    found = power(record(sd=0.01), "lookup", rng)
    assert found is not None
    assert found.sd == pytest.approx(0.01 * math.sqrt(2), rel=0.15)
    assert found.resampled == pytest.approx(found.found, abs=0.03)
    assert found.found > 0.99
    assert list(found.smallest) == sorted(found.smallest, reverse=True)


def test_smallest_effect_is_found_with_its_power() -> None:
    """What is named smallest is found with probability POWER; with one round nothing is."""
    for n in (3, 10, 60):
        effect = smallest_effect(0.02, n)
        assert detection(0.02, n, math.log1p(effect)) == pytest.approx(POWER, abs=1e-6)
    assert math.isinf(smallest_effect(0.02, 1))
    assert detection(0.02, 1, 0.03) == 0


def test_load_deceives_only_who_runs_one_after_the_other() -> None:
    """A load that slows everything by 20 %: interleaved verdicts stay right, sequential ones do not."""
    under = {(one.figure, one.strategy): one for one in loaded(record())}
    copy, slowed = under["lookup", COPIES[0]], under["lookup", SLOWED]
    assert copy.slowdown == pytest.approx(math.expm1(0.2), abs=0.06)
    assert copy.interleaved.word == "same"
    assert (copy.before.word, copy.after.word) == ("slower", "faster")
    assert slowed.interleaved.word == "slower"
    assert slowed.after.word == "faster"  # the slower strategy looks faster
    assert judge_record(record()).problems == ()


def test_problems_are_found() -> None:
    """A copy that is 5 % slower under load, and copies that differ, fail the self-test."""
    uneven = judge_record(record(copy=1.05))
    assert any("although it is the same code" in problem for problem in uneven.problems)
    assert "FAILED" in uneven.text
    rng = np.random.default_rng(3)
    levels = {name: 10 * 1.05**i for i, name in enumerate((BASELINE, *COPIES, SLOWED))}
    biased = replace(record(), quiet=means(levels, 20, 0.01, rng))
    assert any("differs from itself" in problem for problem in judge_record(biased).problems)
    quick = replace(record(), quiet=means({BASELINE: 10.0, COPIES[0]: 10.0, SLOWED: 9.0}, 20, 0.01, rng))
    assert any("the slowed strategy reads faster" in problem for problem in judge_record(quick).problems)


def test_injected_effect_is_measured() -> None:
    """The slowed twin's size comes out with an interval that holds the truth."""
    verdict = injected(record(sd=0.005))["fault"]
    assert verdict.word == "slower"
    assert verdict.ratio.low < 1.03 < verdict.ratio.high


def test_exact_injection() -> None:
    """3 % by multiplication is found in nearly every pair at 1 % noise, 0 % in about one in forty (one side of 5 %)."""
    assert injected_exactly(record())["lookup"] >= (14, 15)
    found = [injected_exactly(record(seed=seed), 0.0)["fault"] for seed in range(20)]
    assert sum(k for k, _ in found) / sum(n for _, n in found) < 0.06


def test_records_are_read_with_suspicion(tmp_path: Path) -> None:
    """Round trip; files with times that are none, or not JSON, end in a ResultsError."""
    record().write(tmp_path / "x.json")
    again = read_record(tmp_path / "x.json")
    assert again.quiet["fault"][SLOWED] == record().quiet["fault"][SLOWED]
    empty = {**record().quiet, "lookup": {BASELINE: {0: 1.0}}}
    replace(record(), quiet=empty).write(tmp_path / "z.json")
    with pytest.raises(ResultsError, match="no two strategies"):
        read_record(tmp_path / "z.json")
    text = (tmp_path / "x.json").read_text()
    for old, new in (('"seconds": 1.0', '"seconds": "no"'), ('"toy"', "7"), ("{", "["), ('"0": 1', '"0": -1')):
        assert old in text
        (tmp_path / "y.json").write_text(text.replace(old, new))
        with pytest.raises(ResultsError):
            read_record(tmp_path / "y.json")


def test_load_burns_until_it_is_left() -> None:
    """Off at first, on after start(), gone after the block and when its parent dies."""
    with Load(2) as load_:
        assert load_.running == 0
        load_.start()
        load_.start()
        assert load_.running == 2
        pids = [process.pid for process in load_._processes]
    assert load_.running == 0
    code = (
        "from benchframe.study.selftest import Load\nimport os\nload = Load(1)\nload.start()\n"
        "print(load._processes[0].pid, flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    pids.append(int(done.stdout))
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() and _burning(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() and _burning(pid) for pid in pids)


def _burning(pid: int) -> bool:
    """Whether the process runs (an orphan that nobody waits for may stay as a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_copies_share_code_and_the_twin_does_not() -> None:
    """The plugin's copies have the baseline's very code; the slowed twin has other code, and all answer rightly."""
    from benchframe.units import strategy_digest

    known = load([PLUGIN])
    digests = {name: strategy_digest(known.strategy(name)) for name in (BASELINE, *COPIES, SLOWED)}
    assert len({digests[name] for name in (BASELINE, *COPIES)}) == 1
    assert digests[SLOWED] != digests[BASELINE]


def test_slowed_twin_is_right() -> None:
    """The twin's additional walks change no answer: 120 random calls beside the oracle, interpreted."""
    found = Conformance(load([PLUGIN]).strategy(SLOWED)).run(120, 1, time.monotonic() + 60)
    assert found.failure == ""
    assert found.calls >= 120


@pytest.mark.slow
def test_a_small_self_test_with_made_up_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parts are run with real processes, the load is switched on half-way and off again, the record is written."""
    for rounds in ("BLOCKED", "PILOT"):
        monkeypatch.setattr(f"benchframe.study.selftest.{rounds}", 2)
    said: list[str] = []
    test = SelfTest(
        load([PLUGIN]),
        "uniform:vmas=10",
        0.01,
        tmp_path / "st",
        said.append,
        worker=worker_command("support.fake_worker"),
        compile=lambda strategies, progress: None,
        copies=1,
        least=2,
    )
    found = test.run()
    assert {len(by_round) for by_round in found.quiet["lookup"].values()} == {2}
    assert set(found.quiet["lookup"]) == {BASELINE, COPIES[0], SLOWED}
    assert {len(by_round) for by_round in found.load["fault"].values()} == {2}
    assert any("busy loops are started" in text for text in said)
    assert read_record(tmp_path / "st" / "selftest.json").quiet == found.quiet
    assert found.overhead == (7.0, 7.0)
    assert found.seconds > 0
    assert (tmp_path / "st" / "quiet" / "manifest.json").is_file()
