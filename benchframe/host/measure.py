"""Perform a program in several processes: the times of its faults, calls, forks and exits, beside the model's."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchframe.engine.job import FIGURES
from benchframe.errors import ENVIRONMENT, BenchframeError
from benchframe.events import Kind
from benchframe.host import child
from benchframe.host.program import (
    ARENA,
    CALL,
    CALLS,
    FILE_BYTES,
    FIRST_FILE,
    MAP_ANONYMOUS,
    MAP_FIXED_NOREPLACE,
    NOTHING,
    READ,
    ROOM,
    TIMES,
    WORDS,
    WRITE,
    OpenFile,
    Program,
    machine_code,
)
from benchframe.judge import child as judge_child
from benchframe.judge.child import MMAP, SYSCALL
from benchframe.judge.judge import ended, supported
from benchframe.report.table import Table, Value, mean_sd, ns, percent, ratio_text, share_of_fault
from benchframe.stats import Ratio, Summary, paired_ratio, summarise
from benchframe.stats.verdict import Pair, judge
from benchframe.trace.meta import PAGE

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


ROUNDS = 10
KERNEL_ROUNDS = 3
"""Processes in a machine that counts instructions: they differ little."""
SECONDS = 300.0
"""After which a process is ended."""
INTERRUPTED = 50_000.0
"""ns above an event's median over the processes from which a sample counts as interrupted: it is left out."""
EMPTY, NULL, PRESENT = 1000, 200, 200
"""Rows after the trace's: without an action, system calls that do nothing, touches of a page that is there."""
_GETPPID = 110


class HostError(BenchframeError):
    """The kernel cannot be timed here; the message says why."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class Row:
    """One kind of event: how many, and ns each: per process, and the quantiles of the events' medians."""

    name: str
    events: int
    rounds: tuple[float, ...]
    """Mean ns of each process."""
    p50: float
    p99: float

    @property
    def summary(self) -> Summary:
        """Over the processes."""
        return summarise(self.rounds)

    @property
    def repeated(self) -> Ratio | None:
        """A/A: every second process against the others. What differs from 1 here is noise."""
        pairs = len(self.rounds) // 2
        one, other = ({n: self.rounds[2 * n + side] for n in range(pairs)} for side in (0, 1))
        return paired_ratio(one, other)


@dataclass
class HostTimes:
    """What :func:`measure` found."""

    rows: list[Row]
    """All faults, then by access; all mapping calls, then by name. Those without an event are missing."""
    overhead: float
    """ns of the clock itself, subtracted from every sample."""
    null: float
    """ns of a system call that does nothing (getppid)."""
    present: float
    """ns of a touch of a page that is there."""
    rounds: int
    areas: int
    """VMAs of the process besides the program's."""
    interrupted: int
    samples: int
    silent: int
    """Faults of the trace that caused none here: the page was there."""
    signals: int
    """Touches that ended in a signal here."""
    differ: Counter[str] = field(default_factory=Counter)
    """Call and result to how many calls returned something else than recorded."""

    def row(self, name: str) -> Row | None:
        """The row called ``name``."""
        return next((row for row in self.rows if row.name == name), None)


FAULTS, MAPPINGS = "page fault", "mapping call"


def unsupported(icount: bool = False) -> str:
    """Why this machine cannot be timed; "" if it can. ``icount``: its cycle counter counts instructions, as QEMU's."""
    reason = supported()
    if reason:
        return reason.replace("the judge is the running Linux kernel", "only Linux can be timed").replace(
            "the judge knows", "benchframe host knows"
        )
    if icount:
        return ""
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].split()
    if not {"constant_tsc", "nonstop_tsc"} <= set(words):
        return "the processor's cycle counter does not run at a constant rate (constant_tsc, nonstop_tsc)"
    return ""


