"""Which kernel would help a program, and what the program could do itself: its trace under the lookup of each kernel.

Every kernel's preset replays the trace in the same processes (:mod:`benchframe.engine.probe`), so ratios are paired by
round. The sentences say only what the figures decide: a comparison without a verdict is called undecided, and a hint is
given only if the trace's own counts (:mod:`benchframe.trace.analysis`) reach the bound that stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from benchframe.engine.caches import USUAL
from benchframe.engine.probe import Point, ProbeError, Study
from benchframe.host.measure import preset_of
from benchframe.report.table import Table, Value, ns, ratio_text
from benchframe.stats import Judging, Pair, Verdict, judge

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.trace.analysis import Figures, Habits
    from benchframe.trace.trace import Trace

OLDEST = (2, 6, 32)
"""The first kernel that is ranked; presets of older ones can be run with `benchframe run`."""
SWEEP = (100, 10_000)
"""VMAs of the two address spaces that say what a VMA more costs a lookup."""
RECORDS = 200_000
"""Records for the bytes of a VMA, which need no more."""
LITTLE, MUCH = 0.02, 0.1
"""Shares of the recorded time: below the first, VMAs do not limit a program; above the second they can."""


@dataclass(frozen=True)
class Kernel:
    """One kernel's lookup on the trace: ``ns`` per operation by figure and round, ``counts`` of one replay."""

    name: str
    summary: str
    ns: Mapping[str, Mapping[int, float]]
    counts: Mapping[str, float]
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    """How often it gave up its fast path, by reason (:mod:`benchframe.engine.session`)."""
    cached: bool = False
    """Whether a cache stands before its index; else its counted hits are faults under the lock of their VMA."""

    def mean(self, figure: str) -> float:
        """Mean of the process means; NaN if the trace has no such operation, or noise hides it."""
        values = self.ns.get(figure, {})
        return fmean(values.values()) if values else math.nan


@dataclass(frozen=True)
class PerVma:
    """What a VMA costs under the kernel at home: ``ns`` that a lookup at random takes with SWEEP VMAs (medians of
    rounds), bytes of a VMA with its share of the index."""

    ns: tuple[float, float]
    bytes: float
    fork: float
    """ns that it adds to a fork, one of its pages written."""


@dataclass(frozen=True)
class Advice:
    """What was found. ``home`` is the preset nearest to the kernel of the recording; ``against`` has a verdict per
    kernel in order (None for ``home``), ``steps`` one per kernel after the first, against the one before."""

    label: str
    kernels: tuple[Kernel, ...]
    home: Kernel
    against: tuple[Verdict | None, ...]
    steps: tuple[Verdict | None, ...]
    habits: Habits
    figures: Figures
    span: float
    """Seconds from the first to the last recorded event; 0 if the trace has no times."""
    per_vma: PerVma
    rounds: int
    cold: float = math.nan
    """How many times as long an event takes at home with caches as after a program's work: the median of rounds."""


def version(name: str) -> tuple[int, ...]:
    """The version in a preset's name or a kernel's release; empty if there is none.

    >>> version("linux-2.6.32"), version("Linux 6.18.44-fc #1 SMP"), version("maple")
    ((2, 6, 32), (6, 18, 44), ())
    """
    found = re.search(r"(?:^|[ -])(\d+(?:\.\d+)+)", name)
    return tuple(map(int, found[1].split("."))) if found else ()


def presets(names: Sequence[str]) -> list[str]:
    """The presets of kernels from OLDEST on, oldest first.

    >>> presets(["linux-6.4", "linux-2.4.0", "maple", "linux-2.6.32"])
    ['linux-2.6.32', 'linux-6.4']
    """
    found = [name for name in names if name.startswith("linux-") and version(name) >= OLDEST]
    return sorted(found, key=version)


