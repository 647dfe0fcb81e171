"""``benchframe cost`` and ``fork``: what lookups, faults, mapping calls, fork, exec and exit touch and cost."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, keep_study, loaded, plugin_files, run_folder, split, strategy_names
from benchframe.errors import FAILED, UsageError

if TYPE_CHECKING:
    from benchframe.engine.caches import Caches
    from benchframe.engine.cost.hierarchy import CacheSizes
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace


LOOKED_AT = 2000
"""Events of a stream, at most, that a plugin's strategy is replayed on by the interpreter."""


def wild_access(known: "Registry", strategy: "Strategy", stream: "Trace") -> str:
    """The first access through NULL or outside a slab though every answer is right: compiled code reads zeros there.
    Empty for right code, and for benchframe's own strategies, which `check` has seen. A freed record that is still read
    has costs all the same: `check` finds it."""
    from benchframe.strategy import PROJECT
    from benchframe.study.diagnosis import first_failure, part

    if known.origins["strategy", strategy.name].distribution == PROJECT:
        return ""
    failure = first_failure(strategy, part(stream, range(min(len(stream), LOOKED_AT))))
    return failure.text if failure and failure.kind in ("NULL dereference", "wild reference") else ""


def cache_states(text: str, name: str) -> "tuple[list[Caches], CacheSizes]":
    """The states that ``--caches`` names, on the caches of the machine ``name``. Raises UsageError and
    SimulateError."""
    from benchframe.engine.caches import Cache, parse
    from benchframe.engine.cost.hierarchy import CacheSizes
    from benchframe.simulator.machines import MEMORY_WAYS, WAYS, load_machine

    header = load_machine(name).header()
    sets = header["l1_sets"], header["l2_sets"], header["llc_sets"]
    ways = (WAYS, WAYS, MEMORY_WAYS)
    bytes_ = [one * way * 64 for one, way in zip(sets, ways, strict=True)]
    there = [Cache(number, size or 1 << 40, 1) for number, size in enumerate(bytes_, 1)]
    return parse(text, caches=there), CacheSizes(name, sets, ways)


