"""What recording costs: ``python benchmarks/record_rate.py [WHAT=COUNT...]``.

Each program of record_storm.c runs bare and under ``benchframe record``, in turn, so that what else the machine does
meets both. Printed are the program's own time in both (medians of the rounds), the median and the range of the rounds'
ratios, the recorder's CPU time, how long the command took from the program's end until the trace was written, and the
most memory that one of the recorder's processes had. Needs gcc, and for level full root.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchframe.trace.trace import read_meta

HERE = Path(__file__).resolve().parent
STORMS = {"faults": 1_000_000, "exec": 3_000, "vfork": 5_000, "fork": 5_000, "mappings": 65_000, "threads": 2_000}
TITLES = (
    "what", "count", "faults", "bare s", "recorded s", "ratio (range)", "own CPU s", "after the end s", "memory MB",
    "trace MB",
)  # fmt: skip


class Cost(NamedTuple):
    """One run: the program's own seconds, its CPU seconds, those of all that the command ran, seconds from the
    program's end to that of the command."""

    own: float
    program: float
    cpu: float
    after: float


def run(command: list[str]) -> Cost:
    """Run a command whose last line is the storm's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    end = time.monotonic_ns()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    own, ended, program = map(int, done.stdout.split())
    return Cost(own / 1e9, program / 1e9, cpu, (end - ended) / 1e9)


def measure(what: str, count: int, rounds: int, level: str, folder: Path) -> str:
    """One line of the table."""
    storm, trace = [str(folder / "storm"), what, str(count)], folder / "t.parquet"
    recorder = [sys.executable, "-m", "benchframe", "record", "--level", level, "-o", str(trace), "--"]
    pairs = [(run(storm), run([*recorder, *storm])) for _ in range(rounds)]
    faults = read_meta(trace).faults.get("recorded", 0)
    ratios = sorted(recorded.own / bare.own for bare, recorded in pairs)
    bare, slow = (median(pair[i].own for pair in pairs) for i in (0, 1))
    own = median(recorded.cpu - recorded.program for _, recorded in pairs)
    after = median(recorded.after for _, recorded in pairs)
    memory, size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, trace.stat().st_size / 1e6
    return (
        f"| {what} | {count:,} | {faults:,} | {bare:.2f} | {slow:.2f} | {median(ratios):.1f} ({ratios[0]:.1f} to "
        f"{ratios[-1]:.1f}) | {own:.1f} | {after:.1f} | {memory:.0f} | {size:.1f} |"
    )


def main() -> None:
    """Measure what was asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storms", nargs="*", metavar="WHAT=COUNT", help=f"of {', '.join(STORMS)} (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--level", default="auto", help="of benchframe record")
    wanted = parser.parse_args()
    storms = {}
    for text in wanted.storms:
        what, _, count = text.partition("=")
        if what not in STORMS or not (count or "1").isdigit():
            parser.error(f"{text}: there are {', '.join(STORMS)}, each with =COUNT if you like")
        storms[what] = int(count) if count else STORMS[what]
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    with tempfile.TemporaryDirectory(prefix="bf-") as name:
        folder = Path(name)
        subprocess.run(
            ["gcc", "-O2", "-pthread", "-o", str(folder / "storm"), str(HERE / "record_storm.c")], check=True
        )
        for what, count in (storms or STORMS).items():
            print(measure(what, count, wanted.rounds, wanted.level, folder), flush=True)
    print(f"\n{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
