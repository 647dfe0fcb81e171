"""A made-up run for the tests of reports: strategies on two workloads and a sweep, with all that a cell can hold."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from benchframe.engine.latency import histogram
from benchframe.report.run import Run
from benchframe.results.cell import CellState, LatencyRow, Process
from benchframe.results.folder import Cell
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry
from benchframe.results.sources import Source

STRATEGIES = ("rbtree", "pmdcache", "maple")
WORKLOADS = ("python-json", "zipf:vmas=1000,alpha=1.2", "uniform:vmas=6", "uniform:vmas=500", "uniform:vmas=65530")
SOURCE = '"""A strategy: 1 < 2 & 3 > 2."""\n\n\ndef find(mm, task, addr):\n    return mm.mmap\n'


def made_up(
    strategies: Sequence[str] = STRATEGIES,
    workloads: Sequence[str] = WORKLOADS,
    *,
    name: str = "20260101-000000-made-up",
    failed: Sequence[str] = (),
    text: str = "nothing",
    rounds: int = 6,
) -> Run:
    """A run with these names; strategies in ``failed`` answered wrongly; ``text`` stands wherever free text may."""
    rng = np.random.default_rng(1)
    cells = []
    for label in workloads:
        entry = WorkloadEntry(label, label, "", 0, "ab" * 32, 1100, 1000, strategies[0])
        size = int(label.partition("vmas=")[2].partition(",")[0] or 40) if "vmas=" in label else 40
        for place, strategy in enumerate(strategies):
            key = CellEntry(f"{len(cells):032x}", strategy, label, "cd" * 32)
            if strategy in failed:
                state = CellState("wrong", f"find_vma(0x1000) gave NIL: {text}", event=17, round=0)
                cells.append(Cell(key, entry, state, {}))
                continue
            base = 10 * math.log2(size + 2) / (place + 1)
            figures = {}
            for figure, factor in {"lookup": 1, "fault": 4, "mapping": 50, "replay": 5}.items():
                means = base * factor * rng.normal(1, 0.01, rounds)
                figures[figure] = [
                    Process(r, (m, m), (m,), 8, 100, {"load_avg_1min": 0.5}) for r, m in enumerate(means)
                ]
            cells.append(Cell(key, entry, _state(rng, base, place, text), figures))
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    sources = {strategy: Source("made.up", text, SOURCE + f"# {text}\n", digest) for strategy in strategies}
    manifest = Manifest(
        created="2026-01-01T00:00:00+00:00",
        command=("benchframe", "run", "--strategy", ",".join(strategies), text),
        seed=7,
        options=Options("default", rounds, 6, 0, 0.25, 300.0),
        workloads=tuple(dict.fromkeys(cell.workload for cell in cells)),
        cells=tuple(cell.entry for cell in cells),
        versions={"benchframe": "0.1.0"},
        host={"cpu": text, "cpus": "2"},
        metadata={text: text},
        noise=(text,),
        notes=(text,),
        wall=100.0,
        measured=50.0,
    )
    return Run(name, manifest, tuple(cells), sources)


def _state(rng: np.random.Generator, base: float, place: int, text: str) -> CellState:
    ns = np.maximum(rng.lognormal(math.log(base), 0.4, 4000), 1)
    quantiles = np.percentile(ns, (50, 90, 99, 99.9)).tolist()
    row = LatencyRow("lookup", "all", len(ns), *quantiles, float(ns.max()), histogram(ns))
    cost = {"lookup.n": 1000.0, "events": 1000.0, "counted": 1000.0, "bytes.per_vma": 192.0 + 64 * place}
    cost |= {"lookup.lines": 4.0, "lookup.lines.vma": 2.0 + place, "lookup.lines.mm": 1.0, "lookup.loads": 20.0}
    counts = {"lookups": 1000.0, "hits": 400.0 * place, "hit_rate": 0.4 * place, "invalidations": 5.0}
    return CellState(
        "ok", "", counts=counts, latencies=(row,), timer_overhead_ns=7.5, hints={"lookup": (text,)}, cost=cost
    )
