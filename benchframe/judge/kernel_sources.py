"""Compare the strategies and the oracle with a kernel's own source files: what, how often, and the first difference.

lib/rbtree.c, lib/maple_tree.c and mm/vma.c of a source tree are compiled for user space and do what the strategies and
the oracle do; then both are compared, tree by tree (``benchframe oracle --sources``). Reading order:
:mod:`benchframe.judge.trees` (from a source tree to a library, the two sides of each, random calls), the drivers
``maple.c``, ``rbtree.c``, ``vma.c`` in :mod:`benchframe.linux`, then this module.
"""

from __future__ import annotations

import ctypes
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchframe.dialect.interpreter import PlainWorld, dejit
from benchframe.errors import UsageError, did_you_mean
from benchframe.events import Kind
from benchframe.judge.trees import (
    BASE,
    CLOSING,
    LENGTH,
    MAPLE,
    RBTREE,
    VMA,
    Call,
    Driver,
    KernelMaple,
    KernelTree,
    Nodes,
    Pair,
    Store,
    build,
    bulk_first,
    calls,
    layout_text,
    maple_difference,
    model_nodes,
    numbered,
    part,
    perform,
    rb_tree,
    shrunk,
    stores,
    watched,
)
from benchframe.linux import SourcesError, SourceTree, find_trees, read_source
from benchframe.mm.flags import MADV_DONTFORK
from benchframe.mm.layout import MM
from benchframe.mm.machine import ENDLESS, Machine, Parameters, Sizes, Space
from benchframe.oracle import Limits, Oracle, Rules
from benchframe.oracle.rules import PAGE
from benchframe.runner import InterpretedRunner
from benchframe.strategy import Strategy
from benchframe.trace.trace import Trace
from benchframe.verify import parameters

if TYPE_CHECKING:
    from rich.console import Console

    from benchframe.registry import Registry


_SMALL = Sizes(mms=2, tasks=2, vmas=2048, tables=256, pages=4096, files=64)
_HOLES = (1, 3, 17, 300)
"""Pages: the sizes that the hole search looks for."""
FORK = 100
"""Calls between two forks."""


@dataclass
class Row:
    """One line of the table. ``draw`` shrinks and draws the difference with the shortest program: some seconds."""

    what: str
    kernel: str
    unit: str
    compared: int = 0
    differ: int = 0
    draw: Callable[[], str] | None = None
    _length: int = 1 << 62

    def count(self, equal: bool, length: int, draw: Callable[[], str]) -> None:
        """One more was compared; ``draw`` draws it if it differs, after a program of this length."""
        self.compared += 1
        if not equal:
            self.differ += 1
            if length < self._length:
                self._length, self.draw = length, draw


# ---- maple -------------------------------------------------------------------------------------------------------


class MapleModel:
    """A strategy's maple tree alone, without the mm around it."""

    def __init__(self, strategy: Strategy) -> None:
        runner = InterpretedRunner(strategy)
        self.arrays = Machine(runner, _SMALL, Parameters(), strategy.slabs).arrays
        self.mm = PlainWorld(self.arrays).ref(MM, 1)
        self._store = dejit(part(strategy, "mas_store"), strategy.binding, strategy.binding)
        self._bulk: Callable[..., int] | None = None
        if "index_bulk" in strategy.binding:
            bulk = part(strategy, "mas_bulk_store", "index_bulk")
            self._bulk = dejit(bulk, strategy.binding, strategy.binding)

    def store(self, store: Store) -> None:
        """mas_store."""
        self._store(self.mm, store.first, store.last, store.entry)

    def play(self, program: Sequence[Store]) -> None:
        """A program from the beginning, into the empty tree."""
        bulk, others = bulk_first(program)
        for one in bulk:
            assert self._bulk is not None
            self._bulk(self.mm, one.first, one.last, one.entry)
        for store in others:
            self.store(store)

    def nodes(self) -> Nodes:
        """The tree."""
        return model_nodes(self.arrays["private0_base"]["word"], self.mm.mm_rb)