@guarded
def cost(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", metavar="NAME,...", help="Names; default: all.", autocompletion=options.strategies
        ),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="NAME[:KEY=VALUE,...],...",
            help="Names, with parameters.",
            autocompletion=options.workloads,
        ),
    ] = None,
    trace: Annotated[
        list[Path] | None, typer.Option("--trace", "-t", metavar="FILE", help="A recorded trace file.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    fallbacks: Annotated[
        bool, typer.Option("--fallbacks", help="Count instead how often the fast path was given up, by reason.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Count every event, however long it takes.")] = False,
    records: Annotated[
        int | None,
        typer.Option(
            min=1000, metavar="N", help="Number of records from which events are sampled (default 4 million)."
        ),
    ] = None,
    caches: Annotated[
        str | None,
        typer.Option(
            metavar="STATE,...",
            help="Also count misses of L1, L2 and the last level: warm, l2, llc, memory, program[=BYTES].",
        ),
    ] = None,
    machine: Annotated[
        str, typer.Option("--machine", metavar="NAME", help="The machine whose caches --caches means (see simulate).")
    ] = "milan-2s",
    stream_seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of synthetic streams.")] = 0,
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex; csv and json have every key."
        ),
    ] = "text",
) -> int:
    """Count loads, stores, atomics, branches and 64-byte lines per lookup, fault and mapping call.

    With --caches, the accesses also go through the caches of a named machine, in one or several states, and a second
    table says how many miss each level, by structure (docs/cost.md).

    Answers are checked first. The figures are the same on every run and machine; docs/cost.md says what each counts.
    Exit codes: 0, 1 (a strategy answers wrongly), 2 (bad input or usage).

    \b
    Examples:
      benchframe cost --strategy rbtree,pmdcache --workload zipf
      benchframe cost -s maple -w python-json,mmap-churn:vmas=100 --exact
      benchframe cost -s rbtree,maple -w gcc-project --caches warm,program,memory
      benchframe cost -s rbtree -w zipf --format csv > cost.csv
      benchframe cost -s linux-6.4,linux-6.15 -w java-version --fallbacks
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.cost import count_cost
    from benchframe.engine.job import COST_RECORDS
    from benchframe.engine.session import Session
    from benchframe.engine.session import fallbacks as fell_back
    from benchframe.report.details import cost_table, fallback_table, misses_table
    from benchframe.workload import trace_workload

    check_form(form)
    if fallbacks and caches is not None:
        raise UsageError("--fallbacks and --caches exclude each other: one counts reasons, the other misses")
    if form == "mail":
        raise UsageError("the cost table has no mail format; use --format text")
    known = loaded(plugin_files(plugin), no_plugin, plugin)
    strategies = [known.strategy(name) for name in strategy_names(strategy, known)]
    specs = [*(known.spec(name) for name in split(workload)), *(trace_workload(path).spec() for path in trace or ())]
    if not specs:
        raise UsageError("name a workload with --workload, or a recorded trace with --trace")
    states, sizes = cache_states(caches, machine) if caches is not None else ([], None)
    compile_strategies(strategies)
    rows, misses, wrong = [], [], []
    by_reason: list[tuple[str, str, Mapping[str, float]]] = []
    for spec in specs:
        stream = spec.trace(stream_seed)
        for one in strategies:
            session = Session(one, stream)
            verdict = session.verify()
            if not verdict.ok:
                wrong.append(f"{one.name} on {spec.label} is wrong: {verdict.what}")
                continue
            if wild := wild_access(known, one, stream):
                wrong.append(f"{one.name} on {spec.label} is wrong: {wild}")
                continue
            if fallbacks:
                reasons = {f"fallbacks.{name}": count for name, count in fell_back(session).items()}
                by_reason.append((spec.label, one.name, {**session.counts(), **reasons}))
                continue
            budget = 0 if exact else records or COST_RECORDS
            found = count_cost(one, stream, budget, caches=states, sizes=sizes)
            rows.append((spec.label, one.name, found.numbers))
            misses += [(spec.label, one.name, state, numbers) for state, numbers in found.misses]
    if sizes is None or form not in ("csv", "json"):
        counted = fallback_table(by_reason) if fallbacks else cost_table(rows)
        typer.echo(shown(counted, form), nl=sizes is not None)
    if sizes is not None:
        typer.echo(shown(misses_table(misses, sizes), form), nl=False)
    for line in wrong:
        typer.echo(f"benchframe: {line}", err=True)
    return fail(f"{len(wrong)} cells could not be counted", FAILED) if wrong else 0


DEFAULT = ("linux-6.1", "linux-6.15")
"""A maple tree and the same with a lock per VMA, beside the red-black tree."""


@guarded
def fork(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME,...",
            help="Names; default: linux-6.1 and linux-6.15.",
            autocompletion=options.strategies,
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(metavar="NAME", help="Compare with this strategy.", autocompletion=options.strategies)
    ] = "rbtree",
    counted: Annotated[
        bool, typer.Option("--counted", help="Count loads, stores, atomics and lines per VMA; no time is measured.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=3, max=10_000, metavar="N", help="Number of processes; each measures every strategy.")
    ] = 6,
    plugin: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Load a plugin from this file.")] = None,
    no_plugin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Leave a plugin out.")] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Store the result with this run, for its report.", autocompletion=options.runs
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex.")
    ] = "text",
) -> None:
    """Measure what fork, exec and exit cost in address spaces of 50 and 1,000 VMAs, and what each VMA adds.

    These calls walk the whole address space and build or free the index, so they show what its nodes and locks cost to
    make. Times are paired by round, with verdicts (a minute); --counted gives figures that are the same everywhere.

    Exit codes: 0, 1 (a measuring process failed, a wrong answer), 2 (bad input or usage), 3 (disk).

    \b
    Examples:
      benchframe fork
      benchframe fork -s maple,per_vma_refcnt --rounds 20
      benchframe fork -s rbtree,maple --counted --format csv
      benchframe fork -s maple --save last
    """
    from benchframe.cli.options import shown
    from benchframe.cli.report import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.job import spare_cpu
    from benchframe.study.sweeps import OPERATIONS, count_calls, count_table, measure_calls, saved_fork, walk_table

    check_form(form)
    if form == "mail":
        raise UsageError("fork has no mail format; use --format text")
    kept = run_folder(save)
    files = plugin_files(plugin)
    known = loaded(files, no_plugin, plugin)
    names = strategy_names(strategy, known) if strategy else list(DEFAULT)
    names = list(dict.fromkeys([baseline, *names]))
    strategies = {name: known.strategy(name) for name in names}
    compile_strategies(
        list(strategies.values()), lambda name, share: typer.echo(f"benchframe: compiled {name}", err=True)
    )
    if counted:
        table = count_table({(name, op): count_calls(strategies[name], op) for name in names for op in OPERATIONS})
    else:
        cpu = spare_cpu()
        walks = measure_calls(
            known,
            names,
            baseline,
            rounds,
            lambda text: typer.echo(f"benchframe: {text}", err=True),
            cpu=-1 if cpu is None else cpu,
            plugins=[str(path) for path in files],
            blocked=split(no_plugin),
        )
        table = walk_table(walks, baseline)
    typer.echo(shown(table, form), nl=False)
    keep_study(kept, saved_fork(names, table, ["benchframe", *sys.argv[1:]]))
