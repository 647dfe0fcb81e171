"""The cost engine: loads, stores, atomics, branches and cache lines of a strategy's text, the same on every machine.

Here is the counted replay: which events are counted, what runs in between, and the result as names and numbers. The
counted code and the compiled code work on the same memory, so they alternate: the setup and the events between two
windows run compiled, a window runs counted. A stream that fits in the budget is counted completely. The budget is a
number of records, never a time: this gives the same windows on every machine, so the same result to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.records import DialectError
from benchframe.dialect.store import cache_folder
from benchframe.engine.caches import Caches
from benchframe.engine.cost.hierarchy import CacheSizes, CriticalPath, Hierarchy
from benchframe.engine.cost.records import EVENT, LINE, SHIFT, Memory
from benchframe.engine.cost.rewrite import Recorder, Translator, unit_of, units
from benchframe.engine.cost.sums import COUNTS, VIEWS, Tally, quantile
from benchframe.engine.job import COST_RECORDS
from benchframe.engine.session import prepare
from benchframe.errors import EngineError
from benchframe.events import Kind
from benchframe.files import prune, replacing
from benchframe.mm.layout import ARENA_VMA, MM, mm_struct, vm_area_struct
from benchframe.mm.machine import Machine, Parameters, Sizes
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING, one_event
from benchframe.runner import NativeRunner, unit_store
from benchframe.units import strategy_digest

if TYPE_CHECKING:
    from benchframe.runner import Note
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

__all__ = ["Cost", "count_cost", "stored_cost"]


Array = npt.NDArray[Any]
WINDOWS = 24
"""The number of windows of a sampled stream."""
PASSES = 4
"""Replays of a short stream, of which only the last counts: predictor and line distances are then as in a timed replay,
which follows many others. Only if all fit in the budget."""
PILOT = 200
"""The number of events after which the records per event are first estimated."""
BATCH = 300_000
"""Records that are summed up at once."""
TYPICAL = 60
"""Records of a typical fault or lookup."""
LOAD, COMPILE = 300_000, 5_000_000
"""Numbers of records from which it pays off to load compiled code that counts, and to compile it: it saves some 80 ns
per record, a load takes 0.1 s and a compile five to ten. Compiled code is stored."""
KEEP = 16 << 20
"""Bytes of stored numbers; a file has some kilobytes."""
_MAPPING = (EVENT << SHIFT) + CLASS_MAPPING
MEANS = ("loads", "stores", "atomics", "barriers", "branches", "mispredicted", "lines", "steps", "dirty")
"""What is counted per operation in each view; docs/cost.md defines each."""


@dataclass(frozen=True)
class Cost:
    """The result of a counted replay. ``numbers`` is what a cell's state stores: names as in docs/cost.md."""

    numbers: Mapping[str, float]
    records: int
    misses: tuple[tuple[Caches, Mapping[str, float]], ...] = ()
    """For each state of the caches that was asked for: misses per operation, by view, level and structure."""

    @property
    def whole(self) -> bool:
        """Whether every event was counted."""
        return self.numbers["counted"] == self.numbers["events"]


def count_cost(
    strategy: Strategy,
    trace: Trace,
    budget: int = COST_RECORDS,
    note: Note | None = None,
    caches: Sequence[Caches] = (),
    sizes: CacheSizes | None = None,
) -> Cost:
    """Replay ``trace`` with ``strategy`` and count; ``budget`` 0 counts every event.

    The strategy must be compiled (``note`` is called with what still has to be) and its answers right: nothing is
    checked here. Raises EngineError (no events, memory) and DialectError (code that cannot be counted). About 0.1 us a
    record, 25 ns where compiled code counts. ``caches`` are states in which the misses of a machine's caches
    (``sizes``) are counted too (:attr:`Cost.misses`).
    """
    replay = CountedReplay(strategy, trace, note)
    if sizes is not None:
        replay.hierarchies = [Hierarchy(replay.memory, sizes, state) for state in caches]
    return replay.run(budget)


