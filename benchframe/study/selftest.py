"""The tool tested with itself: copies of one text, a slowed twin, load that starts half-way.

Below are the self-test itself, then its analysis, then both as text.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from benchframe.engine.caches import UNTOUCHED, Caches
from benchframe.engine.job import DEPTHS, Outcome, spare_cpu
from benchframe.errors import ResultsError
from benchframe.files import write_json
from benchframe.report.table import ratio_text
from benchframe.results.campaign import (
    FIRST_LOOK,
    Campaign,
    Compile,
    Observer,
    Stream,
    compile_native,
    make_stream,
    plan,
)
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import CellEntry, Number, Numbers, Options, Text, Words, read_document, suffix, wrong
from benchframe.stats import ALPHA, Judging, Pair, Ratio, Verdict, judge, paired_ratio, welch_ratio
from benchframe.stats.verdict import above, differs
from benchframe.study import twins
from benchframe.study.twins import BASELINE, COPIES, PERIOD, SLOWED

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy

# ----------------------------------------------------------------------------------------------------------------------
# A background load that can be switched on: processes in busy loops.

_BURN = """
import os, sys
if hasattr(os, "sched_setscheduler"):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
while os.getppid() == int(sys.argv[1]):
    for _ in range(100000):
        pass
"""
"""Ends by itself when its parent has died, even if that was before it could check. With the usual scheduling: under
`chrt -f` it would keep everything else from its CPU, the measuring process too."""


class Load:
    """``hogs`` processes (default: one per CPU) from :meth:`start` on until the ``with`` block ends."""

    def __init__(self, hogs: int | None = None) -> None:
        self.hogs = hogs or os.cpu_count() or 1
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Switch the load on; a second time changes nothing."""
        if not self._processes:
            command = [sys.executable, "-I", "-S", "-c", _BURN, str(os.getpid())]
            self._processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(self.hogs)]

    @property
    def running(self) -> int:
        """How many burn now."""
        return sum(process.poll() is None for process in self._processes)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


# ----------------------------------------------------------------------------------------------------------------------
# A self-test's measurements as plain data: enough to repeat every conclusion without timing anything.

FIGURES = ("lookup", "fault", "mapping")
_Rounds = Annotated[Mapping[int, Annotated[float, Meta(gt=0)]], Meta(max_length=100_000)]
Means = Mapping[str, Annotated[Mapping[Text, _Rounds], Meta(max_length=64)]]
"""Process means: figure -> strategy -> round -> ns."""


