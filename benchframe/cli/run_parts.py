"""What `benchframe run` measures, made of what it is told: settings, streams of events, a folder, new or resumed."""

import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from benchframe.cli.common import seconds
from benchframe.errors import UsageError

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.results.folder import RunFolder
    from benchframe.results.manifest import Options
    from benchframe.results.plan import Stream
    from benchframe.workload import WorkloadSpec

MAX_THREADS = 256
"""More threads than that are a mistake."""
MAX_SEED = 2**62
TIMEOUT = 300.0
"""Seconds that one worker process may take, if --timeout does not say otherwise."""


def settings(
    quick: bool, rigorous: bool, rounds: int | None, budget: str | None, timeout: str | None, pin: bool
) -> "Options":
    """How much is measured, and where. Raises UsageError for options that exclude each other."""
    from benchframe.engine.rounds import DEPTHS, spare_cpu
    from benchframe.results.manifest import Options

    if quick and rigorous:
        raise UsageError("--quick and --rigorous exclude each other")
    mode = "quick" if quick else "rigorous" if rigorous else "default"
    depth = DEPTHS[mode]
    cpu = spare_cpu() if pin else None
    return Options(
        mode=mode,
        rounds=rounds or depth.rounds,
        values=depth.values,
        warmups=depth.warmups,
        min_time=depth.min_time,
        timeout=seconds(timeout) if timeout else TIMEOUT,
        budget=seconds(budget) if budget else 0.0,
        cpu=-1 if cpu is None else cpu,
    )


def adaptive(options: "Options", rounds: int | None, decide: str) -> "Options":
    """``options`` of a run that goes on until its comparisons are decided."""
    from benchframe.results.adaptive import MAX_ROUNDS, MIN_ROUNDS
    from benchframe.results.figures import FIGURES

    figures = tuple(dict.fromkeys(name.strip() for name in decide.split(",") if name.strip()))
    wrong = [name for name in figures if name not in FIGURES]
    if wrong or not figures:
        raise UsageError(f"--decide takes {', '.join(FIGURES)}, not {', '.join(wrong) or 'nothing'}")
    if rounds is not None and rounds < MIN_ROUNDS:
        raise UsageError(f"--until-decided needs at least {MIN_ROUNDS} rounds, not {rounds}")
    return replace(options, until_decided=True, decide=figures, rounds=rounds or MAX_ROUNDS)


def thread_counts(text: str | None) -> list[int]:
    """``0,1,2,4`` as numbers; 0, and [0] if there is no such option, is the usual replay, without threads."""
    if text is None:
        return [0]
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(part.isdecimal() and int(part) <= MAX_THREADS for part in numbers):
        raise UsageError(f"--threads {text}: give numbers up to {MAX_THREADS}, with commas: --threads 1,2,4")
    return list(dict.fromkeys(int(part) for part in numbers))


def make_streams(
    known: "Registry",
    names: Sequence[str],
    traces: Sequence[Path],
    seed: int,
    baseline: str | None,
    threads: Sequence[int],
) -> "list[Stream]":
    """Make every workload's events, for each number of threads; names are looked up before anything is made."""
    from benchframe.results.plan import Stream, make_stream
    from benchframe.workload import trace_workload

    if not names and not traces:
        names = [name for name, workload in known.workloads.items() if "default" in workload.tags]
        if not names:
            raise UsageError("no workload is tagged default; name one with --workload or --trace")
    specs: list[tuple[WorkloadSpec, Path | None]] = [(known.spec(name), None) for name in names]
    specs += [(trace_workload(path).spec(), path) for path in traces]
    streams: list[Stream] = []
    for (spec, path), crew in product(specs, threads):
        if crew and (reason := _no_crew(spec, crew)):
            if 0 not in threads:
                raise UsageError(f"{reason}, or --threads 0,{crew} to play it without them")
            typer.echo(f"benchframe: {reason}: played without threads only", err=True)
            continue
        base = f"{spec.label}@{crew}" if crew else spec.label
        label, number = base, 1
        while any(stream.entry.label == label for stream in streams):
            number += 1
            label = f"{base}#{number}"
        stream = make_stream(spec, seed, label=label, path=path, threads=crew)
        if not stream.entry.timed:
            raise UsageError(f"workload {label} has no event after its setup: there is nothing to time")
        known.strategy(baseline or stream.entry.baseline)
        streams.append(Stream(replace(stream.entry, baseline=baseline or stream.entry.baseline), stream.trace))
    return streams