def home(release: str, names: Sequence[str]) -> str:
    """The preset of ``names``, oldest first, whose lookup the kernel ``release`` has
    (:func:`~benchframe.host.measure.preset_of`): the newest of all for a trace that does not name its kernel, the
    oldest for a kernel before all.

    >>> home("Linux 6.5.0-9", ["linux-6.1", "linux-6.4", "linux-6.15"]), home("", ["linux-6.1", "linux-6.15"])
    ('linux-6.4', 'linux-6.15')
    """
    running = ".".join(map(str, version(release)))
    return preset_of(running, names) or names[0] if running else names[-1]


def advise(
    known: Registry,
    trace: Trace,
    label: str,
    rounds: int,
    note: Callable[[str], None],
    *,
    cpu: int = -1,
    clock: float = 0.02,
) -> Advice:
    """Replay ``trace`` under every kernel's lookup, ``rounds`` times; some 3 s a round. ``clock`` is the seconds of one
    value, as in :class:`~benchframe.engine.probe.Study`. The presets must be compiled.
    Raises ProbeError (a wrong answer, a crash, only noise) and EngineError (an empty trace)."""
    from benchframe.engine.cost import count_cost
    from benchframe.engine.session import Session, fallbacks
    from benchframe.study.sweeps import SIZES, family
    from benchframe.trace.analysis import figures, habits, seconds

    names = presets(list(known.strategies))
    at_home = home(trace.meta.kernel, names)
    strategies = {name: known.strategy(name) for name in names}
    streams = [trace, *(known.spec(f"uniform:vmas={vmas},events=20000").trace(0) for vmas in SWEEP)]
    streams += [family("fork", vmas) for vmas in SIZES]
    points = [*(Point(name, 0) for name in names), *(Point(at_home, i) for i in range(1, len(streams)))]
    points.append(Point(at_home, 0, caches=str(USUAL)))
    counts, reasons = {}, {}
    for name, strategy in strategies.items():
        session = Session(strategy, trace)
        counts[name] = session.counts()
        reasons[name] = fallbacks(session) if counts[name]["fallbacks"] else {}
    study = Study(strategies, streams, points, clock, cpu)
    found = study.measure(rounds, 1, lambda done: note(f"round {done + 1} of {rounds}"))
    kernels = []
    for number, name in enumerate(names):
        ns_by: dict[str, dict[int, float]] = {}
        for r, row in enumerate(found):
            for figure, value in row[number].items():
                ns_by.setdefault(figure, {})[r] = value
        if not ns_by.get("replay"):
            raise ProbeError(f"{name} has no time per event on {label}: noise hides it; use more --rounds")
        cached = strategies[name].cache is not None
        kernels.append(Kernel(name, strategies[name].summary, ns_by, counts[name], reasons[name], cached))
    figures_at_home = ("lookup", "lookup", "mapping", "mapping")
    taken = [
        median([row[len(names) + i][figure] for row in found if figure in row[len(names) + i]] or [math.nan])
        for i, figure in enumerate(figures_at_home)
    ]
    own = names.index(at_home)
    pairs = [(row[-1].get("replay"), row[own].get("replay")) for row in found]
    colder = [cold / warm for cold, warm in pairs if cold and warm]
    numbers = count_cost(strategies[at_home], trace, RECORDS).numbers
    against, steps = verdicts(kernels, names.index(at_home))
    return Advice(
        label,
        tuple(kernels),
        kernels[names.index(at_home)],
        against,
        steps,
        habits(trace),
        figures(trace, columns=1),
        seconds(trace),
        PerVma((taken[0], taken[1]), numbers["bytes.per_vma"], (taken[3] - taken[2]) / (SIZES[1] - SIZES[0])),
        rounds,
        median(colder) if colder else math.nan,
    )


def verdicts(kernels: Sequence[Kernel], base: int) -> tuple[tuple[Verdict | None, ...], tuple[Verdict | None, ...]]:
    """(each kernel's time per event against number ``base``, each one's against the one before): one family, so that a
    false verdict among all of them stays as rare as in one."""
    times = [kernel.ns["replay"] for kernel in kernels]
    others = [number for number in range(len(kernels)) if number != base]
    pairs = [Pair(times[number], times[base], group="replay") for number in others]
    pairs += [Pair(times[number], times[number - 1], group="replay") for number in range(1, len(kernels))]
    found = judge(pairs, Judging(), notes=False)
    against = dict(zip(others, found, strict=False))
    return tuple(against.get(number) for number in range(len(kernels))), tuple(found[len(others) :])