@dataclass(frozen=True)
class Record:
    """``quiet`` and ``load`` are the process means of the two parts, without and with a load; in the second the load
    began with round ``loaded_from``. ``seconds`` is the average time of a process in the part without load,
    ``overhead`` the cost of reading the cycle counter (ns, lowest and highest), ``about`` host, versions, date,
    options, ``loads`` each strategy's counted loads per lookup, which show the injected effect without noise."""

    workload: Text
    quiet: Means
    load: Means
    loaded_from: Annotated[int, Meta(ge=0, le=1 << 20)]
    seconds: Number
    overhead: tuple[Number, Number]
    about: Words
    loads: Numbers = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON. Raises ResultsError."""
        write_json(path, asdict(self))


def means_of(folder: RunFolder) -> Means:
    """Process means of a run; a cell that failed has none. Raises ResultsError."""
    cells = [cell for cell in folder.cells() if cell.state.state == "ok"]
    return {figure: {c.entry.strategy: c.rounds(figure) for c in cells if c.rounds(figure)} for figure in FIGURES}


def read_record(path: Path) -> Record:
    """Read and check what :meth:`Record.write` wrote. Raises ResultsError."""
    record = read_document(path, Record)
    for part, means in (("quiet", record.quiet), ("load", record.load)):
        if set(means) != set(FIGURES):
            raise wrong(path, part, f"does not have the figures {', '.join(FIGURES)}")
    rounds = [set(by_round) for by_round in record.quiet["lookup"].values()]
    if len(rounds) < 2 or not set.intersection(*rounds):
        raise wrong(path, "quiet.lookup", "has no two strategies with rounds in common")
    return record


# ----------------------------------------------------------------------------------------------------------------------
# Carries out a self-test with the real engine: worker processes in interleaved rounds, as every run's.
#
# Two parts, each a run in the results folder. The quiet one has the baseline, its copies and the slowed twin. In the
# other (baseline, one copy, slowed twin) processes that only burn CPU are switched on when half of the rounds are done.

PLUGIN = Path(twins.__file__).resolve()
LOAD_SHARE = 0.3
"""The share of time for the part with a load."""
LOADED = (twins.COPIES[0], twins.SLOWED)
TIMEOUT = 300.0
COUNTED = 200_000
"""Records of the counted replay that determines how much work the slowed twin does."""

Say = Callable[[str], None]


@dataclass
class SelfTest:
    """One self-test: ``minutes`` of measuring on ``workload``. ``worker`` and ``compile`` are replaced by tests."""

    known: Registry
    workload: str
    minutes: float
    folder: Path
    say: Say
    seed: int = 1
    caches: Caches = UNTOUCHED
    """The state in which each event finds the caches."""
    worker: Sequence[str] = ()
    compile: Compile = compile_native
    depth: str = "quick"
    copies: int = len(twins.COPIES)
    least: int = 6
    """The least number of rounds of the part with a load; even."""

    def run(self) -> Record:
        """Measure and write ``selftest.json`` into the folder. Raises the same errors as a run."""
        spec = self.known.spec(self.workload)
        stream = make_stream(spec, 0, caches=str(self.caches))
        stream = Stream(replace(stream.entry, baseline=twins.BASELINE), stream.trace)
        self.say("compiling (only the first time)")
        everything = (*twins.COPIES[: self.copies], twins.SLOWED)
        cells = len(everything) + 1
        first = self._part("quiet", everything, stream, PILOT)
        if len(means_of(first)["lookup"]) != cells:
            lost = next((cell for cell in first.cells() if not cell.rounds("lookup")), first.cells()[0])
            what = lost.state.message or "no time per lookup on this workload"
            raise ResultsError(first.path, f"{lost.entry.strategy}: {what}", "choose a workload with many faults")
        each = self._seconds / (PILOT * cells)
        quiet = max(BLOCKED, int(60 * self.minutes * (1 - LOAD_SHARE) / (each * cells)))
        quiet -= quiet % BLOCKED
        loaded = max(self.least, int(60 * self.minutes * LOAD_SHARE / (2 * each * (len(LOADED) + 1))) * 2)
        self.say(
            f"a process takes {each:.1f} s: {quiet} quiet rounds of {cells}, {loaded} of {len(LOADED) + 1} with a load"
        )
        first = self._continue(first, everything, stream, quiet)
        with Load() as load:
            second = self._part("load", LOADED, stream, loaded, _Switch(loaded // 2, load, self.say))
        return self._record(first, second, loaded // 2, each)

    def _part(
        self, name: str, asked: Sequence[str], stream: Stream, rounds: int, observer: Observer | None = None
    ) -> RunFolder:
        depth, cpu = DEPTHS[self.depth], spare_cpu()
        options = Options(
            mode=self.depth,
            rounds=rounds,
            values=depth.values,
            warmups=depth.warmups,
            min_time=depth.min_time,
            timeout=TIMEOUT,
            cpu=-1 if cpu is None else cpu,
            cost=COUNTED,
        )
        strategies = self._strategies(asked)
        command = ["benchframe", "selftest"]
        manifest = plan(asked, strategies, [stream], options, seed=self.seed, command=command, plugins=[str(PLUGIN)])
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = RunFolder.create(self.folder / name, manifest)
        self._sit(folder, strategies, stream, observer)
        return folder

    def _continue(self, folder: RunFolder, asked: Sequence[str], stream: Stream, rounds: int) -> RunFolder:
        options = replace(folder.manifest.options, rounds=rounds)
        folder.save(replace(folder.manifest, options=options))
        self._sit(folder, self._strategies(asked), stream, None)
        return folder

    def _sit(
        self, folder: RunFolder, strategies: Mapping[str, Strategy], stream: Stream, observer: Observer | None
    ) -> None:
        clock = _Clock(observer or Observer())
        Campaign(
            folder,
            strategies,
            {stream.entry.label: stream.trace},
            clock,
            plugins=[str(PLUGIN)],
            worker=self.worker,
            compile=self.compile,
        ).run()
        self._seconds = clock.seconds

    def _strategies(self, asked: Sequence[str]) -> dict[str, Strategy]:
        return {name: self.known.strategy(name) for name in (twins.BASELINE, *asked)}

    def _record(self, quiet: RunFolder, load: RunFolder, loaded_from: int, seconds: float) -> Record:
        manifest = quiet.manifest
        overheads = [c.state.timer_overhead_ns for c in quiet.cells() if c.state.timer_overhead_ns] or [0.0]
        record = Record(
            workload=self.workload + suffix(0, self.caches),
            quiet=means_of(quiet),
            load=means_of(load),
            loaded_from=loaded_from,
            seconds=seconds,
            overhead=(min(overheads), max(overheads)),
            about={
                **manifest.host,
                **manifest.versions,
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "pinned": "no" if manifest.options.cpu < 0 else f"CPU {manifest.options.cpu}",
                "noise": "; ".join(manifest.noise) or "none noticed",
            },
            loads={
                cell.entry.strategy: cell.state.cost["lookup.loads"]
                for cell in quiet.cells()
                if "lookup.loads" in cell.state.cost
            },
        )
        record.write(self.folder / "selftest.json")
        return record


PILOT = FIRST_LOOK + 1
"""Rounds that determine how long a process takes. They count, so they are not a first look, for which disturbed
processes are not repeated."""
BLOCKED = 5
"""The number of rounds without load is a multiple of this: benchframe.study.selftest.BLOCK."""


class _Clock(Observer):
    """Adds up the processes' durations, and passes everything on."""

    def __init__(self, inner: Observer) -> None:
        self.inner = inner
        self.seconds = 0.0
        self._last = 0.0

    def begin(self, processes: int) -> None:
        self._last = time.perf_counter()

    def process(self, entry: CellEntry, round_: int, outcome: Outcome) -> None:
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now
        self.inner.process(entry, round_, outcome)