def _no_crew(spec: "WorkloadSpec", crew: int) -> str:
    """Why ``crew`` real threads cannot play ``spec``; "" if they can."""
    if spec.workload.make_threads is not None:
        return ""
    if "trace" not in spec.workload.tags:
        return f"workload {spec.label} has no form for threads (`benchframe list workloads` marks those that have)"
    from benchframe.engine.program import recorded_threads

    there = recorded_threads(spec.trace())
    if there >= crew:
        return ""
    return f"{spec.label} has {there} recorded thread{'s' * (there > 1)}, not {crew}; they can be put together only"


def new_run(
    known: "Registry",
    asked: list[str],
    streams: "list[Stream]",
    options: "Options",
    seed: str | None,
    output: Path,
    plugins: Sequence[Path],
    blocked: Sequence[str],
    skip: Sequence[str],
) -> "RunFolder":
    """Plan the cells and make a folder for them, named after the time and the strategies."""
    from benchframe.files import slug
    from benchframe.results.folder import RunFolder
    from benchframe.results.plan import plan, without

    names = dict.fromkeys([*asked, *(stream.entry.baseline for stream in streams)])
    strategies = {name: known.strategy(name) for name in names}
    manifest = plan(
        asked,
        strategies,
        streams,
        options,
        seed=_seed(seed),
        command=["benchframe", *sys.argv[1:]],
        plugins=[str(path.resolve()) for path in plugins],
        blocked=blocked,
        notes=[str(problem) for problem in known.problems],
        metadata=known.metadata(),
    )
    manifest = without(manifest, skip)
    labels = [stream.entry.label for stream in streams]
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = f"{stamp}-{slug('-'.join(asked + labels if len(labels) < 3 else asked), 40, otherwise='run')}"
    path, number = output / base, 1
    while path.exists():
        number += 1
        path = output / f"{base}-{number}"
    return RunFolder.create(path, manifest)


def resumed_run(
    known: "Registry", name: str, root: Path, rounds: int | None, plugins: Sequence[Path], retry: bool
) -> "tuple[RunFolder, list[Stream]]":
    """Open a run and make its streams again. Plugin files are run only if they are named again: a results folder
    may come from anywhere, and must not decide what code is executed."""
    from benchframe.results.folder import RunFolder, find_run
    from benchframe.results.plan import Stream, check_same_place, make_stream, renew
    from benchframe.workload import trace_workload

    folder = RunFolder.open(find_run(name, root))
    manifest = folder.manifest
    given = {str(path.resolve()) for path in plugins}
    missing = [path for path in manifest.plugins if path not in given]
    if missing:
        again = " ".join(f"--plugin {shlex.quote(path)}" for path in missing)
        raise UsageError(f"{folder.path} was begun with a plugin file; if you trust it, add {again}")
    check_same_place(folder)
    streams = []
    for entry in manifest.workloads:
        path = Path(entry.path) if entry.path else None
        spec = trace_workload(path).spec() if path else known.spec(entry.spec)
        stream = make_stream(spec, entry.seed, label=entry.label, path=path, threads=entry.threads)
        streams.append(Stream(replace(stream.entry, baseline=entry.baseline), stream.trace))
    strategies = {cell.strategy: known.strategy(cell.strategy) for cell in manifest.cells}
    for what in renew(folder, strategies, streams, max(rounds or 0, manifest.options.rounds)):
        typer.echo(f"benchframe: {what} was edited since: it is measured anew", err=True)
    if retry:
        for cell in folder.cells():
            if cell.state.state in ("crashed", "timed_out"):
                folder.forget(cell.entry)
    return folder, streams


def _seed(text: str | None) -> int:
    """The run's seed from ``--seed``."""
    if text == "random":
        return secrets.randbits(32)
    if text is not None and not (text.isdecimal() and len(text) < 20 and int(text) <= MAX_SEED):
        raise UsageError(f"--seed {text}: give a number from 0 to {MAX_SEED}, or random")
    return int(text or 0)