def measure(
    program: Program,
    rounds: int = ROUNDS,
    cpu: int = -1,
    done: Callable[[int], None] | None = None,
    icount: bool = False,
) -> HostTimes:
    """Perform ``program`` in ``rounds`` processes, after one that counts page faults, and sum up.

    ``cpu``: pin the processes to it. ``done`` is called after each round. ``icount``: the cycle counter counts
    instructions, and so do the figures. Takes the program's own time per process and some 0.1 s. Raises HostError.
    """
    if reason := unsupported(icount):
        raise HostError(reason)
    ops = _with_references(program)
    with prepared(ops, program.files, icount) as run:
        counted = run(program.brk, True, cpu, 0)
        results = counted.out[:, 2]
        taken = []
        for number in range(rounds):
            taken.append(run(program.brk, False, cpu, 0))
            if done is not None:
                done(number)
    if program.brk is not None and not counted.answer.get("brk"):
        raise HostError("this kernel cannot move the break (CONFIG_CHECKPOINT_RESTORE), which the trace uses")
    return _sum_up(program, np.stack([one.ns for one in taken]), results, taken)


@dataclass(frozen=True)
class Performed:
    """One process's answer: the words of each row, ns of each, and what the process said of itself."""

    out: NDArray[np.int64]
    ns: NDArray[np.float64]
    answer: dict[str, int]
    forks: NDArray[np.float64]
    """(forks, 2): ns of fork in the parent, and from the child's exit to its parent's return from wait4; the clock's
    own time included."""


Perform = Callable[["tuple[int, int] | None", bool, int, int], Performed]
"""(brk, counting, cpu, forks) to the answer of a process."""


@contextmanager
def prepared(ops: NDArray[np.int64], files: Sequence[OpenFile], icount: bool = False) -> Iterator[Perform]:
    """Memory files with the program and behind the program's mappings, which stay while it is performed again: after
    the first process, the files' pages are in the page cache. ``icount``: cycles are not converted to ns."""
    code = {name: text.hex() for name, text in machine_code().items()}
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files and most != resource.RLIM_INFINITY and most < FIRST_FILE + len(files):
        raise HostError(f"a process may open only {most} files; raise that limit (ulimit -n)")
    with ExitStack() as stack:

        def memory(name: str, size: int) -> int:
            try:
                descriptor = os.memfd_create(name)
                stack.callback(os.close, descriptor)
                os.ftruncate(descriptor, size)
            except OSError as error:
                raise HostError(f"no memory file could be made: {error.strerror}") from None
            return descriptor

        sizes: dict[int, int] = {}
        for file in files:
            sizes[file.inode] = max(sizes.get(file.inode, 0), min(file.size, FILE_BYTES))
        inodes = {inode: memory(f"benchframe-{inode}", size) for inode, size in sizes.items()}
        program = memory("benchframe-program", max(4096, ops.nbytes))
        data = memoryview(ops.tobytes())
        while data:
            data = data[os.write(program, data) :]

        def run(brk: tuple[int, int] | None, counting: bool, cpu: int, forks: int) -> Performed:
            size = max(4096, 8 * (TIMES * len(ops) + 4 * forks))
            out = os.memfd_create("benchframe-times")
            try:
                os.ftruncate(out, size)
                job = {
                    "code": code, "ops": program, "out": out, "size": size, "rows": len(ops), "counting": counting,
                    "files": [inodes[file.inode] for file in files], "first_file": FIRST_FILE, "brk": brk, "cpu": cpu,
                    "judge": judge_child.__file__, "low": ARENA, "high": ARENA + ROOM, "forks": forks,
                }  # fmt: skip
                answer = _process(job, (program, out, *inodes.values()))
                words = np.frombuffer(os.pread(out, size, 0), np.int64) if size < 1 << 30 else _read(out, size)
            finally:
                os.close(out)
            ratio = 1.0 if icount else answer["ns"] / max(1, answer["ticks"])
            rows = words[: TIMES * len(ops)].reshape(-1, TIMES)
            tail = words[TIMES * len(ops) :][: 4 * forks].reshape(-1, 4)
            if (tail[:, 3] < 0).any():
                raise HostError(f"the kernel refused to fork: {os.strerror(-int(tail[:, 3].min()))}")
            pairs = (np.stack([tail[:, 1] - tail[:, 0], tail[:, 3] - tail[:, 2]], 1) * ratio).astype(np.float64)
            took = ((rows[:, 1] - rows[:, 0]) * ratio).astype(np.float64)
            return Performed(rows, took, answer, pairs)

        yield run