class _Switch(Observer):
    """Switches the load on before the first process of round ``first``."""

    def __init__(self, first: int, load: Load, say: Say) -> None:
        self.first, self.load, self.say = first, load, say
        self._done: dict[int, int] = {}

    def process(self, entry: CellEntry, round_: int, outcome: Outcome) -> None:
        self._done[round_] = self._done.get(round_, 0) + 1
        if round_ == self.first - 1 and self._done[round_] == len(LOADED) + 1:
            self.say(f"half-way: {self.load.hogs} busy loops are started")
            self.load.start()


# ----------------------------------------------------------------------------------------------------------------------
# Conclusions from a self-test's record: false positives, power, smallest effect per minute, and the effect of a load.
#
# Pure functions of a :class:`~benchframe.study.selftest.Record`; nothing is timed here.

ALARM = 0.01
"""A self-test of a tool without fault fails because of its part with a load with at most this probability. A table's
lines are decided at ALPHA, but a self-test is run again and again, and one in twenty would fail for nothing."""
BLOCK = 5
"""Rounds of one A/A comparison: those of a short run."""
MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
POWER = 0.9

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FalsePositives:
    """Of ``n`` comparisons of a strategy with itself ``wrong`` differ at ALPHA, uncorrected. ``independent`` and
    ``independent_wrong`` count those that share no process; ``low`` and ``high`` bound the rate at 95 % (Clopper and
    Pearson, over the independent ones). They form ``tables`` tables, of which ``wrong_tables`` contain a false verdict
    after the correction."""

    n: int
    wrong: int
    independent: int
    independent_wrong: int
    low: float
    high: float
    tables: int
    wrong_tables: int


@dataclass(frozen=True)
class Power:
    """One figure: ``sd`` of the log ratio of two processes in a round; ``smallest`` effect (0.03: 3 %) that is detected
    with probability POWER in each of MINUTES; ``found`` the probability of detecting a 3 % slow-down in two minutes,
    ``resampled`` the same by drawing from the measured ratios instead of a normal distribution."""

    figure: str
    sd: float
    smallest: tuple[float, ...]
    found: float
    resampled: float


@dataclass(frozen=True)
class Loaded:
    """One comparison under a load that began half-way: the verdict of interleaved rounds, and the verdicts from the
    same values if one strategy's are all taken before the load and the other's all under it, and vice versa."""

    figure: str
    strategy: str
    interleaved: Verdict
    before: Ratio
    after: Ratio
    slowdown: float
    """By how much the load slows the figure itself."""


def equals(means: Means) -> list[str]:
    """The strategies that run identical code."""
    return [name for name in (BASELINE, *COPIES) if name in means[FIGURES[0]]]


