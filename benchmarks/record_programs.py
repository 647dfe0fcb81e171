"""Programs that are hard to record, from ``record`` to ``run``: ``python benchmarks/record_programs.py [NAME...]``.

For each program: events, faults, address spaces and the most VMAs of one of them; what ``trace verify`` says; and the
seconds of ``benchframe record``, ``trace verify`` and ``benchframe run --quick`` of one strategy on its largest address
space, compiled code cached. Needs root, or CAP_PERFMON and a readable tracefs. A program that is not installed is left
out, and said.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record_shipped import PROGRAMS, Program, storm
from sampling import machine, print_table

from benchframe.engine.compile import compile_strategies
from benchframe.events import Kind
from benchframe.registry import load
from benchframe.trace.analysis import figures
from benchframe.trace.trace import read_trace

NAMES = (
    "chromium-page",
    "postgres-pgbench",
    "cargo-build",
    "i386-threads",
    "container",
    "mappings-65000",
    "threads-2000",
)
BASELINE, STRATEGY = "rbtree", "mmap_cache"


def crate(folder: Path) -> None:
    """A crate of one small program, without dependencies."""
    (folder / "Cargo.toml").write_text('[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n')
    (folder / "src").mkdir()
    (folder / "src" / "main.rs").write_text('fn main() {\n    println!("hello");\n}\n')


ALL = {
    **{program.name: program for program in PROGRAMS},
    "cargo-build": Program(
        "cargo-build", "a build tool, a compiler and a linker", ("cargo", "build", "--offline"), crate
    ),
    "mappings-65000": Program("mappings-65000", "65 000 VMAs", ("./storm", "mappings", "65000"), storm),
}


def timed(*arguments: str, cwd: Path) -> tuple[float, int, str]:
    """(seconds, exit code, what it said) of a benchframe command in ``cwd``."""
    command = [sys.executable, "-m", "benchframe", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return time.perf_counter() - began, done.returncode, done.stdout


def row(program: Program, folder: Path, environment: Path) -> list[str]:
    """A row of the table. SystemExit if a recording loses an event or a command fails."""
    program.prepare(folder)
    trace, one = environment / "all.parquet", environment / "one.parquet"
    took, code, said = timed("record", "-o", str(trace), "--", *program.command, cwd=folder)
    if code or not trace.exists():
        sys.exit(f"record_programs: {program.name}: record ended with {code}:\n{said}")
    recorded = read_trace(trace)
    if recorded.meta.lost:
        sys.exit(f"record_programs: {program.name}: {recorded.meta.lost} events lost")
    faults = int(np.count_nonzero(recorded.events["kind"] == Kind.FAULT))
    verified, code, said = timed("trace", "verify", str(trace), cwd=environment)
    differ = re.search(r"(\d[\d,]*) differences?", said)
    _, failed, said = timed("trace", "select", str(trace), "--largest", "-o", str(one), cwd=environment)
    if failed:
        sys.exit(f"record_programs: {program.name}: select ended with {failed}:\n{said}")
    ran, failed, _ = timed("run", "--quick", "--strategy", STRATEGY, "--trace", str(one), cwd=environment)
    return [
        program.name,
        f"{len(recorded):,}",
        f"{faults:,}",
        f"{recorded.mms:,}",
        f"{max(figures(recorded, columns=1).peak_vmas.values(), default=0):,}",
        ("holds" if code == 0 else f"exit {code}") + (f", {differ[0]}" if differ else ""),
        f"{took:.1f}",
        f"{verified:.1f}",
        f"{ran:.0f}" if failed == 0 else f"exit {failed}",
    ]


def main() -> None:
    """Parse options, compile, record, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(ALL)} (default: {' '.join(NAMES)})")
    names = parser.parse_args().names
    unknown = set(names) - set(ALL)
    if unknown:
        parser.error(f"there is no program {', '.join(sorted(unknown))}")
    known = load()
    compile_strategies([known.strategy(name) for name in dict.fromkeys((BASELINE, STRATEGY))])
    rows = []
    for name in names:
        program = ALL[name]
        with tempfile.TemporaryDirectory(prefix="bf-") as folder, tempfile.TemporaryDirectory() as results:
            try:
                rows.append(row(program, Path(folder), Path(results)))
            except (FileNotFoundError, LookupError, subprocess.CalledProcessError) as error:
                print(f"record_programs: {name} left out: {error}", file=sys.stderr)
    print(machine())
    head = ["program", "events", "faults", "address spaces", "most VMAs", "verify"]
    head += ["record, s", "verify, s", f"run --quick --strategy {STRATEGY}, s"]
    print_table("Programs that are hard to record", head, rows)


if __name__ == "__main__":
    main()