class MapleRows:
    """The strategy's maple tree beside each kernel's, store by store, as rows of the table."""

    def __init__(self, strategy: Strategy, kernels: Sequence[KernelMaple], what: str) -> None:
        self.strategy, self.kernels = strategy, kernels
        self.rcu = strategy.name != "maple"
        name = strategy.name
        self.one = {k: Row(f"{name}, {what}: one store from the same tree", k.name, "stores") for k in kernels}
        self.all = {k: Row(f"{name}, {what}: the whole history", k.name, "trees") for k in kernels}
        self.hole = {k: Row(f"{name}, {what}: hole search", k.name, "searches") for k in kernels}
        self.copy = {k: Row(f"{name}, {what}: fork's copy (__mt_dup)", k.name, "trees") for k in kernels}
        self.bulk = {k: Row(f"{name}, {what}: fork's bulk store", k.name, "trees") for k in kernels}
        self._trees: dict[tuple[KernelMaple, int], KernelTree] = {}
        self._log: dict[int, list[Store]] = defaultdict(list)

    def rows(self) -> list[Row]:
        """Those that compared something, by kernel."""
        kinds = (self.one, self.all, self.copy, self.bulk, self.hole)
        return [kind[k] for k in self.kernels for kind in kinds if kind[k].compared]

    def tree(self, kernel: KernelMaple, mm: int) -> KernelTree | None:
        """The kernel's tree with the history of record ``mm``; None before its first store."""
        return self._trees.get((kernel, mm))

    def seen(self, mm: int, store: Store, before: Nodes, after: Nodes) -> None:
        """The strategy stored: let the kernels store, and compare."""
        if not before:
            self._log[mm] = []
            for kernel in self.kernels:
                self._trees[kernel, mm] = kernel.tree(self.rcu)
        log = self._log[mm]
        log.append(store)
        for kernel in self.kernels:
            step = kernel.tree(self.rcu, before)
            done = step.store(store)
            equal = done and step.nodes() == after
            self.one[kernel].count(equal, len(log), self._one_step(kernel, [] if equal else list(log)))
            tree = self._trees[kernel, mm]
            equal = tree.store(store) and tree.nodes() == after
            self.all[kernel].count(equal, len(log), self._history(kernel, [] if equal else list(log)))

    def copied(self, mm: int, child: int, after: Nodes) -> None:
        """fork copied the strategy's tree: let the kernels copy theirs, and compare."""
        self._log[child] = list(self._log[mm])
        for kernel in self.kernels:
            copy = self._trees[kernel, mm].copy()
            self._trees[kernel, child] = copy or kernel.tree(self.rcu, after)
            if copy is not None:
                nodes, log = copy.nodes(), self._log[child]
                self.copy[kernel].count(nodes == after, len(log), partial(maple_difference, None, log, nodes, after))

    def filled(self, mm: int, stores: Sequence[Store], after: Nodes) -> None:
        """fork filled the strategy's tree in bulk mode: let the kernels do so, and compare."""
        self._log[mm] = list(stores)
        for kernel in self.kernels:
            tree = kernel.tree(self.rcu)
            if kernel.has_bulk:
                equal = tree.bulk(stores) and tree.nodes() == after
                self.bulk[kernel].count(equal, len(stores), self._history(kernel, [] if equal else list(stores)))
            self._trees[kernel, mm] = tree if kernel.has_bulk else kernel.tree(self.rcu, after)

    def holes(self, mm: Any, search: Callable[..., int], low: int, high: int) -> None:
        """Search for holes of several sizes in both trees."""
        for kernel in self.kernels:
            tree = self._trees.get((kernel, mm.index))
            if tree is None or not mm.mm_rb:
                continue
            for pages in _HOLES:
                ours = search(mm, low, high, pages * PAGE)
                ours = ours - pages * PAGE if ours >= 0 else -1
                theirs = tree.hole(low, high, pages * PAGE)
                text = f"a hole of {pages} pages in [{low:#x}, {high:#x}): kernel {theirs:#x}, strategy {ours:#x}"
                self.hole[kernel].count(ours == theirs, 0, text.__str__)

    def _one_step(self, kernel: KernelMaple, log: list[Store]) -> Callable[[], str]:
        def trees(program: Sequence[Store]) -> tuple[Nodes, Nodes, Nodes, bool]:
            model = MapleModel(self.strategy)
            model.play(program[:-1])
            before = model.nodes()
            step = kernel.tree(self.rcu, before)
            done = step.store(program[-1])
            model.store(program[-1])
            return before, step.nodes() if done else [], model.nodes(), done

        def differs(program: Sequence[Store]) -> bool:
            _, theirs, ours, done = trees(program)
            return not done or theirs != ours

        def text() -> str:
            small = shrunk(log, differs)
            before, theirs, ours, done = trees(small)
            stopped = "" if done else "\nthe kernel's code stopped (BUG_ON, WARN_ON or an error)"
            drawn = maple_difference(before, small, theirs, ours)
            return f"{len(log)} stores shrunk to {len(small)}:\n{drawn}{stopped}"

        return text

    def _history(self, kernel: KernelMaple, log: list[Store]) -> Callable[[], str]:
        def trees(program: Sequence[Store]) -> tuple[Nodes, Nodes]:
            model, tree = MapleModel(self.strategy), kernel.tree(self.rcu)
            model.play(program)
            tree.play(program)
            return tree.nodes(), model.nodes()

        def differs(program: Sequence[Store]) -> bool:
            theirs, ours = trees(program)
            return theirs != ours

        def text() -> str:
            small = shrunk(log, differs)
            return f"{len(log)} stores shrunk to {len(small)}:\n{maple_difference(None, small, *trees(small))}"

        return text