def _read(descriptor: int, size: int) -> NDArray[np.int64]:
    """A large file's words: one read returns at most 2 GiB."""
    parts = [os.pread(descriptor, min(1 << 29, size - at), at) for at in range(0, size, 1 << 29)]
    return np.frombuffer(b"".join(parts), np.int64)


def _process(job: dict[str, object], descriptors: tuple[int, ...]) -> dict[str, int]:
    """Run the child and read what it prints. Raises HostError."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(Path(child.__file__)), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=descriptors,
            timeout=SECONDS,
            # malloc takes its heap before the break moves into the arena, and never asks for more
            env={**os.environ, "MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"a process was ended after {SECONDS:g} s; take a shorter trace") from None
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise HostError(f"the process that performs the trace {ended(done.returncode)}: {last[:300]}")
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


def _with_references(program: Program) -> NDArray[np.int64]:
    """The program's rows, then rows that show what the clock, a system call and a touch cost by themselves."""
    page = ARENA + 4096
    tail = np.zeros((EMPTY + NULL + 2 + PRESENT, WORDS), np.int64)
    tail[:EMPTY, 0] = NOTHING
    tail[EMPTY : EMPTY + NULL, :2] = CALL, _GETPPID
    anonymous = 2 | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    tail[EMPTY + NULL] = CALL, judge_child.SYSCALL[judge_child.MMAP], page, 4096, 3, anonymous, -1, 0
    tail[EMPTY + NULL + 1, :2] = WRITE, page
    tail[EMPTY + NULL + 2 :, :2] = READ, page
    return np.concatenate([program.ops, tail])


def _sum_up(
    program: Program, ns: NDArray[np.float64], results: NDArray[np.int64], taken: Sequence[Performed]
) -> HostTimes:
    """The rows from ``ns``, (processes, rows)."""
    count = len(program.ops)
    overhead = float(np.median(ns[:, count : count + EMPTY]))
    ns = np.maximum(ns - overhead, 0.0)
    null = float(np.median(ns[:, count + EMPTY : count + EMPTY + NULL]))
    present = float(np.median(ns[:, -PRESENT:]))
    timed = np.arange(count) >= program.setup
    kind, results, ns = program.kind, results[:count], ns[:, :count]
    middle = np.median(ns, axis=0)
    broken = ns > (middle if len(ns) > 2 else ns.min(axis=0)) + INTERRUPTED
    fault = (kind == Kind.FAULT) & timed
    faulted = fault & (results > 0)
    call = np.isin(kind, CALLS) & timed
    good = call & (results >= 0)
    write = program.ops[:, 0] == WRITE
    groups = [
        (FAULTS, faulted),
        (f"{FAULTS}, read", faulted & ~write),
        (f"{FAULTS}, write", faulted & write),
        (MAPPINGS, good),
    ]
    groups += [(each.name.lower(), good & (kind == each)) for each in CALLS if each != Kind.MAP]
    rows = []
    for name, chosen in groups:
        if chosen.any():
            kept = np.where(broken[:, chosen], np.nan, ns[:, chosen])
            means = [float(np.nanmean(one)) for one in kept if not np.isnan(one).all()]
            p50, p99 = np.quantile(middle[chosen], (0.5, 0.99))
            rows.append(Row(name, int(chosen.sum()), tuple(means), float(p50), float(p99)))
    return HostTimes(
        rows,
        overhead,
        null,
        present,
        rounds=len(ns),
        areas=taken[0].answer["areas"],
        interrupted=int(broken[:, faulted | good].sum()),
        samples=int((faulted | good).sum()) * len(ns),
        silent=int((fault & (results == 0)).sum()),
        signals=int((fault & (results < 0)).sum()),
        differ=_differences(program, results),
    )