# ---- sentences -------------------------------------------------------------------------------------------------------


def sentences(advice: Advice) -> list[str]:
    """All that is said below the table, a paragraph each."""
    said = [f"Limit: {limit(advice)}", f"Kernel: {change(advice)}", f"Sure: {certainty(advice)}"]
    if waits := locks(advice):
        said.append(f"Locks: {waits}")
    said.append(f"VMAs: {too_many(advice)}")
    found = hints(advice.habits)
    return said + [f"Program: {hint}" for hint in found or [NOTHING]]


NOTHING = "no habit of it stands out in the trace: nothing to change is known."


def parts(advice: Advice) -> dict[str, float]:
    """Shares of the modelled time at home: ``lookups``, ``faults`` (the rest of them), ``mapping`` calls."""
    own, counts = advice.home, advice.home.counts
    whole = own.mean("replay") * counts["events"]
    finding, changing = (0.0 if math.isnan(v) else v for v in (own.mean("lookup"), own.mean("mapping")))
    finding *= (counts["events"] - counts["mapping_ops"]) / whole
    changing *= counts["mapping_ops"] / whole
    return {"lookups": finding, "mapping": changing, "faults": max(0.0, 1 - finding - changing)}


def limit(advice: Advice) -> str:
    """What takes the time, how much of the program's time that is, and which of its numbers it follows from."""
    own, counts, figures = advice.home, advice.home.counts, advice.figures
    share = parts(advice)
    calls, asked = counts["mapping_ops"], counts["events"] - counts["mapping_ops"]
    told = {
        "mapping": f"mapping calls {percent(share['mapping'])} ({calls:,.0f}, {ns(own.mean('mapping'))} ns each)",
        "lookups": f"finding VMAs {percent(share['lookups'])} ({asked:,.0f} lookups, {ns(own.mean('lookup'))} ns each)",
        "faults": f"the rest of page faults {percent(share['faults'])}",
    }
    ordered = [told[name] for name in sorted(told, key=lambda name: -share[name])]
    text = f"of the time modelled under {own.name}, {', '.join(ordered)}"
    if advice.span:
        whole = own.mean("replay") * counts["events"] / 1e9
        least = whole / advice.span
        most = least if math.isnan(advice.cold) else min(1.0, max(1.0, advice.cold) * least)
        text += f". In all this is {1e3 * whole:.3g} ms of the {advice.span:.3g} s recorded, {percent(least)}"
        if advice.cold >= 1:
            text += (
                f", or {percent(most)} with caches as after a program's work, where an event takes {advice.cold:.2g} "
                "times as long"
            )
        elif advice.cold < 1:
            text += (
                f" (with caches as after a program's work an event took {advice.cold:.2g} times as long, so the "
                "machine disturbed the warm replays: ask again when it is calm)"
            )
        text += ": "
        if most < LITTLE:
            text += "VMAs hardly limit this program"
        elif least > MUCH:
            text += "VMAs can limit this program"
        else:
            text += f"VMAs limit this program by {percent(most)} at most"
    text += f". It has up to {advice.habits.layout.vmas:,} VMAs"
    if figures.operations:
        text += f" and {figures.lookups / figures.operations:.1f} faults per mapping call"
    return f"{text}; {percent(figures.same_vma)} of the lookups are in the VMA of the task's last one."


