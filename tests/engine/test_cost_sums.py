"""The cost engine's two forms of counting agree record by record, its sums with a naive count of the same records."""

from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
from support.space import registry, runner, strategy

from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.dialect.records import DialectError, Slab
from benchframe.engine import cost as count
from benchframe.engine.cost import CountedReplay
from benchframe.engine.cost import rewrite as module
from benchframe.engine.cost.records import ATOMIC, BRANCH, COUNTED, ENTER, EVENT, LEAVE, LOAD, OPERAND, SHIFT, word
from benchframe.engine.cost.rewrite import CompiledTranslator, Recorder, counting
from benchframe.engine.cost.sums import Reuse, Tally
from benchframe.errors import EngineError
from benchframe.mm.hooks import COUNT_HIT
from benchframe.mm.replay import CLASS_FAULT, CLASS_LOOKUP, CLASS_MAPPING

MIXED = "zipf:vmas=40,events=80,faults=1,writes=0.2,run=3"


def replay(name: str, spec: str) -> CountedReplay:
    """A counted replay, nothing counted yet."""
    runner(name, "native")
    return CountedReplay(strategy(name), registry().spec(spec).trace(0))


def interpreted(counted: CountedReplay, batch: int = count.BATCH) -> Recorder:
    """A recorder whose compiled text is interpreted: what is compared is the text, in no time."""
    twin = dejit(CompiledTranslator(counted.memory, counted.strategy).entry())
    slab = Slab("COUNTING", counting, "counting_base", first=0)
    made: Any = None

    def unit(address: int, first: int, last: int) -> int:
        stopped: int = twin(world.ref(slab, 0), first, last)
        return stopped

    made = Recorder(counted.memory, unit, batch)  # type: ignore[arg-type]
    arrays = {**counted.machine.arrays, "counting_base": made._header, "record_base": made._buffer.view(word.dtype)}
    world = PlainWorld(arrays)
    found: Recorder = made
    return found


def records(counted: CountedReplay) -> tuple[list[int], list[int]]:
    """All records of the stream, and the tasks of its events."""
    found: list[int] = []
    tasks: list[int] = []

    def add(batch: Any, whose: Any) -> None:
        found.extend(batch.tolist())
        tasks.extend(whose.tolist())

    counted.tally.add = add  # type: ignore[method-assign]
    counted.count(counted.first, counted.last)
    return found, tasks


# ---- two forms of one text ----


@pytest.mark.parametrize("spec", [MIXED, "python-json"])
@pytest.mark.parametrize("name", ["rbtree", "pmdcache", "maple", "vmacache"])
def test_both_forms_leave_the_same_records(name: str, spec: str) -> None:
    """The text that is compiled leaves record by record what the interpreted one does, mapping calls between."""
    plain, compiled = replay(name, spec), replay(name, spec)
    if spec == "python-json":
        plain.last = compiled.last = plain.first + 300
    compiled._recorder = interpreted(compiled, 2000)
    assert records(plain) == records(compiled)


def test_compiled_and_interpreted_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Really compiled: every number of a sampled and of a whole count is the same."""
    monkeypatch.setattr(count, "LOAD", 0)
    spec = "zipf:vmas=200,events=3000,faults=1,writes=0.05,run=3"
    for budget in (0, 60_000):
        one, other = replay("pmdcache", spec), replay("pmdcache", spec)
        monkeypatch.setattr(count, "COMPILE", 0)
        assert one.compile(budget)
        monkeypatch.setattr(other, "compile", lambda budget: False)
        assert one.run(budget) == other.run(budget)


def test_when_it_pays_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short stream loads nothing; a long one is compiled; what the compiler refuses is counted all the same."""
    asked: list[str] = []

    class Refusing:
        """Units that cannot be compiled."""

        def missing(self, specs: list[Any]) -> list[Any]:
            """All."""
            asked.append("missing")
            return specs

        def get(self, spec: Any, note: Any) -> Any:
            """None."""
            asked.append("get")
            raise DialectError("refused")

    monkeypatch.setattr(count, "units", Refusing)
    one = replay("rbtree", "zipf:vmas=30,events=500")
    assert not one.compile(0)
    assert asked == []
    monkeypatch.setattr(count, "LOAD", 1000)
    assert not one.compile(0)
    assert asked == ["missing"]
    monkeypatch.setattr(count, "COMPILE", 1000)
    assert one.run(0).numbers["counted"] == 500
    assert asked == ["missing", "get"]