def maple_stores(strategy: Strategy, kernels: Sequence[KernelMaple], ops: int, seed: int) -> Iterator[list[Row]]:
    """Random stores straight into the tree, which overwrite more at once than calls. Yields after each program."""
    rows = MapleRows(strategy, kernels, "random stores")
    done = 0
    while done < ops:
        model = MapleModel(strategy)
        before = model.nodes()
        for store in stores(f"{seed}/stores/{done}", model.nodes):
            if not before and not store.entry:
                continue
            model.store(store)
            after = model.nodes()
            rows.seen(1, store, before, after)
            before = after
        done += LENGTH
        yield rows.rows()


def maple_calls(strategy: Strategy, kernels: Sequence[KernelMaple], ops: int, seed: int) -> Iterator[list[Row]]:
    """The stores of random mapping calls on the model, and the hole search after each call. Yields after each
    program."""
    rows = MapleRows(strategy, kernels, "random calls")
    search = dejit(part(strategy, "mas_empty_area_rev", "index_gap_below"), strategy.binding, strategy.binding)
    for done in range(0, ops, LENGTH):
        space = _space(strategy, rows)
        mm = PlainWorld(space.machine.arrays).ref(MM, 1)
        for call in calls(f"{seed}/calls/{done}"):
            perform(space, call)
            rows.holes(mm, search, 1 << 16, BASE + 4000 * PAGE)
        yield rows.rows()