def percent(share: float) -> str:
    """A share as a percentage of two digits.

    >>> percent(0.574), percent(0.00123), percent(1.0)
    ('57 %', '0.12 %', '100 %')
    """
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def change(advice: Advice) -> str:
    """The release with the largest decided step, and the fastest kernel against the one at home."""
    names = [kernel.name for kernel in advice.kernels]
    decided = [(i, v) for i, v in enumerate(advice.steps, 1) if v is not None and v.word in ("faster", "slower")]
    if not decided:
        text = f"no step from {names[0]} to {names[-1]} is decided to change its time per event"
    else:
        i, step = max(decided, key=lambda pair: abs(math.log(pair[1].ratio.value)))
        text = (
            f"the largest step is {names[i]} ({advice.kernels[i].summary}): {ratio_text(step.ratio)} of the time per "
        )
        text += f"event with {names[i - 1]}, {step.word}"
    others = [(v, k) for v, k in zip(advice.against, advice.kernels, strict=True) if v is not None]
    if not others:
        return f"{text}."
    best, kernel = min(others, key=lambda pair: pair[0].ratio.value)
    if best.word == "faster":
        return f"{text}. Fastest is {kernel.name}: {ratio_text(best.ratio)} of {advice.home.name}'s time."
    if any(v.word == "undecided" for v, _ in others):
        return f"{text}. No kernel is decided to be faster than {advice.home.name}."
    return f"{text}. None is faster than {advice.home.name}."


NO_SEARCH = (
    "Recorded mappings go to their recorded addresses, so what trees with gaps (3.10 on) and maple trees save in the "
    "search for a hole is missing, and what they pay for it is not: this favours 2.6.32"
)


def certainty(advice: Advice) -> str:
    """Rounds, decided comparisons, and how many more rounds the others would take."""
    all_of_them = [v for v in advice.against if v is not None]
    open_ones = [
        (v, kernel) for v, kernel in zip(advice.against, advice.kernels, strict=True) if v and v.word == "undecided"
    ]
    decided = len(all_of_them) - len(open_ones)
    text = f"{decided} of {len(all_of_them)} comparisons with {advice.home.name} {'is' if decided == 1 else 'are'} "
    text += f"decided after {advice.rounds} rounds; the chance that any verdict here is false is 5 % at most"
    if open_ones:
        text += "; undecided: " + ", ".join(f"{k.name} ({v.text.removeprefix('undecided, ')})" for v, k in open_ones)
    text += ". Only lookup and allocator differ between the kernels here: the rest of a fault is the same model for all"
    if advice.span:
        text += f". {NO_SEARCH}"
    return f"{text}."


def locks(advice: Advice) -> str:
    """What one thread cannot show: waiting for locks, and how often the lock per VMA was refused. Empty for a program
    whose address spaces have one task each and no refusal."""
    said = []
    if advice.habits.shared_faults:
        habit = advice.habits
        said.append(
            f"the replay runs one task at a time, so nothing waits, and a lock per VMA (6.4 on) only costs; of "
            f"{habit.shared_faults:,} faults in address spaces with several tasks {habit.beside:,} came within 10 us "
            "after another task's mapping call, and could have waited for mmap_lock before 6.4 (benchframe run "
            "--threads shows waiting)"
        )
    told = []
    for kernel in advice.kernels:
        asked = kernel.counts["lookups"]
        if kernel.fallbacks and asked:
            by_reason = sorted(kernel.fallbacks.items(), key=lambda pair: -pair[1])
            parts = ", ".join(f"{name}: {percent(count / asked)}" for name, count in by_reason)
            told.append(f"{kernel.name} {percent(sum(kernel.fallbacks.values()) / asked)} ({parts})")
    if told:
        said.append(f"lookups that could not use the lock of their VMA and took mmap_lock: {'; '.join(told)}")
    return f"{'; '.join(said)}." if said else ""


def too_many(advice: Advice) -> str:
    """What a VMA more costs."""
    few, many = advice.per_vma.ns
    decades = math.log10(SWEEP[1] / SWEEP[0])
    text = f"under {advice.home.name} ten times as many VMAs add {ns((many - few) / decades)} ns to a lookup at random "
    text += f"({ns(few)} ns with {SWEEP[0]:,}, {ns(many)} with {SWEEP[1]:,})"
    if math.isnan(few + many):
        text = "noise hides what more of them cost a lookup"
    fork = advice.per_vma.fork
    forked = f", and {ns(fork)} ns of every fork (benchframe fork)" if fork > 0 else ""
    return f"{text}; each takes {advice.per_vma.bytes:.0f} bytes with its share of the index{forked}."


