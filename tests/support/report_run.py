"""A made-up run for the tests of reports: strategies on two workloads and a sweep, with all that a cell can hold."""

import hashlib
import json
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from benchframe.engine.session import histogram
from benchframe.report.text import Run
from benchframe.results.folder import Cell, CellState, LatencyRow, Process, RunFolder
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry
from benchframe.results.studies import Bars, Curve, Mark, SavedStudy, Source, write_sources

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
    crews: Sequence[int] = (),
    studies: Sequence[SavedStudy] = (),
) -> Run:
    """A run with these names; strategies in ``failed`` answered wrongly; ``text`` stands wherever free text may.
    Of ``crews``, numbers of real threads, each gets its cells of one more workload."""
    rng = np.random.default_rng(1)
    cells = []
    for label in workloads:
        about = {"summary": text, "nearest": f"javac-hello, at 0.3 standard deviations {text}"}
        entry = WorkloadEntry(label, label, "", 0, "ab" * 32, 1100, 1000, strategies[0], **about)
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
    for threads in crews:
        cells += _crew(rng, strategies, threads, rounds, len(cells), text)
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    sources = {strategy: Source("made.up", text, SOURCE + f"# {text}\n", digest) for strategy in strategies}
    manifest = Manifest(
        created="2026-01-01T00:00:00+00:00",
        command=("benchframe", "run", "--strategy", ",".join(strategies), text),
        seed=7,
        options=Options("default", rounds, 6, 0, 0.25, 300.0),
        workloads=tuple(dict.fromkeys(cell.workload for cell in cells)),
        cells=tuple(cell.entry for cell in cells),
        versions={"benchframe": "0.1.0", "python": "CPython 3.11.7", "numba": "0.68.1"},
        host={"cpu": text, "cpus": "2", "kernel": "Linux 6.1", "hostname": "here"},
        metadata={text: text},
        noise=(text,),
        notes=(text,),
        wall=100.0,
        measured=50.0,
    )
    return Run(name, manifest, tuple(cells), sources, studies=tuple(studies))


def _crew(
    rng: np.random.Generator, strategies: Sequence[str], threads: int, rounds: int, first: int, text: str
) -> list[Cell]:
    """Cells of multi-fault-all-split with real threads: 30 ns a fault and place, faster with more threads."""
    label = f"multi-fault-all-split@{threads}"
    entry = WorkloadEntry(label, "multi-fault-all-split", "", 0, "ab" * 32, 1100, 1000, strategies[0], threads)
    cells = []
    for place, strategy in enumerate(strategies):
        means = 30 / (1 + place * (threads - 1)) * rng.normal(1, 0.01, rounds)
        rates = ",".join([str(1e9 / 30)] * threads)
        metadata = {"benchframe_thread_rates": rates, "benchframe_lock_share": 0.1 * place, "benchframe_slowest": 0.9}
        figures = {"fault": [Process(r, (m,), (m,), 1, 100, metadata) for r, m in enumerate(means)]}
        row = LatencyRow("fault", "all", 9, 30.0, 40.0, 50.0, 60.0, 70.0)
        crew = {"threads": threads, "cores": 2, "ordered": 0, "address_spaces": 1}
        state = CellState("ok", text, latencies=(row,), threads={**crew, "histograms": {"fault": [(30.0, 9)]}})
        cells.append(Cell(CellEntry(f"{first + place:032x}", strategy, label, "cd" * 32), entry, state, figures))
    return cells


def a_study(text: str = "nothing") -> SavedStudy:
    """A study with a table and both kinds of picture; ``text`` stands wherever free text may."""
    marks = (Mark(1.2, 1.1, 1.3, 10.0), Mark(0.8, 0.7, 0.9, 100.0))
    return SavedStudy(
        kind="breakeven",
        title=f"Where maple beats rbtree {text}",
        note=text,
        command=("benchframe", "breakeven", "rbtree", text),
        heads=("over", text),
        right=(False, True),
        rows=(("vmas", "1.20"), (text, "0.80")),
        notes=(text,),
        curves=(Curve(text, f"VMAs {text}", "maple / rbtree", True, marks, (Mark(30.0, 20.0, 40.0),), text),),
        bars=(Bars(text, "ns", (Mark(-1.5, -2.0, -1.0, label=text), Mark(2.0, 2.0, 2.0, label="rest"))),),
        strategies=("rbtree", "maple"),
        hostname="elsewhere",
    )


def _state(rng: np.random.Generator, base: float, place: int, text: str) -> CellState:
    ns = np.maximum(rng.lognormal(math.log(base), 0.4, 4000), 1)
    quantiles = np.percentile(ns, (50, 90, 99, 99.9)).tolist()
    row = LatencyRow("lookup", "all", len(ns), *quantiles, float(ns.max()), histogram(ns))
    cost = {"lookup.n": 1000.0, "events": 1000.0, "counted": 1000.0, "bytes.per_vma": 192.0 + 64 * place}
    cost |= {"lookup.lines": 4.0, "lookup.lines.vma": 2.0 + place, "lookup.lines.mm": 1.0, "lookup.loads": 20.0}
    counts = {"lookups": 1000.0, "hits": 400.0 * place, "hit_rate": 0.4 * place, "invalidations": 5.0}
    if place == 1:
        counts |= {"fallbacks": 30.0, "fallbacks.stack": 10.0, "fallbacks.file": 20.0}
    return CellState(
        "ok", "", counts=counts, latencies=(row,), timer_overhead_ns=7.5, hints={"lookup": (text,)}, cost=cost
    )


EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Elements with their attributes, and the text of the page without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data


def on_disk(path: Path, run: Run) -> RunFolder:
    """The made-up run as a folder."""
    folder = RunFolder.create(path, run.manifest)
    write_sources(path, run.sources)
    for cell in run.cells:
        cell.state.write(folder.state_path(cell.entry))
        runs = {
            name: [
                {"metadata": {"benchframe_round": p.round, **p.metadata}, "values": [v * 1e-9 for v in p.values]}
                for p in processes
            ]
            for name, processes in cell.figures.items()
        }
        benches = [{"metadata": {"name": name, "inner_loops": 100}, "runs": found} for name, found in runs.items()]
        folder.suite_path(cell.entry).write_text(json.dumps({"version": "1.0", "benchmarks": benches}))
    return folder
