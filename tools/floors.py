"""Do the lower bounds in pyproject.toml work? A fresh environment with exactly them, and a short run in it.

    make floors          # or: python tools/floors.py [PYTHON]

Installs every dependency at its lower bound (0.62 means the last 0.62.x; what they need in turn is the installer's
choice), then benchframe, and in that environment: a strategy is compiled and timed, its table and report are written, a
check explores a scenario. Takes some
minutes and 1 GB in a temporary folder. Exit code 1 if a step fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
STEPS = (
    ("--version",),
    ("list", "strategies"),
    ("run", "--quick", "--rounds", "2", "-s", "rbtree,mmap_cache", "-w", "uniform:vmas=50,events=2000"),
    ("table", "last"),
    ("table", "last", "--format", "json"),
    ("report", "last"),
    ("cost", "--strategy", "mmap_cache", "--workload", "uniform:vmas=50,events=2000"),
    ("check", "--strategy", "mmap_cache", "--scenario", "lookup-munmap", "--budget", "30s", "--jobs", "1"),
)
"""What is run: every dependency has a part in it."""


def floors(dependencies: Sequence[str]) -> list[str]:
    """Each requirement at its lower bound.

    >>> floors(["numba>=0.62,<0.69", "tomli>=2; python_version < '3.11'"])
    ['numba~=0.62.0', "tomli~=2.0; python_version < '3.11'"]
    """
    pinned = []
    for text in dependencies:
        requirement, semicolon, marker = text.partition(";")
        name, _, bounds = requirement.partition(">=")
        lowest = bounds.split(",")[0].strip()
        pinned.append(f"{name.strip()}~={lowest}.0{semicolon}{marker}")
    return pinned


def main(python: str = sys.executable) -> int:
    """Build the environment and take the steps in it; the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory(prefix="benchframe-floors-") as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        inside = folder / "venv" / "bin"
        environment = {**os.environ, "BENCHFRAME_CACHE_DIR": str(folder / "cache")}
        environment.pop("PYTHONPATH", None)
        pip = [inside / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *floors(project["dependencies"]), ROOT], check=True, env=environment)
        subprocess.run([inside / "python", "-m", "pip", "list", "--disable-pip-version-check"], check=True)
        for step in STEPS:
            done = subprocess.run(
                [inside / "benchframe", *step], cwd=folder, env=environment, capture_output=True, text=True
            )
            print(f"{'ok    ' if not done.returncode else 'FAILED'} benchframe {' '.join(step)}", flush=True)
            if done.returncode:
                print(done.stdout[-2000:], done.stderr[-4000:], sep="\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