def false_positives(means: Means, block: int = BLOCK) -> FalsePositives:
    """All pairs of equal strategies, over blocks of ``block`` rounds. In each block disjoint pairs are the independent
    ones. O(pairs x rounds)."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    names = equals(means)
    rounds = sorted(set.intersection(*(set(means[FIGURES[0]][name]) for name in names))) if names else []
    n = wrong = independent = independent_wrong = tables = wrong_tables = 0
    for start in range(0, len(rounds) - block + 1, block):
        part = rounds[start : start + block]
        table = []
        for figure in FIGURES:
            for a, b in combinations(names, 2):
                pair = Pair(_only(means[figure].get(a, {}), part), _only(means[figure].get(b, {}), part))
                ratio = paired_ratio(pair.strategy, pair.baseline)
                if ratio is None or ratio.n < 2:
                    continue
                significant = differs(ratio) <= ALPHA
                n, wrong = n + 1, wrong + significant
                if (a, b) in zip(names[::2], names[1::2], strict=False) and figure == FIGURES[0]:
                    independent, independent_wrong = independent + 1, independent_wrong + significant
                if a == names[0]:
                    table.append(pair)
        verdicts = judge(table, notes=False)
        tables += 1
        wrong_tables += any(v is not None and v.word in ("faster", "slower") for v in verdicts)
    k, m = independent_wrong, independent
    low = float(betaincinv(k, m - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, m - k, 0.975)) if k < m else 1.0
    return FalsePositives(n, wrong, independent, independent_wrong, low, high, tables, wrong_tables)


def power(record: Record, figure: str, rng: np.random.Generator) -> Power | None:
    """Which effect can be detected in which time; None if the workload has no such figure."""
    names = [name for name in equals(record.quiet) if name in record.quiet[figure]]
    rounds = sorted(set.intersection(*(set(record.quiet[figure][name]) for name in names))) if names else []
    if len(names) < 2 or len(rounds) < 3:
        return None
    logs = np.log([[record.quiet[figure][name][r] for r in rounds] for name in names])
    rest = logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()
    degrees = (len(names) - 1) * (len(rounds) - 1)
    sd = math.sqrt(2 * float((rest**2).sum()) / degrees)
    pair = 2 * record.seconds
    smallest = tuple(smallest_effect(sd, int(60 * minutes / pair)) for minutes in MINUTES)
    n = int(120 / pair)
    pairs = np.array([logs[i] - logs[j] for i, j in combinations(range(len(names)), 2)]).ravel()
    return Power(figure, sd, smallest, detection(sd, n, math.log(1.03)), _resampled(pairs, n, math.log(1.03), rng))


def detection(sd: float, n: int, effect: float, alpha: float = ALPHA) -> float:
    """The probability that ``n`` paired rounds detect a log ratio ``effect`` at ``alpha`` (noncentral t).

    >>> detection(0.02, 5, 0.03) < detection(0.02, 9, 0.03) < 1
    True
    """
    from scipy.special import nctdtr, stdtrit

    if n < 2:
        return 0.0
    return 1.0 - float(nctdtr(n - 1, effect * math.sqrt(n) / sd, stdtrit(n - 1, 1 - alpha / 2)))


def smallest_effect(sd: float, n: int) -> float:
    """The smallest relative slow-down that ``n`` rounds detect with probability POWER; infinite for n < 2. By
    bisection."""
    if n < 2:
        return math.inf
    low, high = 0.0, sd
    while detection(sd, n, high) < POWER:
        high *= 2
        if high > 100 * sd:
            return math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if detection(sd, n, middle) >= POWER else (middle, high)
    return math.expm1(high)


def _resampled(pairs: Array, n: int, effect: float, rng: np.random.Generator) -> float:
    """Detection by drawing ``n`` of the measured log ratios of equal strategies, times 1.03; 4000 draws."""
    from scipy.special import stdtrit

    if n < 2:
        return 0.0
    drawn = rng.choice(np.concatenate([pairs, -pairs]), (4000, n)) + effect
    t = drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / math.sqrt(n))
    return float((t > stdtrit(n - 1, 1 - ALPHA / 2)).mean())


def injected(record: Record) -> dict[str, Verdict]:
    """The slowed twin against the baseline, by figure, over all rounds without load."""
    return {figure: verdict for (_, figure), verdict in _verdicts(record.quiet, [SLOWED]).items()}


def injected_exactly(record: Record, effect: float = 0.03) -> dict[str, tuple[int, int]]:
    """By figure: for how many pairs of equal strategies the second, with its measured times multiplied by 1 +
    ``effect``, is found slower over all rounds without load, uncorrected at ALPHA; and the number of pairs. The noise
    is that of the host, the size of the effect is exact."""
    found = {}
    for figure in FIGURES:
        sides = [record.quiet[figure][name] for name in equals(record.quiet) if name in record.quiet[figure]]
        ratios = [
            paired_ratio({r: (1 + effect) * v for r, v in second.items()}, first)
            for first, second in combinations(sides, 2)
        ]
        tested = [2 * above(ratio) <= ALPHA for ratio in ratios if ratio is not None and ratio.n > 1]
        if tested:
            found[figure] = (sum(tested), len(tested))
    return found


def loaded(record: Record) -> list[Loaded]:
    """Each comparison of the part with a load, interleaved and as if its strategies had run one after the other."""
    found = []
    names = [name for name in dict.fromkeys(n for sides in record.load.values() for n in sides) if name != BASELINE]
    verdicts = _verdicts(record.load, names)
    for figure in FIGURES:
        sides = record.load[figure]
        base = sides.get(BASELINE, {})
        for name in names:
            if (verdict := verdicts.get((name, figure))) is None:
                continue
            before = welch_ratio(_from(sides[name], record.loaded_from), _until(base, record.loaded_from))
            after = welch_ratio(_until(sides[name], record.loaded_from), _from(base, record.loaded_from))
            change = welch_ratio(_from(base, record.loaded_from), _until(base, record.loaded_from))
            if before and after and change:
                found.append(Loaded(figure, name, verdict, before, after, change.value - 1))
    return found


def _verdicts(means: Means, names: Sequence[str]) -> dict[tuple[str, str], Verdict]:
    """Verdicts on these strategies, by name and figure, all of them one family as in a table of a run."""
    found = [(n, f) for n in names for f in FIGURES if n in means[f] and BASELINE in means[f]]
    verdicts = judge([Pair(means[figure][name], means[figure][BASELINE]) for name, figure in found], Judging())
    return {one: v for one, v in zip(found, verdicts, strict=True) if v is not None}


def _only(means: Mapping[int, float], rounds: Sequence[int]) -> dict[int, float]:
    return {r: means[r] for r in rounds if r in means}


def _from(means: Mapping[int, float], first: int) -> dict[int, float]:
    return {r: v for r, v in means.items() if r >= first}


def _until(means: Mapping[int, float], end: int) -> dict[int, float]:
    return {r: v for r, v in means.items() if r < end}


# ----------------------------------------------------------------------------------------------------------------------
# A self-test's record as text, and whether it passes.


@dataclass(frozen=True)
class Judgement:
    """The text, and the reasons not to trust this host; empty if there are none."""

    text: str
    problems: tuple[str, ...]


def judge_record(record: Record, seed: int = 1) -> Judgement:
    """All of a self-test's conclusions. Seeded: the same record gives the same text. Takes about a second."""
    rng = np.random.default_rng(seed)
    false = false_positives(record.quiet)
    powers = [p for figure in FIGURES if (p := power(record, figure, rng))]
    twin, under = injected(record), loaded(record)
    problems = [*_false(false), *_twin(twin), *_load(under)]
    lines = [
        f"self-test on {record.workload}, {record.about.get('date', 'undated')}",
        ", ".join(record.about.get(key, "?") for key in ("cpu", "kernel")),
        f"{record.about.get('cpus', '?')} CPUs, pinned: {record.about.get('pinned', '?')}",
        f"noise: {record.about.get('noise', '?')}",
        "",
        *_aa_lines(false),
        "",
        *_power_lines(powers, record.seconds),
        "",
        *_exact_lines(record),
        *_twin_lines(twin, record),
        "",
        *_load_lines(under, record),
        "",
        "Clock",
        (
            f"  reading the cycle counter costs {record.overhead[0]:.1f} to {record.overhead[1]:.1f} ns, which is "
            "subtracted"
        ),
        "",
        *(f"FAILED: {problem}" for problem in problems),
        *([] if problems else ["passed: this test found nothing wrong with verdicts on this host"]),
    ]
    return Judgement("\n".join(lines) + "\n", tuple(problems))