def maple_forks(strategy: Strategy, kernels: Sequence[KernelMaple], ops: int, seed: int) -> Iterator[list[Row]]:
    """Random calls, each part of a program in a child of the one before, which lacks some of its VMAs (MADV_DONTFORK).
    Yields after each program."""
    rows = MapleRows(strategy, kernels, "random forks")
    for done in range(0, ops, LENGTH):
        rng = random.Random(f"{seed}/forks/{done}")
        space = _space(strategy, rows, replace(_SMALL, mms=LENGTH // FORK + 2, tasks=LENGTH // FORK + 2))
        for number, call in enumerate(calls(f"{seed}/forks/{done}"), 1):
            perform(space, call)
            if number % FORK == 0:
                for start, end, *_ in space.layout():
                    if rng.random() < 0.2:
                        space.madvise(start, end - start, MADV_DONTFORK)
                space = space.fork()
        yield rows.rows()


def _space(strategy: Strategy, rows: MapleRows, sizes: Sizes = _SMALL, p: Parameters | None = None) -> Space:
    """An address space of the model's whose stores ``rows`` sees."""
    runner = InterpretedRunner(strategy, replace=watched(strategy, lambda: machine.arrays, rows))
    machine = Machine(runner, sizes, p or Parameters(), strategy.slabs)
    return Space(machine)


def maple_trace(strategy: Strategy, kernels: Sequence[KernelMaple], name: str, trace: Trace) -> list[Row]:
    """The stores of a trace. Left out are lookups and those faults that change no VMA."""
    rows = MapleRows(strategy, kernels, f"trace {name}")
    events = trace.events
    image = trace.image
    machine = _space(
        strategy, rows, Sizes.of(np.concatenate([image, events])), Parameters.of(trace.meta.limits)
    ).machine
    for event in (*image, *events):
        if event["kind"] != Kind.LOOKUP and not _quiet(machine, rows, event):
            machine.arrays["event_base"][0] = event
            machine.runner.replay(0, 1)
            machine.raise_if_full()
    return rows.rows()


def _quiet(machine: Machine, rows: MapleRows, event: Any) -> bool:
    """Whether a fault hits a VMA that it cannot change: a read, or a write where an anon_vma is already."""
    tree = rows.tree(rows.kernels[0], int(event["mm"]) + 1) if event["kind"] == Kind.FAULT else None
    vma = tree.find(int(event["addr"])) if tree is not None else 0
    record = machine.arrays["vma_base"][vma]
    return bool(vma and record["vm_start"] <= event["addr"] and (not event["prot"] & 2 or record["anon_vma"]))


# ---- the red-black tree --------------------------------------------------------------------------------------------


def rbtree(strategy: Strategy, library: ctypes.CDLL, kernel: str, ops: int, seed: int) -> Iterator[list[Row]]:
    """The tree after each random call. Yields after each program."""
    row = Row(f"{strategy.name}, random calls", kernel, "trees")

    def last(program: Sequence[Call]) -> tuple[str, str]:
        pair = Pair(library, strategy, _SMALL)
        for call in program:
            perform(pair.space, call)
        return rb_tree(pair.kernel()), rb_tree(pair.strategy())

    def first(program: list[Call]) -> Callable[[], str]:
        def text() -> str:
            small = shrunk(program, lambda some: len(set(last(some))) == 2)
            theirs, ours = last(small)
            lines = [f"{len(program)} calls shrunk to {len(small)}:", *map(str, small)]
            return "\n".join([*lines, f"  kernel    {theirs}", f"  strategy  {ours}"])

        return text

    for done in range(0, ops, LENGTH):
        pair = Pair(library, strategy, _SMALL)
        program: list[Call] = []
        for call in calls(f"{seed}/calls/{done}"):
            program.append(call)
            perform(pair.space, call)
            row.count(pair.kernel() == pair.strategy(), len(program), first(list(program)))
        yield [row]


# ---- mm/vma.c ------------------------------------------------------------------------------------------------------

Layout = list[tuple[int, ...]]


class KernelVmas:
    """An address space of mm/vma.c's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.v_layout.restype, library.v_tree.restype = ctypes.c_long, ctypes.c_void_p
        word = ctypes.c_ulong
        library.v_map.argtypes = [word, word, word, ctypes.c_int, word]
        library.v_unmap.argtypes, library.v_protect.argtypes = [word, word], [word, word, word]
        library.v_fault.argtypes = [word]
        library.v_fail_prealloc.argtypes = [ctypes.c_int]
        self._library = library
        self._maple = KernelMaple(library, "")
        self._room = np.zeros(5 * _SMALL.vmas, np.uint64)
        library.v_new()

    def perform(self, call: Call) -> int:
        """0, or the negative errno."""
        self._library.v_fail_prealloc(int(call.fail_prealloc))
        addr, length = BASE + call.page * PAGE, call.pages * PAGE
        if call.kind == "mmap":
            pgoff = call.pgoff if call.file else addr // PAGE
            return int(self._library.v_map(addr, length, call.prot, call.file, pgoff))
        if call.kind == "munmap":
            return int(self._library.v_unmap(addr, length))
        if call.kind == "mprotect":
            return int(self._library.v_protect(addr, length, call.prot))
        return int(self._library.v_fault(addr))

    def layout(self) -> Layout:
        """(start, end, prot, file from 1 on, its offset in pages) of each VMA."""
        count = self._library.v_layout(ctypes.c_void_p(self._room.ctypes.data))
        return [tuple(row) for row in self._room[: 5 * count].reshape(-1, 5).tolist()]

    def nodes(self) -> Nodes:
        """Its maple tree, the VMAs numbered in order."""
        return numbered(self._maple.nodes(self._library.v_tree()))


class ModelVmas(Space):
    """An address space of the model's, whose index has no memory for a store while ``fail_prealloc`` is true. The
    strategy must fill index_prepare."""

    def __init__(self, strategy: Strategy, p: Parameters) -> None:
        self.fail_prealloc = False
        prepare = strategy.binding["index_prepare"]
        runner = InterpretedRunner(strategy, replace={prepare: lambda mm, start, end: int(self.fail_prealloc)})
        super().__init__(Machine(runner, _SMALL, p, strategy.slabs))
        self.set_file(CLOSING - 1, ENDLESS, closes=True)


def _attempt(side: Oracle | ModelVmas, call: Call) -> int:
    """:func:`~benchframe.judge.trees.perform`, also without memory for the index."""
    side.fail_prealloc = call.fail_prealloc
    return perform(side, call)


def _layout(side: Oracle | Space) -> Layout:
    return [
        (start, end, prot, file + 1, offset // PAGE) if file >= 0 else (start, end, prot, 0, 0)
        for start, end, prot, _, offset, file in side.layout()
    ]


def vmas(
    strategy: Strategy, library: ctypes.CDLL, version: tuple[int, ...], ops: int, seed: int
) -> Iterator[list[Row]]:
    """Results and layouts of mm/vma.c, the oracle and the model after each random call; and the maple trees that the
    calls of mm/vma.c and of the model, with ``strategy``, have left. Yields after each program."""
    kernel = ".".join(map(str, version))
    rules = Rules(anon_vma_merge_both_ways=version >= (6, 16))
    limits = Limits()

    def oracle_side() -> Oracle:
        side = Oracle(rules, limits)
        side.set_file(CLOSING - 1, ENDLESS, closes=True)
        return side

    def model_side() -> ModelVmas:
        return ModelVmas(strategy, parameters(rules, limits))

    sides: Mapping[str, Callable[[], Oracle | ModelVmas]] = {
        "oracle": oracle_side,
        f"model ({strategy.name})": model_side,
    }
    rows = {name: Row(f"{name}: merges and splits of mm/vma.c", kernel, "layouts") for name in sides}
    trees = Row(f"{strategy.name}: the trees that calls of mm/vma.c leave", kernel, "trees")

    def nodes(side: Space) -> Nodes:
        arrays = side.machine.arrays
        return numbered(model_nodes(arrays["private0_base"]["word"], int(side.machine.mm(0)["mm_rb"])))

    def both(program: Sequence[Call]) -> tuple[Nodes, Nodes]:
        side, theirs = model_side(), KernelVmas(library)
        for call in program:
            theirs.perform(call)
            _attempt(side, call)
        return theirs.nodes(), nodes(side)

    def first_tree(program: list[Call]) -> Callable[[], str]:
        def text() -> str:
            small = shrunk(program, lambda some: len(set(map(str, both(some)))) == 2)
            lines = [f"{len(program)} calls shrunk to {len(small)}:", *map(str, small)]
            return "\n".join([*lines, maple_difference(None, [], *both(small))])

        return text

    def last(name: str, program: Sequence[Call]) -> tuple[int, Layout, int, Layout]:
        side, theirs = sides[name](), KernelVmas(library)
        said = [(theirs.perform(call), _attempt(side, call)) for call in program][-1]
        return said[0], theirs.layout(), said[1], _layout(side)

    def differs(name: str, program: Sequence[Call]) -> bool:
        result, layout, own_result, own = last(name, program)
        return (result < 0) != (own_result < 0) or layout != own

    def first(name: str, program: list[Call]) -> Callable[[], str]:
        def text() -> str:
            small = shrunk(program, lambda some: differs(name, some))
            result, layout, own_result, own = last(name, small)
            lines = [f"{len(program)} calls shrunk to {len(small)}:", *map(str, small)]
            lines += [f"  kernel    {result:>4}  {layout_text(layout)}"]
            lines += [f"  {name:<8}  {own_result:>4}  {layout_text(own)}"]
            return "\n".join(lines)

        return text

    for done in range(0, ops, LENGTH):
        theirs, model = KernelVmas(library), model_side()
        own: dict[str, Oracle | ModelVmas] = dict(zip(sides, (oracle_side(), model), strict=True))
        program: list[Call] = []
        for call in calls(f"{seed}/vma/{done}", files=True):
            program.append(call)
            result, layout = theirs.perform(call), theirs.layout()
            for name, side in own.items():
                equal = (_attempt(side, call) < 0) == (result < 0) and _layout(side) == layout
                rows[name].count(equal, len(program), first(name, list(program)))
            trees.count(theirs.nodes() == nodes(model), len(program), first_tree(list(program)))
        yield [*rows.values(), trees]


DEFAULT_OPS = 3000
PARTS = ("rbtree", "maple", "traces", "vma")
TRACES = ("python-json", "git-log", "sh-pipeline", "sqlite-index", "container", "postgres-backend")
"""Traces whose stores are compared: few enough to take seconds."""
EQUAL, DIFFERENT = 0, 1


def run_sources_command(
    folders: Sequence[Path],
    known: Registry,
    ops: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    part: str = "all",
    traces: Sequence[str] = TRACES,
) -> int:
    """Compare, print a table, draw the first difference of each row that has one.

    Args:
        folders: kernel source trees, or folders that contain some.
        known: the plugins; rbtree, rbtree_gap, maple and maple_rcu are compared, maple_copy with 7.2's code.
        ops: random calls, and random stores, of each comparison (DEFAULT_OPS).
        minutes: stop when this long has passed, between two programs; instead of ``ops``.
        seed: the random programs depend on it alone.
        part: rbtree, maple, traces, vma, or all.
        traces: workloads of ``known`` whose stores part ``traces`` takes.

    Returns:
        0: nothing differs; 1: something does.

    Raises:
        UsageError: no such part.
        SourcesError: no sources, no compiler, or nothing that these sources have was asked for.
    """
    from rich.console import Console

    if part not in ("all", *PARTS):
        raise UsageError(f"no generator is called {part!r}", hint=did_you_mean(part, PARTS, "choose one of {}, or all"))
    parts = PARTS if part == "all" else (part,)
    console = Console(highlight=False)
    trees = find_trees(folders)
    console.print("sources: " + ", ".join(f"Linux {tree.name} in {tree.path}" for tree in trees), soft_wrap=True)
    end = time.monotonic() + minutes * 60 if minutes else None
    count = ops or (DEFAULT_OPS if minutes is None else 1 << 40)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchframe-sources-") as folder:
        runs = list(_runs(console, known, trees, Path(folder), count, seed, parts, traces))
        for left, run in zip(range(len(runs), 0, -1), runs, strict=True):
            share = (end - time.monotonic()) / left if end is not None else None
            found += _table(console, _until(run, share))
        if not found:
            raise SourcesError(
                f"nothing to compare: {', '.join(parts)}", where=folders[0], hint="give it lib/ and mm/ of Linux 6.12"
            )
        wrong = [row for row in found if row.differ]
        _explain(console, wrong)
    total = sum(row.compared for row in found)
    console.print(f"\n{total:,} comparisons in {len(found)} rows; {len(wrong)} rows with differences", soft_wrap=True)
    return DIFFERENT if wrong else EQUAL


def _runs(
    console: Console,
    known: Registry,
    trees: Sequence[SourceTree],
    folder: Path,
    ops: int,
    seed: int,
    parts: Sequence[str],
    traces: Sequence[str],
) -> Iterator[Iterator[list[Row]]]:
    """The comparisons that were asked for, as far as the trees have the files; what they lack is said."""
    if "rbtree" in parts:
        for tree in _having(console, trees, RBTREE):
            library = build(tree, RBTREE, folder)
            for name in ("rbtree", "rbtree_gap"):
                yield rbtree(known.strategy(name), library, tree.name, ops, seed)
    if "vma" in parts:
        for tree in _having(console, trees, VMA):
            try:
                library = build(tree, VMA, folder)
            except SourcesError as error:  # kernels after 6.12 ask for more than shim.h has
                if len(parts) == 1 or tree.version <= (6, 12):
                    raise
                console.print(f"Linux {tree.name}, mm/vma.c: not compared, {error}", soft_wrap=True, markup=False)
            else:
                yield vmas(known.strategy("maple"), library, tree.version, ops, seed)
    if "maple" in parts or "traces" in parts:
        compared: dict[str, list[KernelMaple]] = {name: [] for name in ("maple", "maple_rcu", "maple_copy")}
        for tree in _having(console, trees, MAPLE):
            copies = "struct maple_copy" in read_source(tree.path / MAPLE.files[1])
            for name, kernels in compared.items():
                if (name == "maple_copy") == copies:
                    kernels.append(KernelMaple(build(tree, MAPLE, folder), tree.name))
        for name, kernels in compared.items():
            if not kernels:
                continue
            strategy = known.strategy(name)
            if "maple" in parts:
                yield maple_stores(strategy, kernels, ops, seed)
                yield maple_calls(strategy, kernels, ops, seed)
                yield maple_forks(strategy, kernels, ops, seed)
            if "traces" in parts and name != "maple_rcu":
                for trace in traces:
                    yield iter([maple_trace(strategy, kernels, trace, known.spec(trace).trace(0))])


def _explain(console: Console, wrong: Sequence[Row]) -> None:
    """Draw a difference of each comparison once: what two kernels, or both maple trees, have in common is not repeated,
    nor a history, where single stores differ already."""
    drawn: set[str] = set()
    single = {row.what.partition(",")[2].partition(":")[0] for row in wrong if "one store" in row.what}
    for row in wrong:
        about = row.what.partition(",")[2] or row.what
        if about in drawn or ("history" in about and about.partition(":")[0] in single):
            continue
        drawn.add(about)
        assert row.draw is not None
        console.print(f"\n{row.what}, Linux {row.kernel}: one of {row.differ:,} differences", markup=False)
        console.print(row.draw(), markup=False, soft_wrap=True)


def _having(console: Console, trees: Sequence[SourceTree], driver: Driver) -> list[SourceTree]:
    """The trees with the files of ``driver``; the others are named."""
    having = []
    for tree in trees:
        lacking = tree.lacks(driver.files)
        if lacking:
            console.print(f"Linux {tree.name} has no {lacking[0]}: not compared", soft_wrap=True, markup=False)
        else:
            having.append(tree)
    return having


def _until(run: Iterator[list[Row]], share: float | None) -> list[Row]:
    """The rows after the last program, or after the first one that ends when ``share`` seconds have passed."""
    end = time.monotonic() + share if share is not None else None
    last: list[Row] = []
    for rows in run:
        last = rows
        if end is not None and time.monotonic() > end:
            break
    return last


def _table(console: Console, rows: Sequence[Row]) -> Sequence[Row]:
    """Print rows as they are done."""
    for row in rows:
        share = 100 * (row.compared - row.differ) / max(1, row.compared)
        equal = "all equal" if not row.differ else f"{row.differ:,} differ ({min(share, 99.99):.2f} % equal)"
        console.print(f"{row.what:<62} {row.kernel:<5} {row.compared:>9,} {row.unit:<9} {equal}", soft_wrap=True)
    return rows
