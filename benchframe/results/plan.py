"""From what the user named to cells with content hashes: what is to be run, before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchframe.errors import ResultsError
from benchframe.results.cell import cell_key
from benchframe.results.environment import differences, host, noise, versions
from benchframe.results.folder import RunFolder
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry

if TYPE_CHECKING:
    from benchframe.strategy import Strategy
    from benchframe.trace.format import Trace
    from benchframe.workload import WorkloadSpec


@dataclass(frozen=True)
class Stream:
    """One workload of a run, made: its manifest entry and its events."""

    entry: WorkloadEntry
    trace: Trace


def make_stream(
    spec: WorkloadSpec, seed: int, *, label: str = "", path: Path | None = None, threads: int = 0
) -> Stream:
    """Make the events of ``spec``; ``path`` is the trace file that it stands for, if it does. ``threads`` real threads
    will play it; 0: one replay.

    Raises what the workload's maker raises (WorkloadError, TraceError).
    """
    trace = spec.trace(seed, threads)
    entry = WorkloadEntry(
        label=label or spec.label,
        spec="" if path else spec.label,
        path=str(path.resolve()) if path else "",
        seed=seed,
        digest=trace.digest,
        events=len(trace),
        timed=len(trace) - trace.setup,
        baseline=spec.workload.baseline,
        threads=threads,
        summary=spec.workload.summary,
    )
    return Stream(entry, trace)


def plan(
    asked: Sequence[str],
    strategies: Mapping[str, Strategy],
    streams: Sequence[Stream],
    options: Options,
    *,
    seed: int,
    command: Sequence[str],
    plugins: Sequence[str] = (),
    blocked: Sequence[str] = (),
    notes: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a new run: each workload's baseline first, then the strategies ``asked`` for, in that order.

    ``strategies`` holds, by name, all that are asked for and every baseline that ``streams`` name.
    """
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = Manifest(
        created=made,
        command=tuple(command),
        seed=seed,
        options=options,
        workloads=tuple(stream.entry for stream in streams),
        cells=(),
        versions=_versions(),
        host=host(),
        metadata=dict(metadata or {}),
        plugins=tuple(plugins),
        blocked=tuple(blocked),
        noise=tuple(noise()),
        notes=tuple(notes),
    )
    pairs = [(name, stream.entry.label) for stream in streams for name in cells_of(asked, stream.entry.baseline)]
    return with_cells(manifest, pairs, strategies)


def cells_of(asked: Sequence[str], baseline: str) -> list[str]:
    """The strategies that run on a workload: its baseline first, then what was asked for.

    >>> cells_of(["pmdcache", "rbtree"], "rbtree")
    ['rbtree', 'pmdcache']
    """
    return [baseline, *(name for name in asked if name != baseline)]


def with_cells(manifest: Manifest, pairs: Sequence[tuple[str, str]], strategies: Mapping[str, Strategy]) -> Manifest:
    """``manifest`` with the cells (strategy, workload label) of ``pairs``, each under its content hash."""
    from benchframe.engine.content import strategy_digest

    digests = {name: strategy_digest(strategies[name]) for name in dict.fromkeys(name for name, _ in pairs)}
    cells = []
    for name, label in pairs:
        key = cell_key(_content(manifest, name, digests[name], manifest.workload(label)))
        cells.append(CellEntry(key, name, label, digests[name]))
    return replace(manifest, cells=tuple(cells))