def _aa_lines(found: FalsePositives) -> list[str]:
    rate = _percent(found.wrong / found.n) if found.n else "-"
    interval = f"95 % interval of the rate {_percent(found.low)} to {_percent(found.high)}"
    return [
        f"A/A: rbtree against copies of itself, {BLOCK} rounds each",
        f"  {found.wrong} of {found.n} comparisons differ at {100 * ALPHA:g} % before correction ({rate})",
        f"  of {found.independent} that share no process (lookup): {found.independent_wrong}; {interval}",
        (
            f"  after the correction for multiple comparisons: {found.wrong_tables} of {found.tables} tables contain a "
            "false verdict"
        ),
    ]


def _power_lines(powers: list[Power], seconds: float) -> list[str]:
    heads = "".join(f"{f'{m:g} min':>10}" for m in MINUTES)
    lines = [
        f"Smallest slow-down that is found with probability 0.9 (two strategies, {2 * seconds:.1f} s a round)",
        f"  {'':<10}{'sd':>8}{heads}{'3 % in 2 min':>16}{'resampled':>12}",
    ]
    for p in powers:
        cells = "".join(f"{'-' if math.isinf(e) else _percent(e):>10}" for e in p.smallest)
        lines.append(f"  {p.figure:<10}{_percent(p.sd):>8}{cells}{p.found:>16.3f}{p.resampled:>12.3f}")
    lines.append(
        "  sd: of the log ratio of two identical processes in a round; last two columns: probability of finding 3 %"
    )
    return lines


