"""What recording costs: ``python benchmarks/record_rate.py [WHAT=COUNT...]``.

Each program of record_storm.c runs bare and under `benchframe record`, in turn. Printed are the program's own time in
both (the best of the rounds), the ratio, how long the command took from the program's end until the trace was written,
and the most memory that one of the recorder's processes had. Needs gcc, and for level full root.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchframe.trace.trace import read_meta

HERE = Path(__file__).resolve().parent
STORMS = {"faults": 1_000_000, "exec": 3_000, "vfork": 5_000, "fork": 5_000, "mappings": 65_000, "threads": 2_000}


def run(command: list[str], limit: int) -> tuple[float, float, int]:
    """(the program's own seconds, seconds from its end to that of the command, peak memory of a process in KiB)."""
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=limit)
    done = time.monotonic_ns()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{err}")
    own, end = map(int, out.split())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert begun * 1e9 < end <= done
    return own / 1e9, (done - end) / 1e9, peak


def measure(what: str, count: int, rounds: int, level: str, folder: Path) -> str:
    """One line of the table."""
    storm, trace = str(folder / "storm"), folder / "t.parquet"
    recorder = [sys.executable, "-m", "benchframe", "record", "--level", level, "-o", str(trace), "--"]
    bare, recorded = [], []
    for _ in range(rounds):
        bare.append(run([storm, what, str(count)], 3600)[0])
        recorded.append(run([*recorder, storm, what, str(count)], 3600))
    meta = read_meta(trace)
    faults = meta.faults.get("recorded", 0)
    plain, slow, after = min(bare), min(r[0] for r in recorded), min(r[1] for r in recorded)
    memory, size = max(r[2] for r in recorded) / 1024, trace.stat().st_size / 1e6
    return (
        f"| {what} | {count:,} | {faults:,} | {plain:.2f} | {slow:.2f} | {slow / plain:.1f} | {after:.1f} "
        f"| {memory:.0f} | {size:.1f} |"
    )


def main() -> None:
    """Measure what was asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storms", nargs="*", metavar="WHAT=COUNT", help=f"of {', '.join(STORMS)} (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--level", default="auto", help="of benchframe record")
    wanted = parser.parse_args()
    storms = {}
    for text in wanted.storms:
        what, _, count = text.partition("=")
        if what not in STORMS or not (count or "1").isdigit():
            parser.error(f"{text}: there are {', '.join(STORMS)}, each with =COUNT if you like")
        storms[what] = int(count) if count else STORMS[what]
    print("| what | count | faults | bare s | recorded s | ratio | after the end s | memory MB | trace MB |")
    print("|---|---|---|---|---|---|---|---|---|")
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