def without(manifest: Manifest, patterns: Sequence[str]) -> Manifest:
    """``manifest`` without the cells that a pattern ``STRATEGY@WORKLOAD`` names (``*`` and ``?`` as in file names).

    A baseline's cell stays as long as another of its workload does: that one is compared with it. A workload without
    cells goes too. Raises ResultsError for a pattern that names no cell, and where none would be left.
    """
    named = {pattern: _named(manifest, pattern) for pattern in patterns}
    gone = {cell for cells in named.values() for cell in cells}
    needed = {c.workload for c in manifest.cells if c not in gone and not _is_baseline(manifest, c)}
    gone = {c for c in gone if not (_is_baseline(manifest, c) and c.workload in needed)}
    for pattern, cells in named.items():
        if not cells & gone:
            known = ", ".join(entry.label for entry in manifest.workloads[:3])
            why = "only baselines of others are called so" if cells else "no cell of this run is called so"
            raise ResultsError(f"--skip {pattern}", why, f"write STRATEGY@WORKLOAD; workloads: {known}")
    kept = tuple(cell for cell in manifest.cells if cell not in gone)
    if not kept:
        raise ResultsError("--skip", "no cell of this run is left", "skip fewer")
    labels = {cell.workload for cell in kept}
    return replace(manifest, cells=kept, workloads=tuple(w for w in manifest.workloads if w.label in labels))


def _named(manifest: Manifest, pattern: str) -> set[CellEntry]:
    """The cells that ``STRATEGY@WORKLOAD`` names."""
    strategy, at, label = pattern.partition("@")
    return {c for c in manifest.cells if at and fnmatchcase(c.strategy, strategy) and fnmatchcase(c.workload, label)}


def _is_baseline(manifest: Manifest, cell: CellEntry) -> bool:
    """Whether others of its workload are compared with this cell."""
    return cell.strategy == manifest.workload(cell.workload).baseline


def _content(manifest: Manifest, strategy: str, digest: str, workload: WorkloadEntry) -> dict[str, Any]:
    """All that a cell's figures depend on. The number of rounds is not among it: rounds can be added later."""
    options = manifest.options
    return {
        "strategy": [strategy, digest],
        "workload": [workload.label, workload.seed, workload.digest],
        "schedule": manifest.seed,
        "options": [options.values, options.warmups, options.min_time, options.cpu],
        "versions": dict(manifest.versions),
        "host": dict(manifest.host),
        **({"threads": workload.threads} if workload.threads else {}),
    }


def _versions() -> dict[str, str]:
    from benchframe.engine.content import model_digest

    return {**versions(), "model": model_digest()[:16]}


def _one_name(versions: Mapping[str, str]) -> dict[str, str]:
    """``versions``, with models that measure the same under one name."""
    from benchframe.engine.content import model_name

    return {**versions, "model": model_name(versions.get("model", "unknown"))}


def check_same_place(folder: RunFolder) -> None:
    """Raise ResultsError if this machine or these versions are not those that began the run."""
    then, now = folder.manifest, (_versions(), host())
    changed = differences(_one_name(then.versions), _one_name(now[0])) + differences(dict(then.host), now[1])
    if changed:
        raise ResultsError(
            folder.path,
            f"it was begun elsewhere ({'; '.join(changed)})",
            "its figures would not be comparable: start a new run",
        )


def renew(folder: RunFolder, strategies: Mapping[str, Strategy], streams: Sequence[Stream], rounds: int) -> list[str]:
    """Bring a run's manifest up to date before it continues: cells whose strategy or stream was edited start anew.

    ``rounds`` may exceed what the run was begun with. Gives ``strategy on workload`` for each cell that was thrown
    away; raises ResultsError.
    """
    old = folder.manifest
    entries = tuple(stream.entry for stream in streams)
    changed = replace(old, workloads=entries, options=replace(old.options, rounds=rounds), finished="")
    new = with_cells(changed, [(cell.strategy, cell.workload) for cell in old.cells], strategies)
    stale = [(a, b) for a, b in zip(old.cells, new.cells, strict=True) if a.key != b.key]
    names = [f"{a.strategy} on {a.workload}" for a, _ in stale]
    if names:
        new = new.with_note(f"edited during the run, so measured anew and later than the rest: {', '.join(names)}")
    folder.save(new)
    for before, _ in stale:
        folder.forget(before)
    return names