def stored_cost(strategy: Strategy, trace: Trace, budget: int) -> Mapping[str, float]:
    """The numbers of :func:`count_cost`, counted once for the same strategy, model, counting code, events and budget:
    they depend on nothing else, so the cache keeps them (its folder may be missing or full). A file that is damaged or
    of another key is counted again."""
    folder, key = cache_folder() / "counts", _key(strategy, trace, budget)
    path = folder / f"{key[:40]}.json"
    try:
        found = json.loads(path.read_bytes())
        if found["key"] == key and all(isinstance(value, (int, float)) for value in found["numbers"].values()):
            os.utime(path)
            return {str(name): value for name, value in found["numbers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    numbers = count_cost(strategy, trace, budget).numbers
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path, durable=False, mode=0o600) as file:
            file.write(json.dumps({"key": key, "numbers": numbers}).encode())
        prune(folder, KEEP)
    return numbers


def _key(strategy: Strategy, trace: Trace, budget: int) -> str:
    """sha256 (hex) over all that decides the numbers: what the strategy does, the stream, its limits, and the texts of
    the model, of what counts it and of the language."""
    about = (strategy_digest(strategy), trace.digest, trace.setup, sorted(trace.meta.limits.items()), budget)
    digest = hashlib.sha256(repr(about).encode())
    for part in ("mm", "engine", "dialect"):
        folder = Path(__file__).parents[2] / part
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.c")]):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class CountedReplay:
    """One strategy and one trace on a machine of their own, VMA records in order of allocation."""

    def __init__(self, strategy: Strategy, trace: Trace, note: Note | None = None) -> None:
        self.first, self.last = int(trace.setup), len(trace.events)
        if self.first >= self.last:
            raise EngineError("the trace has no events after its setup: there is nothing to count")
        self.strategy = strategy
        self._note = note
        self.runner = NativeRunner(strategy, unit_store(), note)
        stream = prepare(trace.events)
        parameters = Parameters.of(trace.meta.limits)
        try:
            self.machine = Machine(self.runner, Sizes.of(trace.events), parameters, strategy.slabs)
            self.memory = Memory(self.machine, strategy)
            self.tally = Tally(self.memory)
        except MemoryError as error:
            raise EngineError(f"not enough memory for this trace: {error}") from error
        for number in stream.boots:
            self.machine.boot(number)
        self.machine.arrays["event_base"][:] = stream.records
        self.runner.timed(0, self.first)
        self.machine.raise_if_full()
        self._classes = _classes(stream.records["kind"])
        self._tasks = stream.records["task"].astype(np.int64)
        self._records: list[int] = []
        self._event = Translator(self.memory, strategy.binding, self._records.append).function(one_event, (MM, None))
        self.hierarchies: list[Hierarchy] = []
        self.path: CriticalPath | None = None
        self._recorder: Recorder | None = None
        self._total = 0
        self._passes = 0

    def run(self, budget: int = COST_RECORDS) -> Cost:
        """Count; if the stream fits in the budget more than once, replay it before, to warm up."""
        self.compile(budget)
        saved = self.machine.save()
        cost = self._replay(budget)
        while cost.whole and self._passes < PASSES and (self._passes + 1) * cost.records <= (budget or COST_RECORDS):
            self.machine.restore(saved)
            self.tally.again()
            for one in self.hierarchies:
                one.again()
            if self.path is not None:
                self.path.again()
            cost = self._replay(0)
        return cost

    def compile(self, budget: int = 0) -> bool:
        """Use compiled code to count faults and lookups, if it is already stored or worth compiling (COMPILE); returns
        whether it is used. The result is the same either way. Code that the compiler refuses is counted interpreted."""
        if self._recorder is None:
            expected = TYPICAL * sum(c != _MAPPING for c in self._classes[self.first : self.last])
            expected = min(expected, budget or expected)
            try:
                spec = unit_of(self.memory, self.strategy) if expected >= LOAD else None
                if spec is not None and (expected >= COMPILE or not units().missing([spec])):
                    self._recorder = Recorder(self.memory, units().get(spec, self._note), BATCH)
            except DialectError:
                return False
        return self._recorder is not None

    def _replay(self, budget: int) -> Cost:
        """One replay, window by window."""
        self._total = 0
        self._passes += 1
        events, at, counted, invalidated = self.last - self.first, self.first, 0, 0
        for window in range(WINDOWS):
            start, stop = (self.first + n * events // WINDOWS for n in (window, window + 1))
            self.tally.window(gap=at < start or (window == 0 and self._passes == 1))
            if at < start:
                self.runner.timed(at, start)
                at = start
            before = self._invalidations()
            if window == 0:
                at = self.count(start, min(start + PILOT, stop))
                counted = at - start
            until = (
                stop if self._fits(events, counted, budget) else min(stop, at + self._share(budget, counted, window))
            )
            counted += until - at
            at = self.count(at, until)
            invalidated += self._invalidations() - before
        if at < self.last:
            self.runner.timed(at, self.last)
        self.machine.raise_if_full()
        misses = tuple((one.asked, one.numbers()) for one in self.hierarchies)
        return Cost(self._numbers(counted, invalidated), self._total, misses)

    def _fits(self, events: int, counted: int, budget: int) -> bool:
        """Whether counting everything stays within the budget, judging by the count so far."""
        return not budget or self._total * events <= budget * counted

    def _share(self, budget: int, counted: int, window: int) -> int:
        """The number of events to count in this window: its part of the remaining budget, at the rate so far."""
        left = max(0, budget - self._total) // (WINDOWS - window)
        return max(8, left * counted // max(1, self._total))

    def _invalidations(self) -> int:
        return int(self.machine.arrays["mm_base"]["nr_invalidations"].sum())

    def count(self, first: int, last: int) -> int:
        """Replay events [first, last) counted; returns ``last``."""
        records, event, append, recorder = self._records, self._event, self._records.append, self._recorder
        classes = self._classes
        begun = index = first
        while index < last:
            if recorder is not None and classes[index] != _MAPPING:
                index = recorder.run(index, last)
            else:
                append(classes[index])
                event(1, index)
                index += 1
                if recorder is not None:
                    recorder.push(records)
                    del records[:]
            if recorder.full if recorder is not None else len(records) >= BATCH:
                self._flush(begun, index)
                begun = index
        if begun < last:
            self._flush(begun, last)
        return last

    def _flush(self, first: int, last: int) -> None:
        """Add up and discard the records of events [first, last)."""
        if self._recorder is not None:
            records = self._recorder.take()
        else:
            records = np.fromiter(self._records, np.int64, len(self._records))
            del self._records[:]
        self._total += len(records)
        self.tally.add(records, self._tasks[first:last])
        for one in self.hierarchies:
            one.add(records)
        if self.path is not None:
            self.path.add(records, first)

    # ---- the result --------------------------------------------------------------------------------------------------

    def _numbers(self, counted: int, invalidated: int) -> dict[str, float]:
        found: dict[str, float] = {"events": self.last - self.first, "counted": counted}
        sampled = counted < self.last - self.first
        for name in VIEWS:
            view = self.tally.views[name]
            n = view.total("n")
            if not n:
                continue
            found[f"{name}.n"] = n
            for what in MEANS:
                found[f"{name}.{what}"] = view.total(what) / n
                if sampled:
                    error = ratio_error(
                        [(w.get(what, 0), w.get("n", 0)) for w in view.windows], counted / found["events"]
                    )
                    found[f"{name}.{what}_se"] = error
            for region in self.memory.regions:
                if view.total(f"lines_{region.name}"):
                    found[f"{name}.lines.{region.name}"] = view.total(f"lines_{region.name}") / n
            for level in ("l1", "l2"):
                if view.total(f"far_{level}_n"):
                    found[f"{name}.far_{level}"] = view.total(f"far_{level}") / view.total(f"far_{level}_n")
            for what in ("lines", "loads"):
                for share in (0.5, 0.99):
                    found[f"{name}.{what}_p{share * 100:g}"] = quantile(getattr(view, what), share)
            if name in ("lookup", "fault"):
                others, tasks = self.tally.shared(name)
                found[f"{name}.dirty_shared"], found[f"{name}.dirty_tasks"] = others / n, tasks / n
        found.update(self._hooks(invalidated))
        found.update(self._bytes())
        return found

    def _hooks(self, invalidated: int) -> dict[str, float]:
        """What the strategy itself counted, per lookup; invalidations per mapping operation."""
        found: dict[str, float] = {}
        asked, changed = self.tally.views["lookup"].total("n"), self.tally.views["mapping"].total("n")
        sums = {name: sum(w.get(name, 0) for w in self.tally.counted) for name in COUNTS.values()}
        if asked:
            found = {f"lookup.{name}": sums[name] / asked for name in ("hits", "retries", "fallbacks")}
            found["lookup.misses"] = (sums["lookups"] - sums["hits"]) / asked
        if changed:
            found["mapping.invalidations"] = invalidated / changed
        return found

    def _bytes(self) -> dict[str, float]:
        """Peak memory: VMA records, and the lines of the strategy's own slabs that were ever written."""
        vmas = int(self.machine.arrays["slab_base"]["peak"][ARENA_VMA])
        mms = int(np.count_nonzero(self.machine.arrays["mm_base"]["pgd"])) or 1
        own = 0
        found: dict[str, float] = {}
        used = {base: stop for base, _, stop in self.machine._used()}
        for slab in self.strategy.slabs:
            part = self.machine.arrays[slab.base][: used[slab.base]].view(np.int64)
            words = LINE // 8
            whole = np.pad(part, (0, -len(part) % words)).reshape(-1, words)
            size = LINE * int(np.count_nonzero(whole.any(axis=1)))
            found[f"bytes.{slab.name}"] = size
            own += size
        found["bytes.per_vma"] = vm_area_struct.size + own / max(1, vmas)
        found["bytes.per_mm"] = mm_struct.size + (vm_area_struct.size * vmas + own) / mms
        return found


def _classes(kind: Array) -> list[int]:
    """The record that begins each event."""
    classes = np.full(len(kind), CLASS_MAPPING, np.int64)
    classes[kind == Kind.FAULT] = CLASS_FAULT
    classes[kind == Kind.LOOKUP] = CLASS_LOOKUP
    listed: list[int] = ((EVENT << SHIFT) + classes).tolist()
    return listed


def ratio_error(windows: list[tuple[int, int]], share: float) -> float:
    """The standard error of sum(y) / sum(n) over systematic windows (y, n) that cover ``share`` of the stream.

    The ratio estimator's variance as for a simple random sample of windows (Cochran, Sampling Techniques, 6.4).

    >>> ratio_error([(10, 5), (10, 5), (10, 5)], 0.1)
    0.0
    """
    used = [(y, n) for y, n in windows if n]
    total = sum(n for _, n in used)
    if len(used) < 2 or not total:
        return 0.0
    mean = sum(y for y, _ in used) / total
    squares = sum((y - mean * n) ** 2 for y, n in used)
    return math.sqrt(max(0.0, 1 - share) * len(used) / (len(used) - 1) * squares) / total