def _differences(program: Program, results: NDArray[np.int64]) -> Counter[str]:
    """Calls that returned something else than recorded, by name and errno."""
    import errno

    found: Counter[str] = Counter()
    rows = np.flatnonzero(np.isin(program.kind, CALLS) & (results != program.expected))
    for row in rows.tolist():
        kind, result = Kind(int(program.kind[row])), int(results[row])
        if kind == Kind.BRK and program.ops[row, 2] == 0:  # where the break is: asked, not moved
            continue
        if -4096 < result < 0:
            found[f"{kind.name.lower()}: {errno.errorcode.get(-result, str(-result))}"] += 1
        else:
            found[f"{kind.name.lower()}: another result"] += 1
    return found


Figures = Mapping[str, Mapping[int, float]]
"""ns per operation by figure (lookup, fault, mapping) and round."""


def preset_of(release: str, names: Iterable[str]) -> str | None:
    """The newest of the strategies ``linux-X.Y`` that is not newer than the kernel ``release``; None if there is none.

    >>> preset_of("6.12.3-amd64", ["linux-6.1", "linux-6.4", "linux-6.15", "rbtree"])
    'linux-6.4'
    """
    here = _version(release)
    known = {_version(name.removeprefix("linux-")): name for name in names if re.fullmatch(r"linux-[\d.]+", name)}
    fitting = [version for version in known if version <= here]
    return known[max(fitting)] if fitting else None


