"""How much a check detects: put small faults into a strategy's text, and measure the share that it finds.

A fault is one change of one line: a test, store, call or barrier left out, bounds swapped, a comparison or number off
by one. Each faulty strategy is checked like a normal one, in a process of its own: random calls, then the scenarios.
Surviving faults are listed. A survivor is either a real mistake that the check does not detect, or a change that cannot
be wrong; which of the two is a judgement, stored in ``NAME.mutants.json`` beside the plugin (:func:`judgements`).
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import multiprocessing
import random
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from benchframe.check.checker import Hunt, make_case
from benchframe.check.conform import Conformance
from benchframe.check.execution import Broken
from benchframe.check.jobs import scenarios_of
from benchframe.check.memory import OutOfRecords
from benchframe.dialect.functions import Hook, origin, referenced, resolve
from benchframe.dialect.records import DialectError
from benchframe.errors import BenchframeError
from benchframe.scenario import Scenario
from benchframe.strategy import Strategy

FAULTS = 60
"""The default number of faults to try per strategy."""
CALLS, MOST = 400, 60
"""Random calls, and executions of each scenario, that a fault must survive."""
LIMIT = 300.0
"""Seconds of wall time after which a fault without a result is undecided, and counts as not tried."""
UNDECIDED = f"undecided: {LIMIT:.0f} s were not enough"
BARRIERS = frozenset(
    {"smp_mb", "smp_rmb", "smp_wmb", "smp_mb__before_atomic", "smp_mb__after_atomic", "smp_acquire__after_ctrl_dep"}
)
WEAKER = {
    "load_acquire": "READ_ONCE",
    "store_release": "WRITE_ONCE",
    "rcu_assign_pointer": "WRITE_ONCE",
    "smp_store_mb": "WRITE_ONCE",
}
ORDERING = "an ordering, which sequential consistency does not see; use check --memory lkmm --orderings"
STATISTICS = frozenset(
    {"nr_invalidations", "nr_lookups", "nr_hits", "nr_retries", "nr_fallbacks", "nr_splits", "nr_merges"}
)
"""Fields on which nothing depends."""
STORES = frozenset({"WRITE_ONCE", "store_release", "rcu_assign_pointer", "smp_store_mb"})
HINTS = frozenset({"count", "cpu_relax", "cond_resched"})
"""Calls that do not change any answer."""


@dataclass(frozen=True)
class Fault:
    """One change: ``what`` in words, in ``function`` at ``line`` of its file, and the changed code."""

    function: FunctionType
    line: int
    what: str
    code: CodeType
    by_design: str = ""
    """Why a check under sequential consistency cannot detect it."""

    @property
    def key(self) -> str:
        """The key of its judgement: it does not depend on line numbers."""
        return f"{self.function.__name__}: {self.what}"

    @property
    def place(self) -> str:
        """File and line."""
        return f"{Path(self.function.__code__.co_filename).name}:{self.line}"


@dataclass(frozen=True)
class Outcome:
    """The result for a fault. ``found``: what found it; empty if it survived. ``judgement`` says why it may survive."""

    fault: Fault
    found: str
    seconds: float
    judgement: str = ""


@dataclass(frozen=True)
class Score:
    """The results of one strategy; ``possible`` is the number of faults that its text allows."""

    strategy: str
    outcomes: tuple[Outcome, ...]
    possible: int

    @property
    def caught(self) -> int:
        """Faults that the check found."""
        return sum(bool(o.found) for o in self.outcomes)

    @property
    def excused(self) -> int:
        """Survivors that were judged harmless, or that the check cannot detect by design."""
        return sum(not o.found and bool(o.judgement) for o in self.outcomes)

    @property
    def share(self) -> float:
        """The share of found faults among those that are not excused."""
        counted = len(self.outcomes) - self.excused
        return self.caught / counted if counted else 1.0


# ----------------------------------------------------------------------------------------------------------------------
# Faults of a text.


def functions_of(strategy: Strategy) -> list[FunctionType]:
    """Its own functions, and those that fill hooks which its modules declare: the innermost part of a strategy first,
    those of its own file before those of the index that it uses."""
    found = dict.fromkeys(strategy.functions())
    for function in list(found):
        for obj in referenced(function).values():
            if isinstance(obj, Hook) and obj.name not in _model_hooks():
                bound = resolve(obj, strategy.binding)
                if isinstance(bound, FunctionType) and bound.__module__ == function.__module__:
                    found[bound] = None
    judge = strategy.binding.get("index_check")  # a fault of what judges the index is none of the index
    judging = _alone({judge}, found)
    own = [f for f in found if origin(f) is None and f not in judging]
    return sorted(
        own, key=lambda f: (f.__code__.co_filename != strategy.file, f.__code__.co_filename, f.__code__.co_firstlineno)
    )


def _alone(roots: set[Any], functions: Iterable[FunctionType]) -> set[Any]:
    """``roots``, and what of ``functions`` only they call, or what they call."""
    callers: dict[Any, set[Any]] = {}
    for function in functions:
        for called in referenced(function).values():
            if isinstance(called, FunctionType) and called is not function:
                callers.setdefault(called, set()).add(function)
    found, more = set(roots), set(roots)
    while more:
        more = {one for one, by in callers.items() if one not in found and by <= found}
        found |= more
    return found


def _model_hooks() -> frozenset[str]:
    from benchframe.mm.hooks import BY_NAME

    return frozenset(BY_NAME)


def faults_of(function: FunctionType) -> list[Fault]:
    """Every fault of one function, in line order."""
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError:
        return []
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return []
    found: dict[str, Fault] = {}
    for line, what, changed, by_design in _changes(definition):
        changed.decorator_list = []
        module = ast.fix_missing_locations(ast.Module([changed], []))
        scope: dict[str, Any] = {}
        exec(
            compile(module, function.__code__.co_filename, "exec"), {}, scope
        )  # the changed text of a plugin that the user loaded
        code: CodeType = scope[function.__name__].__code__
        if (
            code.co_code == function.__code__.co_code
            and code.co_consts == function.__code__.co_consts
            and code.co_names == function.__code__.co_names
        ):
            continue
        number = sum(known.partition(" (")[0] == what for known in found)
        name = f"{what} ({number + 1})" if number else what
        found[name] = Fault(function, line, name, code, by_design)
    return list(found.values())


def _changes(definition: ast.FunctionDef) -> Iterator[tuple[int, str, ast.FunctionDef, str]]:
    """(line, words, changed function, why it cannot be seen) of every change."""
    nodes = list(ast.walk(definition))
    skip = {id(n) for n in ast.walk(definition.args)} | {id(n) for d in definition.decorator_list for n in ast.walk(d)}
    order = sorted(
        (n for n in range(len(nodes)) if id(nodes[n]) not in skip and hasattr(nodes[n], "lineno")),
        key=lambda n: (nodes[n].lineno, nodes[n].col_offset, n),  # type: ignore[attr-defined]
    )
    for number in order:
        for what, edit, by_design in _edits(nodes[number]):
            twin = deepcopy(definition)
            edit(list(ast.walk(twin))[number], twin)
            yield nodes[number].lineno, what, twin, by_design  # type: ignore[attr-defined]


Edit = Callable[[Any, ast.FunctionDef], None]


def _edits(node: ast.AST) -> Iterator[tuple[str, Edit, str]]:
    """The possible changes at ``node``: words, the change (of its twin, in the twin of the function), why it cannot be
    detected."""
    text = (
        ast.unparse(node).splitlines()[0] if not isinstance(node, (ast.operator, ast.cmpop, ast.expr_context)) else ""
    )
    if isinstance(node, ast.If):
        test = ast.unparse(node.test)
        yield f"`{test}` always holds", lambda n, _: setattr(n, "test", ast.Constant(1)), ""
        yield f"`{test}` never holds", lambda n, _: setattr(n, "test", ast.Constant(0)), ""
    if isinstance(node, ast.BoolOp):
        for at, operand in enumerate(node.values):
            yield f"`{ast.unparse(operand)}` dropped from `{text}`", _drop_operand(at), ""
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Attribute) and target.attr not in STATISTICS:
            yield f"store `{text}` dropped", _drop, ""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
        name = node.value.func.id
        if name in BARRIERS:
            yield f"barrier `{text}` dropped", _drop, ORDERING
        elif name not in HINTS:
            yield f"{'store' if name in STORES else 'call'} `{text}` dropped", _drop, ""
    if isinstance(node, ast.Attribute) and node.attr in ("vm_start", "vm_end"):
        other = "vm_end" if node.attr == "vm_start" else "vm_start"
        yield f"`{text}` is {other}", lambda n, _: setattr(n, "attr", other), ""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for now, new in (
            (ast.Lt, ast.LtE),
            (ast.LtE, ast.Lt),
            (ast.Gt, ast.GtE),
            (ast.GtE, ast.Gt),
            (ast.Eq, ast.NotEq),
            (ast.NotEq, ast.Eq),
        ):
            if isinstance(node.ops[0], now):
                yield f"`{text}` with {_SIGNS[new]}", _operator(new), ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        if isinstance(node.right, ast.Constant) and node.right.value == 1:
            yield f"`{text}` without the 1", lambda n, _: setattr(n, "right", ast.Constant(0)), ""
        else:
            yield f"`{text}` off by one", _off_by_one, ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        other = "max" if node.func.id == "min" else "min"
        yield f"`{text}` is {other}", lambda n, _: setattr(n.func, "id", other), ""


_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def _operator(new: type[ast.cmpop]) -> Edit:
    return lambda n, _: setattr(n, "ops", [new()])


def _drop_operand(at: int) -> Edit:
    def edit(node: Any, _: ast.FunctionDef) -> None:
        del node.values[at]
        if len(node.values) == 1:
            node.values.append(deepcopy(node.values[0]))

    return edit


def _off_by_one(node: Any, _: ast.FunctionDef) -> None:
    node.right = ast.BinOp(node.right, ast.Add(), ast.Constant(1))


def _drop(node: Any, function: ast.FunctionDef) -> None:
    """The statement becomes ``pass``."""
    for parent in ast.walk(function):
        for field in ("body", "orelse"):
            body = getattr(parent, field, None)
            if isinstance(body, list) and node in body:
                body[body.index(node)] = ast.Pass()
                return


def chosen(faults: Sequence[Fault], count: int, seed: int = 0) -> list[Fault]:
    """``count`` of ``faults`` in their order, by a seeded draw; all if there are no more."""
    if len(faults) <= count:
        return list(faults)
    kept = sorted(random.Random(seed).sample(range(len(faults)), count))
    return [faults[at] for at in kept]


# ----------------------------------------------------------------------------------------------------------------------
# One fault under check, in a process of its own, to which the changed code is passed.


class _Enough(Exception):
    """The maximum number of executions for a fault."""


def found_by(strategy: Strategy, deadline: float) -> str:
    """What finds a mistake in ``strategy`` first; empty if nothing does."""
    try:
        result = Conformance(strategy, shrinks=0, seconds=1.0).run(CALLS, 1, deadline)
    except DialectError as error:
        return f"random calls: {str(error).splitlines()[0]}"
    if result.failure:
        return f"random calls: {result.failure.partition(', ')[2] or result.failure}"
    for one in scenarios_of(strategy):
        failure = _in_scenario(one, strategy, deadline)
        if failure:
            return f"{one.name}: {failure}"
    return ""


def _in_scenario(one: Scenario, strategy: Strategy, deadline: float) -> str:
    def tick(executions: int) -> None:
        if executions >= MOST or hunt.failures or time.monotonic() >= deadline:
            raise _Enough

    try:
        case = make_case(one, strategy)
        hunt = Hunt(case, most=1, tick=tick)
        with contextlib.suppress(_Enough):
            hunt.search(deadline)
    except Broken as broken:
        return f"{broken.kind}: {broken.text}"
    except OutOfRecords:
        return ""
    known = strategy.known_bugs
    failures = [run.failure for run in hunt.failures.values() if run.failure is not None]
    fresh = [f for f in failures if not any(bug.scenarios and one.name in bug.scenarios for bug in known)]
    return f"{fresh[0].kind}: {fresh[0].text}" if fresh else ""


def _child(strategy: Strategy, fault: Fault, pipe: Connection) -> None:
    fault.function.__code__ = fault.code
    began = time.monotonic()
    try:
        said = found_by(strategy, began + LIMIT)
        if not said and time.monotonic() >= began + LIMIT:
            said = UNDECIDED
    except Exception as error:  # the changed code violated the checker's own assumptions: this also counts as found
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    pipe.send(said)
    pipe.close()


class _Running:
    """A fault under check."""

    def __init__(self, strategy: Strategy, fault: Fault) -> None:
        context = multiprocessing.get_context("fork")
        self.fault, self.began = fault, time.monotonic()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_child, args=(strategy, fault, theirs), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12: a fork beside NumPy's idle threads
            self.process.start()
        theirs.close()

    def end(self) -> tuple[str, float]:
        """(what found the fault, seconds). If the process died or did not end, that found it."""
        try:
            said: str = self.pipe.recv() if self.pipe.poll() else "no end"
        except EOFError:
            said = "the process died"
        self.kill()
        return said, time.monotonic() - self.began

    def kill(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def judged(strategy: Strategy, faults: Iterable[Fault], jobs: int = 1) -> Iterator[tuple[Fault, str, float]]:
    """(fault, what found it, seconds) of each, ``jobs`` at a time, as they finish."""
    waiting, running = iter(faults), list[_Running]()
    try:
        while True:
            while len(running) < jobs and (fault := next(waiting, None)) is not None:
                running.append(_Running(strategy, fault))
            if not running:
                return
            ready = wait([one.pipe for one in running], timeout=1.0)
            for one in [o for o in running if o.pipe in ready or time.monotonic() - o.began > 2 * LIMIT]:
                running.remove(one)
                yield (one.fault, *one.end())
    finally:
        for one in running:
            one.kill()


def mutants_of(strategy: Strategy) -> list[Fault]:
    """All faults of a strategy's text."""
    return [fault for function in functions_of(strategy) for fault in faults_of(function)]