def _exact_lines(record: Record) -> list[str]:
    rounds = len(next(iter(record.quiet["lookup"].values()), {}))
    found = ", ".join(f"{figure} {k} of {n}" for figure, (k, n) in injected_exactly(record).items())
    return [f"A/B: a copy's times multiplied by 1.03, {rounds} rounds, found as slower: {found}"]


def _twin_lines(twin: dict[str, Verdict], record: Record) -> list[str]:
    lines = [f"A/B: {SLOWED} walks the tree a second time on one lookup in {PERIOD}"]
    base, slowed = record.loads.get(BASELINE, 0.0), record.loads.get(SLOWED, 0.0)
    if base > 0:
        lines.append(f"  loads per lookup, counted: {base:.2f} and {slowed:.2f} ({100 * (slowed / base - 1):+.1f} %)")
    lines += [f"  {figure:<10}{ratio_text(v.ratio, 3)} over {v.ratio.n} rounds: {v.text}" for figure, v in twin.items()]
    return lines


def _load_lines(under: list[Loaded], record: Record) -> list[str]:
    rounds = len(next(iter(next(iter(record.load.values()), {}).values()), {}))
    lines = [
        f"Load: busy loops from round {record.loaded_from + 1} of {rounds} on; ratio to rbtree",
        f"  {'':<10}{'':<16}{'interleaved':<38}{'p, corrected':<16}{'rbtree first, then it':<34}it first, then rbtree",
    ]
    for one in under:
        shown = f"{ratio_text(one.interleaved.ratio, 3)} {one.interleaved.word}"
        p = f"{differs(one.interleaved.ratio):.3f}, {one.interleaved.p:.3f}"
        start = f"  {one.figure:<10}{one.strategy:<16}{shown:<38}{p:<16}"
        lines.append(f"{start}{_alone(one.before):<34}{_alone(one.after)}")
    changes = {one.figure: one.slowdown for one in under}
    changed = ", ".join(f"{figure} {100 * change:+.1f} %" for figure, change in changes.items())
    return [
        *lines,
        f"  the load changes rbtree itself by {changed}",
        f"  corrected: for all comparisons of this table, as the verdict is; of a copy, {ALARM:g} or less is a failure",
        "  the two columns on the right: the same values, as if the strategies had run one after the other",
    ]


def _alone(ratio: Ratio) -> str:
    return f"{ratio_text(ratio, 3)} {ratio.word}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 1 else f"{100 * share:.0f} %"


def _false(found: FalsePositives) -> list[str]:
    if found.independent and found.low > ALPHA:
        rate = _percent(found.independent_wrong / found.independent)
        return [f"a strategy differs from itself in {rate} of comparisons"]
    return []


def _twin(twin: dict[str, Verdict]) -> list[str]:
    verdict = twin.get("lookup")
    if verdict is None or verdict.word in ("slower", "undecided", "same"):
        return []
    return [f"the slowed strategy reads {verdict.text} in lookup: {ratio_text(verdict.ratio, 3)}"]


def _load(under: list[Loaded]) -> list[str]:
    return [
        f"under a load {one.strategy} reads {one.interleaved.word} in {one.figure}, although it is the same code"
        for one in under
        if one.strategy in COPIES and one.interleaved.word in ("faster", "slower") and one.interleaved.p <= ALARM
    ]
