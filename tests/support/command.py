"""`benchframe` as users start it: a process of its own."""

import subprocess
import sys
from pathlib import Path


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """``benchframe ARGUMENTS`` in ``folder``."""
    command = [sys.executable, "-m", "benchframe", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``benchframe ARGUMENTS``."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err
