"""Commands that make a run, or one of its figures, again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from benchframe.charts import Chart
from benchframe.results.manifest import Manifest


def same_run(manifest: Manifest) -> str:
    """The command of the run itself, with its seed if that was drawn."""
    return shlex.join(manifest.again)


def part_of_run(manifest: Manifest, workloads: Sequence[str], strategies: Sequence[str]) -> str:
    """A command that measures these workloads with these strategies as the run did: mode, rounds, seed, baseline."""
    if manifest.simulated:
        return shlex.join(manifest.again)
    entries = [entry for entry in manifest.workloads if entry.label in workloads]
    options = manifest.options
    command = ["benchframe", "run", "--strategy", ",".join(strategies)]
    specs = list(dict.fromkeys(entry.spec for entry in entries if not entry.path))
    if specs:
        command += ["--workload", ",".join(specs)]
    for entry in entries:
        if entry.path:
            command += ["--trace", entry.path]
    if options.mode in ("quick", "rigorous"):
        command.append(f"--{options.mode}")
    command += ["--rounds", str(options.rounds), "--seed", str(manifest.seed)]
    baselines = {entry.baseline for entry in entries}
    if len(baselines) == 1:
        command += ["--baseline", *baselines]
    seeds = {entry.seed for entry in entries if not entry.path} - {0}
    if len(seeds) == 1:
        command += ["--stream-seed", str(*seeds)]
    for path in manifest.plugins:
        command += ["--plugin", path]
    threads = sorted({entry.threads for entry in entries})
    if any(threads):
        command += ["--threads", ",".join(map(str, threads))]
    there = {(cell.strategy, cell.workload) for cell in manifest.cells}
    for entry in entries:
        for strategy in strategies:
            if (strategy, entry.label) not in there:
                command += ["--skip", f"{strategy}@{entry.label}"]
    return shlex.join(command)


def draw(name: str, chart: Chart) -> str:
    """The command that draws one chart of run ``name`` as files."""
    return shlex.join(["benchframe", "report", name, "--chart", chart.name, "--format", "svg,png,pdf"])


def tabulate(name: str, *options: str) -> str:
    """The command that prints a table of run ``name``."""
    return shlex.join(["benchframe", "table", name, *options])


def frame(name: str) -> str:
    """The command that prints all values of run ``name`` as a data frame."""
    return shlex.join(["python", "-c", f"import benchframe; print(benchframe.load({json.dumps(name)}))"])


def line(*words: str) -> str:
    """Any command, quoted for a shell."""
    return shlex.join(words)