def score(
    strategy: Strategy,
    count: int = FAULTS,
    deadline: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    say: Callable[[Outcome], None] = lambda outcome: None,
) -> Score:
    """Try ``count`` faults of ``strategy``, or as many as fit before ``deadline`` (time.monotonic); ``say`` is called
    for each. Faults of its own file come first, then those of an index that it shares."""
    every = mutants_of(strategy)
    own = [f for f in every if f.function.__code__.co_filename == strategy.file]
    shared = [f for f in every if f.function.__code__.co_filename != strategy.file]
    tried = chosen(own, count, seed)
    tried += chosen(shared, count - len(tried), seed)
    if deadline is not None:  # so that those done before the deadline are a random sample
        random.Random(seed).shuffle(tried)
    told = judgements(strategy)
    outcomes = []
    in_time = itertools.takewhile(lambda _: deadline is None or time.monotonic() < deadline, tried)
    for fault, found, seconds in judged(strategy, in_time, jobs):
        known = told.get(fault.key, fault.by_design)
        outcome = Outcome(fault, found, seconds, known)
        say(outcome)
        if found != UNDECIDED:
            outcomes.append(outcome)
    return Score(strategy.name, tuple(outcomes), len(every))


# ----------------------------------------------------------------------------------------------------------------------
# Judgements of survivors, beside the plugin.


