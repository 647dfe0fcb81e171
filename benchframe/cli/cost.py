"""``benchframe cost``: count what lookups, faults and mapping calls touch; no time is measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import fail, guarded, loaded, plugin_files, split, strategy_names
from benchframe.errors import FAILED, UsageError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.strategy import Strategy
    from benchframe.trace.trace import Trace

LOOKED_AT = 2000
"""Events of a stream, at most, that a plugin's strategy is replayed on by the interpreter."""


def wild_access(known: "Registry", strategy: "Strategy", stream: "Trace") -> str:
    """The first access through NULL or outside a slab though every answer is right: compiled code reads zeros there.
    Empty for right code, and for benchframe's own strategies, which `check` has seen. A freed record that is still read
    has costs all the same: `check` finds it."""
    from benchframe.hookspecs import PROJECT
    from benchframe.study.interpreted import first_failure, part

    if known.origins["strategy", strategy.name].distribution == PROJECT:
        return ""
    failure = first_failure(strategy, part(stream, range(min(len(stream), LOOKED_AT))))
    return failure.text if failure and failure.kind in ("NULL dereference", "wild reference") else ""


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
    stream_seed: Annotated[int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of synthetic streams.")] = 0,
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORM", help="text, markdown, csv, json or latex; csv and json have every key."
        ),
    ] = "text",
) -> int:
    """Count loads, stores, atomics, branches and 64-byte lines per lookup, fault and mapping call.

    Answers are checked first. The figures are the same on every run and machine; docs/cost.md says what each counts.
    Exit codes: 0, 1 (a strategy answers wrongly), 2 (bad input or usage).

    \b
    Examples:
      benchframe cost --strategy rbtree,pmdcache --workload zipf
      benchframe cost -s maple -w python-json,mmap-churn:vmas=100 --exact
      benchframe cost -s rbtree -w zipf --format csv > cost.csv
      benchframe cost -s linux-6.4,linux-6.15 -w java-version --fallbacks
    """
    from benchframe.cli.table import check_form
    from benchframe.engine.compile import compile_strategies
    from benchframe.engine.cost import count_cost
    from benchframe.engine.job import COST_RECORDS
    from benchframe.engine.session import Session
    from benchframe.report.table import cost_table, render
    from benchframe.study.fallbacks import fallback_table
    from benchframe.study.fallbacks import fallbacks as fell_back
    from benchframe.workload import trace_workload

    check_form(form)
    if form == "mail":
        raise UsageError("the cost table has no mail format; use --format text")
    known = loaded(plugin_files(plugin), no_plugin, plugin)
    strategies = [known.strategy(name) for name in strategy_names(strategy, known)]
    specs = [*(known.spec(name) for name in split(workload)), *(trace_workload(path).spec() for path in trace or ())]
    if not specs:
        raise UsageError("name a workload with --workload, or a recorded trace with --trace")
    compile_strategies(strategies)
    rows, wrong, by_reason = [], [], {}
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
                by_reason[spec.label, one.name] = fell_back(one, stream), session.counts()["lookups"]
                continue
            budget = 0 if exact else records or COST_RECORDS
            rows.append((spec.label, one.name, count_cost(one, stream, budget).numbers))
    typer.echo(render(fallback_table(by_reason) if fallbacks else cost_table(rows), form), nl=False)
    for line in wrong:
        typer.echo(f"benchframe: {line}", err=True)
    return fail(f"{len(wrong)} cells could not be counted", FAILED) if wrong else 0
