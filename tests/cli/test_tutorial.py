"""docs/tutorial.md is run as it stands: its files are written, its commands run, its output and tables compared."""

import csv
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.compile import compiled
from support.environments import ROOT, clean_environment

from benchframe.registry import load

PIECE = re.compile(r"<!-- (file|run): (\S+) -->\n```\w+\n(.*?)```|<!-- costs -->\n\n((?:\|[^\n]*\n)+)", re.DOTALL)
ROWS = {"hits": "lookup.hits", "VMAs read one after the other": "lookup.steps"}
"""Rows of the tutorial's tables to columns of `benchframe cost --format csv`."""


def same(wanted: str, told: str) -> bool:
    """Whether ``told`` has the lines of ``wanted``, in order; ``...`` stands for anything."""
    pieces = [re.escape(" ".join(piece.split())) for piece in wanted.split("...")]
    return re.search(".*".join(pieces), " ".join(told.split()), re.DOTALL) is not None


def close(text: str, value: float) -> bool:
    """Whether a table's figure is the value, rounded as the table does."""
    number = float(text.removesuffix("%"))
    value *= 100 if text.endswith("%") else 1
    digits = len(text.removesuffix("%").strip().partition(".")[2])
    return abs(value - number) <= 0.51 * 10.0**-digits


def check_costs(table: str, told: str) -> int:
    """Compare a table with the csv that `benchframe cost` printed; the number of figures."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    costs = {row["strategy"]: row for row in csv.DictReader(io.StringIO(told))}
    seen = 0
    for label, *figures in rows[2:]:
        for strategy, figure in zip(rows[0][1:], figures, strict=True):
            found = float(costs[strategy][ROWS[label]])
            assert close(figure, found), f"{label} of {strategy}: the tutorial says {figure}, it is {found}"
            seen += 1
    return seen


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path) -> None:
    """From `new` to the repaired strategy, every command ends as the text says and prints what it shows."""
    told, done, figures, written = "", [], 0, tmp_path
    environment = clean_environment(
        PYTHONPATH=os.pathsep.join(sys.path), BENCHFRAME_CONFIG_DIR=str(tmp_path / "config"), COLUMNS="200"
    )
    for what, argument, body, table in PIECE.findall((ROOT / "docs" / "tutorial.md").read_text()):
        if table:
            figures += check_costs(table, told)
        elif what == "file":
            assert (tmp_path / argument).is_file()
            (tmp_path / argument).write_text(body)
            written = tmp_path / argument
        else:
            line, _, wanted = body.partition("\n")
            command = shlex.split(line.removeprefix("$ "))
            module = ["benchframe", *command[1:]] if command[0] == "benchframe" else command[2:]
            if module[0] == "pytest":
                compiled(load([written]).strategy("two"))
            run = subprocess.run(
                [sys.executable, "-m", *module], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            told = run.stdout
            assert run.returncode == int(argument), f"{line}: {run.returncode}\n{told}\n{run.stderr}"
            assert same(wanted, told), f"{line} printed\n{told}"
            done.append(command[:2])
            if command[1] == "check" and argument == "0":
                assert "WRONG" not in told
    assert [words[1] for words in done] == ["new", "cost", "check", "check", "-m", "cost"]
    assert figures == 12


def test_the_comparison() -> None:
    """The tutorial's comparison can fail: another line, a missing line, a figure off by one in its last place."""
    assert same("a ...\nd", "a b\nc\nd")
    assert not same("a\nc", "a\nb\nc")
    assert not same("x", "a")
    assert close("73.7 %", 0.7368)
    assert not close("73.7 %", 0.7379)
    assert not close("2.42", 2.43)
