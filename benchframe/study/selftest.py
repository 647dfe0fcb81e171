"""The tool tested with itself: copies of one text, a slowed twin, load that starts half-way, lines known to be cold.

Cold replays have a control: known lines cost what a pointer chase says that their level costs. A replay whose only
event reads n lines, each found through the one before, must take n times the latency of the level in which ``--caches``
says that it finds them. The latency is measured beside it, by a chase through a ring of lines that fits into that level
and into none before; for memory, through lines that were flushed. The known lines are some of the ring's, so that TLB
and memory's rows are used alike.

For the last level such a ring is not enough. A ring of many lines has several in each page, and processors fetch what
lies around a line that is read, so a chase finds a part of it in L2; known lines are few, and far apart. A ring with
one line per page fits into L2. So it is chased after other memory was read. That the touching leaves lines in this
level, neither before nor behind it, is shown by a second ring with many lines, chased without touching: the two
latencies must be alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from benchframe.engine.caches import L2, LLC, MEMORY, UNTOUCHED, Cache, Caches, Ring, Toucher, cpu_caches
from benchframe.engine.job import DEPTHS, Outcome, spare_cpu
from benchframe.errors import ResultsError, UsageError
from benchframe.files import write_json
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
from benchframe.study import twins

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
"""The number of rounds without load is a multiple of this: benchframe.study.selftest_analysis.BLOCK."""


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


COUNTS = (0, 1, 2, 4, 8, 16, 32)
"""How many lines the event reads."""
ROOM = 256 << 10
"""Bytes of the ring where no level is named."""
EVENTS, REPLAYS = 64, 8
STEPS, CHASES, LAPS = 2000, 16, 16
QUARTILE = 0.25
"""As :data:`benchframe.engine.cold.QUANTILE`, for the chase too: both see the same machine."""
WITHIN = 0.15
"""How far a ratio may be from 1."""
ALIKE = 0.3
"""How far a chase of the last level may be from one without touching, which finds a part of its ring in L2. The levels
before and behind it are four times as fast and as slow, or more."""


@dataclass(frozen=True)
class Found:
    """One state of the caches: ``level`` is the chase's ns per line in each round (empty where no level is named),
    ``lines`` those of a known line, ``by_count`` the medians for each of COUNTS but the first, ``untouched`` those of
    the chase without touching (for the last level only)."""

    caches: Caches
    level: tuple[float, ...]
    lines: tuple[float, ...]
    by_count: tuple[float, ...]
    untouched: tuple[float, ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Known line to chase, by round."""
        return [line / level for line, level in zip(self.lines, self.level, strict=True)] if self.level else []

    @property
    def good(self) -> bool:
        """Whether the median ratio is within WITHIN of 1 and the level is the one named, or there is nothing to compare
        with."""
        return not self.level or (abs(median(self.ratios) - 1) <= WITHIN and self.named)

    @property
    def named(self) -> bool:
        """Whether the chase's lines were in the level that the state names, where that is in doubt."""
        return not self.untouched or abs(median(self.untouched) / median(self.level) - 1) <= ALIKE


def ring_size(level: str, caches: Sequence[Cache]) -> int:
    """Bytes of a ring for ``level``: several times the level before, which does not always evict the oldest line. No
    more, so that a line is soon asked for again and others do not push it out of a shared cache. Raises UsageError if
    it does not fit into the level."""
    sizes = {cache.level: cache.size for cache in caches}
    if level == LLC and 2 * 8 * sizes[2] > sizes[max(sizes)]:
        raise UsageError("the last-level cache is too small beside L2 for a ring that fits into it alone")
    before, times = {L2: (1, 4), LLC: (2, 8), MEMORY: (2, 2)}.get(level, (0, 0))
    return times * sizes[before] if before else ROOM