class JudgementError(BenchframeError):
    """A file of judgements that cannot be read."""


def judgements(strategy: Strategy, kind: str = "mutants") -> dict[str, str]:
    """For each judged fault, by :attr:`Fault.key`: why no check need find it. From ``FILE.mutants.json`` beside every
    file with functions of the strategy; with ``kind`` "orderings" from ``FILE.orderings.json`` why an ordering need not
    be as strong as it is. Raises JudgementError."""
    found: dict[str, str] = {}
    files = {Path(f.__code__.co_filename) for f in functions_of(strategy)}
    for path in sorted(file.with_suffix(f".{kind}.json") for file in files):
        if not path.is_file():
            continue
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise JudgementError(f"{path}: {error}; it must be a JSON object of faults and reasons") from None
        if not isinstance(rows, dict) or not all(isinstance(v, str) for v in rows.values()):
            raise JudgementError(f"{path}: it must be a JSON object of faults and reasons")
        found.update(rows)
    return found


def table(scores: Sequence[Score]) -> str:
    """A line per strategy: faults tried of all possible ones, found, excused, undecided, and the share found."""
    rows: list[tuple[str, ...]] = [("strategy", "faults", "of", "caught", "judged", "open", "share")]
    for s in scores:
        left = len(s.outcomes) - s.caught - s.excused
        rows.append(
            (s.strategy, *map(str, (len(s.outcomes), s.possible, s.caught, s.excused, left)), f"{100 * s.share:.0f} %")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