def hints(habits: Habits) -> list[str]:
    """What the program could do itself, each with the counts that say so; empty if none reaches its bound."""
    said = []
    again, touched = sum(habits.again.values()), max(1, habits.touched)
    if again >= 50 and again / touched >= 0.05:
        calls = ", ".join(f"{call} {count:,}" for call, count in habits.again.most_common())
        said.append(
            f"{again:,} of {habits.touched:,} first touches of anonymous pages ({percent(again / touched)}) are of "
            f"pages that it had given back ({calls}): keep the memory, in a pool or by the allocator's settings "
            "(M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, a longer decay time), and these faults are gone."
        )
    if habits.remapped >= 20 and habits.remapped / habits.mmaps >= 0.1:
        said.append(
            f"{habits.remapped:,} of {habits.mmaps:,} anonymous mmap calls take a length that it had unmapped before: "
            "a pool of mappings saves them, and as many munmap calls."
        )
    if habits.in_order >= 100 and habits.in_order / touched >= 0.1:
        said.append(
            f"{habits.in_order:,} pages ({percent(habits.in_order / touched)} of the first touches) are written one "
            f"after the other, in {habits.stretches:,} stretches: MAP_POPULATE, or MADV_POPULATE_WRITE (5.14), "
            "makes one call of each stretch."
        )
    if habits.huge >= HUGE and habits.huge / touched >= 0.1:
        said.append(
            f"{habits.huge:,} first touches ({percent(habits.huge / touched)}) fill more than half of "
            f"{habits.huge_ranges:,} ranges of 2 MiB: MADV_HUGEPAGE there makes one fault of each range."
        )
    if habits.toggled >= 20 and habits.toggled / habits.mprotects >= 0.1:
        said.append(
            f"{habits.toggled:,} of {habits.mprotects:,} mprotect calls change a range that one had changed before: "
            "two mappings of the same pages (memfd_create), one writable and one executable, need none."
        )
    layout = habits.layout
    if layout.guards >= 50 and layout.guards / layout.vmas >= 0.25:
        said.append(
            f"{layout.guards:,} of {layout.vmas:,} VMAs allow no access: MADV_GUARD_INSTALL (6.13) guards pages "
            "without a VMA, and leaves their neighbours in one."
        )
    if layout.files >= 30 and layout.mapped / layout.vmas >= 0.5:
        said.append(
            f"{layout.mapped:,} of {layout.vmas:,} VMAs are parts of {layout.files:,} files "
            f"({layout.mapped / layout.files:.1f} each): fewer shared objects, or one that holds them all, map less."
        )
    return said


HUGE = 256
"""First touches that huge pages could save, at least."""


def advice_table(advice: Advice) -> Table:
    """A row per kernel, oldest first, then the sentences."""
    heads = ("kernel", "lookup, ns", "fault", "mapping call", "event", f"event against {advice.home.name}", "hit rate")
    rows, records = [], []
    for kernel, verdict in zip(advice.kernels, advice.against, strict=True):
        shown = "" if verdict is None else f"{ratio_text(verdict.ratio)} {verdict.word}"
        rate = kernel.counts["hit_rate"] if kernel.cached else math.nan
        rows.append(
            (
                kernel.name,
                *(ns(kernel.mean(figure)) for figure in ("lookup", "fault", "mapping", "replay")),
                shown,
                "" if math.isnan(rate) else percent(rate),
            )
        )
        record: dict[str, Value] = {"kernel": kernel.name, "home": int(kernel is advice.home)}
        record.update({f"{figure}_ns": kernel.mean(figure) for figure in ("lookup", "fault", "mapping", "replay")})
        if verdict is not None:
            record.update(ratio=verdict.ratio.value, low=verdict.ratio.low, high=verdict.ratio.high)
        record.update(
            verdict="" if verdict is None else verdict.word,
            hit_rate=rate,
            fallbacks=kernel.counts["fallbacks"],
            rounds=advice.rounds,
        )
        records.append(record)
    right = (False, True, True, True, True, False, True)
    return Table(f"Advice: {advice.label}", heads, tuple(rows), right, tuple(records), tuple(sentences(advice)))
