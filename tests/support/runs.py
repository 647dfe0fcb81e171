"""Runs made of given process means, for tests of what reads runs: no process is started."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchframe.files import write_json
from benchframe.results.folder import CellState, RunFolder, cell_key
from benchframe.results.manifest import CellEntry, Manifest, Options, WorkloadEntry

HOST = {"cpu": "Test CPU", "cpus": "2", "kernel": "Linux 6.12", "machine": "x86_64", "hostname": "here"}
VERSIONS = {"python": "CPython 3.11.7", "numba": "0.62.0", "benchframe": "0.1.0", "model": "a" * 16}
OPTIONS = Options(mode="quick", rounds=10, values=3, warmups=0, min_time=0.1, timeout=60)
Cells = Mapping[str, Mapping[str, list[float]]]
"""Strategy -> figure -> process means (ns) by round."""


def noise(level: float, rounds: int, seed: int, sd: float = 0.005) -> list[float]:
    """Process means around ``level``."""
    rng = np.random.default_rng(seed)
    return [float(level * x) for x in np.exp(rng.normal(0, sd, rounds))]


def made(
    path: Path,
    cells: Cells,
    *,
    states: Mapping[str, CellState] | None = None,
    digests: Mapping[str, str] | None = None,
    start: int = 0,
    aslr: str = "Full randomization",
    trace: str = "b" * 64,
    layouts: Sequence[int] = (),
    quiet: Mapping[str, Sequence[tuple[int, int, float]]] | None = None,
    **changes: object,
) -> RunFolder:
    """A run on disk on workload ``toy`` with baseline ``base``. ``start`` is the minute of its first process;
    ``layouts`` are the layout seeds of rounds whose addresses are the seed's, ``quiet`` replays, quiet ones and control
    by strategy and round; ``changes`` replaces members of the manifest."""
    digests = digests or {}
    entries = []
    for name in cells:
        digest = digests.get(name, "c" * 64)
        entries.append(CellEntry(cell_key({"run": str(path), "name": name}), name, "toy", digest))
    manifest = Manifest(
        created="2026-11-23T10:00:00+00:00",
        command=("benchframe", "run"),
        seed=7,
        options=OPTIONS,
        workloads=(WorkloadEntry("toy", "toy", "", 0, trace, 1000, 900, "base"),),
        cells=tuple(entries),
        versions=VERSIONS,
        host=HOST,
    )
    folder = RunFolder.create(path, replace(manifest, **changes))  # type: ignore[arg-type]
    for entry in entries:
        state = (states or {}).get(entry.strategy, CellState(state="ok", message="", loops=4))
        folder.write_state(entry, state)
        if state.state == "ok":
            benchmarks = [
                {
                    "metadata": {"name": figure, "inner_loops": 900},
                    "runs": [
                        _process(round_, value, start, layouts, (quiet or {}).get(entry.strategy, ()))
                        for round_, value in enumerate(means)
                    ],
                }
                for figure, means in cells[entry.strategy].items()
            ]
            shared = {"aslr": aslr, "cpu_config": "governor:performance", "loops": 4, "unit": "second"}
            write_json(folder.suite_path(entry), {"version": "1.0", "metadata": shared, "benchmarks": benchmarks})
    return folder


def _process(
    round_: int, ns: float, start: int, layouts: Sequence[int], quiet: Sequence[tuple[int, int, float]]
) -> dict[str, object]:
    date = f"2026-11-23 {10 + (start + round_) // 60:02}:{(start + round_) % 60:02}:00.000000"
    metadata: dict[str, object] = {"benchframe_round": round_, "benchframe_layout_seed": 1, "date": date}
    if layouts:
        metadata |= {"benchframe_layout_seed": layouts[round_], "benchframe_addresses": "seeded"}
    if quiet:
        names = ("benchframe_replays", "benchframe_quiet", "benchframe_control")
        metadata |= dict(zip(names, quiet[round_], strict=True))
    return {"metadata": metadata, "values": [ns * 1e-9] * 3, "warmups": []}