def known_lines(
    states: Sequence[Caches], rounds: int, cpu: int = -1, done: Callable[[int], None] | None = None
) -> list[Found]:
    """Measure each of ``states``, in ``rounds`` that take turns. Raises UsageError and MemoryError."""
    caches = cpu_caches(cpu)
    rings = {s: Ring(ring_size(s.level, caches), COUNTS, seed=1, alone=s.level == LLC) for s in states}
    untouched = {s: Ring(ring_size(LLC, caches), seed=1) for s in states if s.level == LLC}
    touchers = {s: Toucher(s) for s in states}
    level: dict[Caches, list[float]] = {s: [] for s in states}
    plain: dict[Caches, list[float]] = {s: [] for s in states}
    cost: dict[Caches, list[list[float]]] = {s: [] for s in states}
    for number in range(rounds):
        for s in states:
            ring, toucher = rings[s], touchers[s]
            ns = _ns_per_cycle(ring)
            chases = _chases(ring, toucher)
            replays = [[ring.timed(toucher, count, EVENTS) for count in COUNTS] for _ in range(REPLAYS)]
            chases += _chases(ring, toucher)
            if s.level in (L2, LLC, MEMORY):
                level[s].append(float(np.quantile(chases, QUARTILE)) * ns)
            if s in untouched:
                plain[s].append(float(np.quantile(_chases(untouched[s]), QUARTILE)) * ns)
            cycles = np.quantile(np.array(replays), QUARTILE, axis=0).mean(axis=1)
            cost[s].append(((cycles[1:] - cycles[0]) * ns).tolist())
        if done is not None:
            done(number)
    counts = np.array(COUNTS[1:])
    found = []
    for s in states:
        rows = np.array(cost[s])
        slopes = (rows @ counts / (counts @ counts)).tolist()
        each = tuple((np.median(rows, axis=0) / counts).tolist())
        found.append(Found(s, tuple(level[s]), tuple(slopes), each, tuple(plain[s])))
    return found


def _chases(ring: Ring, toucher: Toucher | None = None) -> list[float]:
    """Cycles per line of CHASES chases through the ring. Before each, the ring is flushed if the state is that of
    memory, and other memory is read if it is that of the last level. First LAPS untimed ones: a last-level cache learns
    whether what L2 evicts is asked for again."""
    ring.chase(LAPS * len(ring.lines))
    steps, found, level = min(STEPS, len(ring.lines)), [], toucher.caches.level if toucher else ""
    for _ in range(CHASES):
        if toucher and level == MEMORY:
            toucher.flush(ring.lines)
        elif toucher and level == LLC:
            toucher.touch()
        found.append(ring.chase(steps) / steps)
    return found


def _ns_per_cycle(ring: Ring) -> float:
    """By the wall clock, over some ms."""
    began, cycles = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < 0.005:
        cycles += ring.chase(10_000)
    return seconds * 1e9 / cycles


def text(found: Sequence[Found]) -> str:
    """A table with a row per state, and what it says."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    heads = ["caches", "ns/line by chase", "ns per known line", "ratio", *(str(count) for count in COUNTS[1:])]
    rows = []
    for one in found:
        ratio = ""
        if one.level:
            ratio = f"{median(one.ratios):.2f} [{min(one.ratios):.2f}, {max(one.ratios):.2f}]"
        chase = f"{median(one.level):.1f}" if one.level else ""
        each = (f"{ns:.1f}" for ns in one.by_count)
        rows.append([one.caches.label, chase, f"{median(one.lines):.1f}", ratio, *each])
    body = tabulate(rows, heads, "simple", colalign=["left", *["right"] * (len(heads) - 1)], disable_numparse=True)
    rounds = max((len(one.lines) for one in found), default=0)
    notes = [
        f"medians of {rounds} rounds; ratio: known line to chase, in brackets the lowest and the highest round.",
        "the last columns: ns per line if the event reads so many lines, each found through the one before.",
    ]
    for one in found:
        if one.untouched:
            notes.append(
                f"{one.caches.label}: the chase follows a reading of other memory; a ring of more lines takes "
                f"{median(one.untouched):.1f} ns per line without it, with help from L2."
            )
        if not one.named:
            notes.append(f"{one.caches.label}: these are more than {100 * ALIKE:.0f} % apart: the lines are elsewhere.")
        elif not one.good:
            percent = f"{100 * WITHIN:.0f} %"
            notes.append(f"{one.caches.label}: a known line does not cost what its level costs, within {percent}.")
    return "\n".join([*(line.rstrip() for line in body.splitlines()), "", *notes, ""])
