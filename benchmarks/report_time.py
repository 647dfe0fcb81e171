"""How long a report takes: a run of STRATEGIES x WORKLOADS made of synthetic values, then each form of its report.

python benchmarks/report_time.py                      # 10 x 12
python benchmarks/report_time.py --strategies 22 --workloads 8 --keep /tmp/run
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchframe.engine.session import histogram
from benchframe.report import FORMS, write_report
from benchframe.results.folder import CellState, LatencyRow, RunFolder
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry
from benchframe.results.studies import Source, write_sources

FACTORS = {"lookup": 1.0, "fault": 3.0, "mapping": 40.0, "replay": 4.0}
SIZES = (6, 50, 500, 5000, 65530)


def synthetic_run(path: Path, strategies: int, workloads: int, rounds: int = 10, values: int = 6) -> RunFolder:
    """A run's folder as ``benchframe run`` leaves it, with made-up values: five of the workloads are a sweep."""
    rng = np.random.default_rng(0)
    labels = [f"uniform:vmas={size}" for size in SIZES] if workloads > len(SIZES) else []
    labels = [f"trace-{i}" for i in range(workloads - len(labels))] + labels
    names = [f"strategy_{i}" for i in range(strategies)]
    entries = [
        WorkloadEntry(label, label, "", 0, f"{i:064x}", 11_000, 10_000, names[0]) for i, label in enumerate(labels)
    ]
    cells = [
        CellEntry(f"{len(labels) * s + w:032x}", names[s], labels[w], f"{s:064x}")
        for w in range(workloads)
        for s in range(strategies)
    ]
    options = Options("default", rounds, values, 0, 0.25, 300.0)
    command = ("benchframe", "run", "--strategy", ",".join(names), "--workload", ",".join(labels))
    manifest = Manifest("2026-01-01T00:00:00+00:00", command, 1, options, tuple(entries), tuple(cells))
    folder = RunFolder.create(path, manifest)
    text = '"""Made up."""\n' + "def find(mm, task, addr):\n    return mm.mmap\n" * 100
    write_sources(path, {name: Source(name, "made up", text, _sha(text)) for name in names})
    for cell in cells:
        size = int(cell.workload.partition("vmas=")[2] or 50)
        base = (4 + 2 * names.index(cell.strategy)) * math.log2(size + 2) / 6 * rng.uniform(0.8, 1.25)
        _write(folder, cell, base, rng, rounds, values)
    return folder


def _sha(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _write(folder: RunFolder, cell: CellEntry, base: float, rng: Any, rounds: int, values: int) -> None:
    benchmarks = []
    for figure, factor in FACTORS.items():
        runs = []
        for number, mean in enumerate(base * factor * rng.normal(1, 0.02, rounds)):
            times = (mean * rng.normal(1, 0.005, values) * 1e-9).tolist()
            metadata = {"benchframe_round": number, "benchframe_layout_seed": number, "load_avg_1min": 1.0, "loops": 8}
            runs.append({"metadata": metadata, "values": times})
        benchmarks.append({"metadata": {"name": figure, "inner_loops": 10_000}, "runs": runs})
    folder.suite_path(cell).write_text(json.dumps({"version": "1.0", "benchmarks": benchmarks}))
    latencies = []
    for figure in ("lookup", "fault", "mapping"):
        ns = np.maximum(rng.lognormal(math.log(base * FACTORS[figure]), 0.5, 10_000), 1)
        for outcome in ("all", "hit", "miss"):
            quantiles = np.percentile(ns, (50, 90, 99, 99.9)).tolist()
            bins = histogram(ns) if outcome == "all" else ()
            latencies.append(LatencyRow(figure, outcome, len(ns), *quantiles, float(ns.max()), bins))
    parts = {part: float(rng.uniform(0.2, 4)) for part in ("vma", "mm", "task", "page", "node")}
    cost = {"lookup.n": 1e4, "events": 1e4, "counted": 1e4, "bytes.per_vma": float(rng.integers(192, 600))}
    for view in ("lookup", "fault", "mapping"):
        cost |= {f"{view}.{key}": float(rng.uniform(0, 40)) for key in ("n", "loads", "stores", "atomics", "branches")}
        cost |= {f"{view}.lines": sum(parts.values()), **{f"{view}.lines.{part}": n for part, n in parts.items()}}
    counts = {"lookups": 1e4, "hits": 8e3, "hit_rate": 0.8, "invalidations": 100.0, "faults": 1e4, "mapping_ops": 1e3}
    CellState("ok", "", counts=counts, latencies=tuple(latencies), cost=cost).write(folder.state_path(cell))


def main() -> None:
    """Print seconds and bytes of each form, and of all in one go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", type=int, default=10)
    parser.add_argument("--workloads", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="keep the run in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        path = given.keep or Path(scratch) / "run"
        folder = synthetic_run(path, given.strategies, given.workloads)
        print(
            f"{given.strategies} strategies x {given.workloads} workloads, made in {time.perf_counter() - begin:.1f} s"
        )
        for forms in (FORMS, *((form,) for form in FORMS)):
            begin = time.perf_counter()
            written = write_report(folder, Path(scratch) / "report", forms)
            spent, size = time.perf_counter() - begin, sum(file.stat().st_size for file in written)
            name = "all, from a cold start" if len(forms) > 1 else forms[0]
            print(f"{name:<24} {spent:6.2f} s {size / 1e6:8.2f} MB in {len(written)} files")


if __name__ == "__main__":
    main()