def test_an_event_with_too_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than the buffer holds: EngineError, nothing is written behind its end."""
    monkeypatch.setattr(module, "CAPACITY", 40)
    one = replay("rbtree", "zipf:vmas=30,events=500")
    one._recorder = interpreted(one)
    with pytest.raises(EngineError, match="one event leaves more than"):
        one.count(one.first, one.first + 50)
    two = replay("rbtree", "mmap-churn:vmas=30,events=60")
    two._recorder = interpreted(two)
    with pytest.raises(EngineError, match="one event leaves more than"):
        two.count(two.first, two.last)


# ---- the sums ----


def naive(counted: CountedReplay, found: list[int], tasks: list[int]) -> dict[str, dict[str, int]]:
    """What the records add up to, with dictionaries and sets; branches that are missed left out."""
    memory = counted.memory
    region = {
        line: one for one in memory.regions for line in {(r & ((1 << SHIFT) - 1)) >> 6 for r in found}
        if one.first <= line < one.first + one.count
    }  # fmt: skip
    views: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("lookup", "fault", "mapping", "hit")}
    order: OrderedDict[int, None] = OrderedDict()  # lines by when they were touched, the latest last
    clock, seen = 1, {}
    starts = [i for i, r in enumerate(found) if r >> SHIFT == EVENT]
    touches: dict[str, list[tuple[int, set[int], set[int]]]] = {"lookup": [], "fault": []}
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(found)], strict=True)):
        kind, depth = found[start] & 0xFF, 0
        all_, inner = [], []
        for record in found[start + 1 : stop]:
            depth += (record >> SHIFT == ENTER) - (record >> SHIFT == LEAVE)
            all_.append(record)
            if kind == CLASS_LOOKUP or (kind == CLASS_FAULT and depth > 0):
                inner.append(record)
        hit = (COUNTED << SHIFT) + COUNT_HIT in all_
        for name, part in [
            ("lookup", inner if kind != CLASS_MAPPING else None),
            ("hit", inner if hit and kind != CLASS_MAPPING else None),
            ("fault", all_ if kind == CLASS_FAULT else None),
            ("mapping", all_ if kind == CLASS_MAPPING else None),
        ]:
            if part is None:
                continue
            sums = views[name]
            sums["n"] += 1
            for what, numbers in [("loads", {0}), ("stores", {1}), ("atomics", {2}), ("barriers", {3}),
                                  ("branches", {BRANCH, OPERAND})]:  # fmt: skip
                sums[what] += sum(r >> SHIFT in numbers for r in part)
            access = [r for r in part if r >> SHIFT <= ATOMIC]
            lines = {(r & ((1 << SHIFT) - 1)) >> 6 for r in access}
            written = {(r & ((1 << SHIFT) - 1)) >> 6 for r in access if r >> SHIFT != LOAD}
            sums["lines"] += len(lines)
            sums["dirty"] += len(written)
            walked = [line for line in lines if region[line].name not in ("mm", "task")]
            sums["steps"] += len({(region[x].name, (x - region[x].first) // region[x].step) for x in walked})
            lost = [line for line in lines if line not in seen or clock + _at(line, all_) - seen[line] > 512]
            sums["far_l1"] += len({(region[x].name, (x - region[x].first) // region[x].step) for x in lost}) if (
                clock - 1 >= 512
            ) else 0  # fmt: skip
            sums["far_l1_n"] += clock - 1 >= 512
            if name in touches:
                own = {line for line in written if region[line].name != "task"}
                touches[name].append((tasks[number], lines, own))
        for line in sorted({(r & ((1 << SHIFT) - 1)) >> 6 for r in all_ if r >> SHIFT <= ATOMIC}):
            seen[line] = clock
            clock += 1
            order[line] = None
    for name, known in touches.items():
        for what, differs in (("shared", lambda a, b: True), ("between", lambda a, b: a != b)):
            views[name][what] = sum(
                any(i != j and line in theirs and differs(a, b) for j, (b, theirs, _) in enumerate(known))
                for i, (a, _, own) in enumerate(known)
                for line in own
            )
    return views


def _at(line: int, part: list[int]) -> int:
    """The place of a line among the distinct ones of an operation."""
    return sorted({(r & ((1 << SHIFT) - 1)) >> 6 for r in part if r >> SHIFT <= ATOMIC}).index(line)


@pytest.mark.parametrize("name", ["rbtree", "pmdcache"])
def test_sums_against_a_naive_count(name: str) -> None:
    """All but the predictor, on a stream of two tasks: views, lines, steps, lines lost, who shares."""
    counted = replay(name, "zipf:vmas=90,events=250,faults=1,writes=0.1,run=3,pages=300")
    found, tasks = records(counted)
    tasks = [number % 2 for number, _ in enumerate(tasks)]
    expected = naive(counted, found, tasks)
    tally = Tally(counted.memory)
    tally.window(True)
    tally.add(np.array(found), np.array(tasks))
    for view, sums in expected.items():
        for what, value in sums.items():
            if what in ("shared", "between"):
                assert tally.shared(view)[what == "between"] == value, f"{view} {what}"
            else:
                assert tally.views[view].total(what) == value, f"{view} {what}"
    assert tally.views["lookup"].total("far_l1_n") > 50
    assert int(tally.views["lookup"].lines.sum()) == tally.views["lookup"].total("n")


def test_batches_do_not_show() -> None:
    """One batch or one per event: the same sums, histograms and reuse times."""
    counted = replay("pmdcache", MIXED)
    found, tasks = records(counted)
    whole, parts = Tally(counted.memory), Tally(counted.memory)
    for tally in (whole, parts):
        tally.window(True)
    whole.add(np.array(found), np.array(tasks))
    starts = [i for i, r in enumerate(found) if r >> SHIFT == EVENT]
    for start, stop, task in zip(starts, [*starts[1:], len(found)], tasks, strict=True):
        parts.add(np.array(found[start:stop]), np.array([task]))
    for name, view in whole.views.items():
        assert view.windows == parts.views[name].windows
        assert view.lines.tolist() == parts.views[name].lines[: len(view.lines)].tolist()
    np.testing.assert_array_equal(whole.reuse.counts, parts.reuse.counts)
    assert whole.reuse.counts.sum() > 0
    assert isinstance(whole.reuse, Reuse)
