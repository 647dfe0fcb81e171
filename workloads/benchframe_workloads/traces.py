"""The recorded traces in ``data/``, one workload each: real programs, event by event.

Each file says in its metadata how it was recorded (``benchframe trace info``). A file in ``data/`` is a workload by
being there; :data:`ABOUT` adds what a name alone cannot tell.
"""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from benchframe.api import Workload, hookimpl, trace_workload

DATA = Path(str(files("benchframe_workloads"))) / "data"

DEFAULT = ("python-start", "gcc", "java-version")
"""What `benchframe run` takes when no workload is named: short, long, and with threads."""

ABOUT = {
    "python-start": (
        "python3 -c 'import json': an interpreter starts",
        "scripts, tests and command-line tools: many short processes that map libraries and fault in a small heap",
    ),
    "gcc": (
        "gcc compiles a small C project: a tree of short processes",
        "builds: exec after exec, each with its own address space and a growing heap",
    ),
    "java-version": (
        "java -version: a JVM with its threads",
        "managed runtimes: reserved PROT_NONE areas, mprotect as memory is committed, many threads in one mm",
    ),
}
"""Name of the file without suffix: summary, what it stands for."""


@hookimpl
def benchframe_workloads() -> list[Workload]:
    """One workload for each ``data/*.parquet``, in order of name; nothing is read before a trace is asked for."""
    found = []
    for path in sorted(DATA.glob("*.parquet")):
        workload = trace_workload(path)
        summary, stands_for = ABOUT.get(path.stem, (f"recorded trace of {path.stem}", workload.stands_for))
        tags = ("trace", "default") if path.stem in DEFAULT else ("trace",)
        found.append(replace(workload, summary=summary, stands_for=stands_for, tags=tags))
    return found