def _version(text: str) -> tuple[int, ...]:
    match = re.match(r"[\d.]*\d", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def model_figures(
    strategies: Sequence[Strategy],
    trace: Trace,
    rounds: int,
    cpu: int = -1,
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    done: Callable[[int], None] | None = None,
) -> dict[str, Figures]:
    """Figures of each strategy on ``trace``; some 0.5 s per round and strategy. Strategies must be compiled. Raises
    ProbeError, for a wrong answer too."""
    from benchframe.engine.probe import Point, Study

    points = [Point(strategy.name, 0) for strategy in strategies]
    study = Study({one.name: one for one in strategies}, [trace], points, 0.02, cpu, plugins, blocked)
    found = study.measure(rounds, 0, done)
    return {
        point.strategy: {
            figure: {number: row[at][figure] for number, row in enumerate(found) if figure in row[at]}
            for figure in FIGURES
        }
        for at, point in enumerate(points)
    }


_MODELLED = {FAULTS: "fault", MAPPINGS: "mapping"}
"""Rows that the model has a figure for."""


def host_table(times: HostTimes, program: Program, model: Mapping[str, Figures], kernel: str, label: str) -> Table:
    """One row per kind of event; ``model`` by strategy."""
    heads = ("", "events", f"Linux {kernel}, ns", "median", "p99", "A/A [95 %]", *(f"{one}, ns" for one in model))
    rows, records = [], []
    for row in times.rows:
        summary, repeated = row.summary, row.repeated
        modelled = [_modelled(figures, _MODELLED.get(row.name, "")) for figures in model.values()]
        rows.append(
            (row.name, f"{row.events:,}", mean_sd(summary), ns(row.p50), ns(row.p99), ratio_text(repeated), *modelled)
        )
        record: dict[str, Value] = {
            "event": row.name, "events": row.events, "kernel": kernel, "mean": summary.mean, "sd": summary.sd,
            "low": summary.low, "high": summary.high, "n": summary.n, "p50": row.p50, "p99": row.p99,
            "repeated": repeated.value if repeated else None,
        }  # fmt: skip
        for name, figures in model.items():
            values = list(figures.get(_MODELLED.get(row.name, ""), {}).values())
            record[name] = fmean(values) if values else None
        records.append(record)
    right = (False, True, True, True, True, False, *(True for _ in model))
    notes = (*sentences(times, model), *_notes(times, program, model))
    return Table(f"{label} on Linux {kernel}", heads, tuple(rows), right, tuple(records), notes)


def _modelled(figures: Figures, figure: str) -> str:
    values = list(figures.get(figure, {}).values())
    return mean_sd(summarise(values)) if values else ""


def sentences(times: HostTimes, model: Mapping[str, Figures]) -> list[str]:
    """What share of a fault the lookup is, and what other strategies could save. Empty without a model or faults."""
    fault = times.row(FAULTS)
    if fault is None or not model:
        return []
    first = next(iter(model))
    lookup = model[first].get("lookup", {})
    if not lookup:
        return [f"{first}: the lookup's time is hidden by noise; use more --rounds."]
    mean = fmean(lookup.values())
    told = [share_of_fault(lookup, fault.rounds, f"{first} in the model")[1]]
    for name in list(model)[1:]:
        other = model[name].get("lookup", {})
        if other:
            saved = mean - fmean(other.values())
            word = "less" if saved >= 0 else "more"
            part = percent(abs(saved) / fault.summary.mean)
            told.append(f"A lookup by {name} takes {ns(abs(saved))} ns {word} than by {first}: {part} of a fault.")
    return told


def _notes(times: HostTimes, program: Program, model: Mapping[str, Figures]) -> Iterable[str]:
    """How it was measured, what was left out."""
    yield (
        f"{times.rounds} processes, each beside {times.areas} VMAs of its own, huge pages off; ± is the standard "
        "deviation of process means. A/A: every second process against the others."
    )
    yield (
        f"The clock's own {ns(times.overhead)} ns are subtracted. A system call that does nothing: {ns(times.null)} ns."
        f" {times.interrupted:,} of {times.samples:,} samples were interrupted (over {INTERRUPTED / 1000:.0f} us above "
        "the event's median) and are left out."
    )
    if model:
        yield "The model's figures are warm and without entry to the kernel, clearing of pages and memory accounting."
    if times.silent:
        yield f"{times.silent:,} touches caused no fault here, since the page was there: not in the figures."
    if times.signals:
        yield f"{times.signals:,} touches ended in a signal here: not in the figures."
    if program.cut:
        yield f"Cut: {program.cut}."
    if program.omitted:
        yield f"Not performed: {_counted(program.omitted)}."
    if program.changed:
        yield f"Performed otherwise: {_counted(program.changed)}."
    if times.differ:
        yield f"Calls that ended otherwise than recorded: {_counted(times.differ)}."


def _counted(counts: Mapping[str, int]) -> str:
    """``12 x, 3 y``, the largest number first."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


# ---- other kernels ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """What another kernel executed: instructions per event, by row, from its machine's processes."""

    kernel: str
    rows: Mapping[str, tuple[int, float, float]]
    """From a row's name to the number of events, the mean over processes, and its standard deviation."""
    null: float
    """Instructions of a system call that does nothing."""
    notes: tuple[str, ...] = ()


def counted_json(times: HostTimes, kernel: str) -> str:
    """What a guest leaves for :func:`read_counted`."""
    rows = {row.name: (row.events, row.rounds) for row in times.rows}
    notes = [f"Calls that ended otherwise than recorded: {_counted(times.differ)}."] if times.differ else []
    return json.dumps({"kernel": kernel, "rows": rows, "null": times.null, "notes": notes})


def read_counted(path: Path) -> Counted:
    """What a guest left in a file. It is not trusted. Raises HostError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = {}
        for name, (events, rounds) in found["rows"].items():
            summary = summarise([float(one) for one in rounds])
            rows[str(name)] = int(events), summary.mean, summary.sd
        return Counted(str(found["kernel"])[:40], rows, float(found["null"]), tuple(map(str, found["notes"])))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HostError(f"the virtual machine left no figures: {error}") from None


def kernels_table(
    found: Sequence[Counted], program: Program, model: Mapping[str, Figures], presets: Sequence[str], label: str
) -> Table:
    """One row per kind of event: instructions on each kernel, ns of each strategy of the model. ``presets``: the
    strategy that stands for each kernel."""
    heads = ("", "events", *(f"Linux {one.kernel}, instructions" for one in found), *(f"{one}, ns" for one in model))
    names = list(dict.fromkeys(name for one in found for name in one.rows))
    rows, records = [], []
    for name in names:
        events = max(one.rows[name][0] for one in found if name in one.rows)
        texts = [f"{one.rows[name][1]:,.0f} ± {one.rows[name][2]:,.0f}" if name in one.rows else "" for one in found]
        figures = [_modelled(each, _MODELLED.get(name, "")) for each in model.values()]
        rows.append((name, f"{events:,}", *texts, *figures))
        record: dict[str, Value] = {"event": name, "events": events}
        record |= {one.kernel: one.rows[name][1] if name in one.rows else None for one in found}
        for strategy, each in model.items():
            values = list(each.get(_MODELLED.get(name, ""), {}).values())
            record[strategy] = fmean(values) if values else None
        records.append(record)
    nothing = ", ".join(f"{one.null:,.0f} (Linux {one.kernel})" for one in found)
    notes = [
        *_orders(found, model, presets),
        (
            "Instructions are counted by QEMU (-icount), from before the event until after it. They are no time: a "
            "miss in a cache counts as much as a hit, and a kernel's options (mitigations, debugging) count, too."
        ),
        f"A system call that does nothing: {nothing}.",
        *dict.fromkeys(note for one in found for note in one.notes),
        *([f"Not performed: {_counted(program.omitted)}."] if program.omitted else []),
        *([f"Cut: {program.cut}."] if program.cut else []),
    ]
    right = (False, True, *(True for _ in range(len(found) + len(model))))
    return Table(f"{label}, counted on {len(found)} kernels", heads, tuple(rows), right, tuple(records), tuple(notes))


def _orders(found: Sequence[Counted], model: Mapping[str, Figures], presets: Sequence[str]) -> Iterator[str]:
    """For faults and calls: whether the presets stand in the order of the kernels, where their processes decide it."""
    for name, figure in _MODELLED.items():
        cost = [model.get(preset, {}).get(figure, {}) for preset in presets]
        if not all(name in one.rows for one in found) or not all(cost) or len(cost) != len(found):
            continue
        both = list(itertools.combinations(range(len(found)), 2))
        verdicts = judge([Pair(cost[other], cost[one]) for one, other in both], notes=False)
        for (one, other), verdict in zip(both, verdicts, strict=True):
            a, b = found[one], found[other]
            if presets[one] == presets[other]:
                yield f"{name}: {presets[one]} stands for both {a.kernel} and {b.kernel}."
                continue
            real, modelled = b.rows[name][1] / a.rows[name][1], fmean(cost[other].values()) / fmean(cost[one].values())
            if verdict is None or verdict.word not in ("faster", "slower"):
                word = f"{verdict.text if verdict else 'undecided'}, so no order"
            else:
                word = "the same order" if (real < 1) == (verdict.word == "faster") else "NOT the same order"
            yield (
                f"{name}: Linux {b.kernel} executes {real:.2f} times the instructions of {a.kernel}; {presets[other]} "
                f"takes {modelled:.2f} times the time of {presets[one]}: {word}."
            )


VMAS = (0, 10, 100, 1000, 10_000)
FORKS = 16
"""Forks of a process; the first is not counted, since it fills the slabs."""
FORK_ROUNDS = 5
ENOUGH = 100
"""From so many VMAs on the difference to none is divided by their number; below it is lost in noise."""


@dataclass(frozen=True)
class ForkRow:
    """``vmas`` anonymous private VMAs of one page, ``written`` or never touched: ns by process, each the shortest of
    its forks, since a disturbance only adds; and by process ns per VMA, over the same round's process without VMAs."""

    vmas: int
    written: bool
    fork: tuple[float, ...]
    exit: tuple[float, ...]
    fork_each: tuple[float, ...] = ()
    exit_each: tuple[float, ...] = ()


@dataclass(frozen=True)
class ForkTimes:
    """What :func:`measure_forks` found; ``areas`` are the VMAs that a process has besides."""

    rows: list[ForkRow]
    areas: int
    overhead: float


def rows_of(vmas: int, written: bool) -> NDArray[np.int64]:
    """A program that makes the VMAs, a page apart so that they do not merge, and writes to each."""
    ops = np.zeros((EMPTY + vmas * (1 + written), WORDS), np.int64)
    at = ARENA + PAGE + 2 * PAGE * np.arange(vmas)
    ops[:EMPTY, 0] = NOTHING
    maps = ops[EMPTY : EMPTY + vmas]
    maps[:, :2] = CALL, SYSCALL[MMAP]
    maps[:, 2] = at
    maps[:, 3:7] = PAGE, 3, 2 | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1
    touches = ops[EMPTY + vmas :]
    touches[:, 0] = WRITE
    touches[:, 1] = at[: len(touches)]
    return ops


def measure_forks(
    vmas: Sequence[int] = VMAS, rounds: int = FORK_ROUNDS, cpu: int = -1, done: Callable[[int], None] | None = None
) -> ForkTimes:
    """Fork and wait :data:`FORKS` times for each number of VMAs, in ``rounds`` processes each, which take turns.

    ``vmas`` begins with 0. Some 0.1 s a process, 0.5 s with 10 000 VMAs. Raises HostError: unsupported, or the kernel
    refuses to map so many (vm.max_map_count) or to fork.
    """
    if reason := unsupported():
        raise HostError(reason)
    if not vmas or vmas[0] != 0:
        raise ValueError("the first number of VMAs must be 0: others are compared with it")
    cases = [(count, written) for count in vmas for written in ((False, True) if count else (False,))]
    taken: dict[tuple[int, bool], list[NDArray[np.float64]]] = {case: [] for case in cases}
    overheads, areas = [], 0
    for number in range(rounds):
        for case in cases:
            with prepared(rows_of(*case), []) as run:
                one = run(None, False, cpu, FORKS)
            refused = one.out[EMPTY:, 2]
            if (refused < 0).any():
                raise HostError(f"the kernel refused {int((refused < 0).sum()):,} of {case[0]:,} mappings")
            overheads.append(float(np.median(one.ns[:EMPTY])))
            taken[case].append(one.forks[1:].min(axis=0) - overheads[-1])
            areas = one.answer["areas"]
        if done is not None:
            done(number)
    base = taken[0, False]
    rows = []
    for (count, written), found in taken.items():
        each = [(one - none) / count for one, none in zip(found, base, strict=True)] if count >= ENOUGH else []
        fork, gone = ([float(one[side]) for one in found] for side in (0, 1))
        fork_each, gone_each = ([float(one[side]) for one in each] for side in (0, 1))
        rows.append(ForkRow(count, written, tuple(fork), tuple(gone), tuple(fork_each), tuple(gone_each)))
    return ForkTimes(rows, areas, float(np.median(overheads)))


def fork_table(times: ForkTimes, kernel: str) -> Table:
    """One row per number of VMAs, untouched and written."""
    heads = ("VMAs", "pages", "fork, us", "per VMA, ns", "exit, us", "per VMA, ns")
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Value]] = []
    for row in times.rows:
        texts = [_spread(row.fork, 1000), _spread(row.fork_each), _spread(row.exit, 1000), _spread(row.exit_each)]
        pages = "" if not row.vmas else "one written in each" if row.written else "none touched"
        rows.append((f"{row.vmas:,}", pages, *texts))
        records.append(
            {
                "vmas": row.vmas, "written": int(row.written), "kernel": kernel, "n": len(row.fork),
                "fork": summarise(row.fork).mean, "fork_sd": summarise(row.fork).sd, "exit": summarise(row.exit).mean,
                "exit_sd": summarise(row.exit).sd, "fork_per_vma": _mean(row.fork_each),
                "exit_per_vma": _mean(row.exit_each),
            }
        )  # fmt: skip
    what = (
        f"fork: until the parent goes on. exit: from the child's exit_group until its parent is back from wait4, "
        f"with the switch to it. Besides its own {times.areas} VMAs; per VMA: over the row of 0."
    )
    how = (
        f"{len(times.rows[0].fork)} processes a row, the shortest of {FORKS - 1} forks of each; ± is the standard "
        f"deviation over processes. The clock's own {ns(times.overhead)} ns are subtracted."
    )
    right = (True, False, True, True, True, True)
    return Table(f"fork and exit on Linux {kernel}", heads, tuple(rows), right, tuple(records), (what, how))


def _mean(values: Sequence[float]) -> float | None:
    return summarise(values).mean if values else None


def _spread(values: Sequence[float], unit: float = 1.0) -> str:
    """``mean ± sd`` in a unit of so many ns; "" for nothing."""
    if not values:
        return ""
    return mean_sd(summarise([value / unit for value in values]))
