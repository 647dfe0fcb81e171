"""`benchframe.run` and `benchframe.simulate` in Python, and the example notebook, which uses both."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.compile import compiled
from support.environments import ROOT

import benchframe
from benchframe.errors import BenchframeError
from benchframe.registry import load

NOTEBOOK = ROOT / "examples" / "notebook" / "two_strategies.ipynb"


def cells() -> list[str]:
    """The code of the notebook's cells."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)  # nothing of a machine
    return ["".join(cell["source"]) for cell in code]


def shown(code: str, place: str) -> str:
    """``code`` with its last expression printed, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        call = ast.Call(ast.Name("print", ast.Load()), [ast.Constant(place), last.value], [])
        tree.body[-1] = ast.Expr(call)
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Its cells in order, as a script without a guard for processes: a table, frames, a simulated run; all on disk."""
    known = load([])
    for name in ("rbtree", "pmdcache"):
        compiled(known.strategy(name), timed=True)
    script = "\n".join(shown(code, f"cell {at}:") for at, code in enumerate(cells()))
    (tmp_path / "notebook.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "notebook.py"], capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    measured, simulated = sorted((tmp_path / "reports" / "runs").iterdir(), key=lambda path: "simulate" in path.name)
    assert "zipf:vmas=50,events=2000  rbtree" in done.stdout
    assert "cell 3:" in done.stdout  # the last frame
    frame = benchframe.load(measured, "figures")
    assert {*frame.strategy} == {"rbtree", "pmdcache"}
    assert {*frame[frame.figure == "lookup"].n} == {2}
    assert set(benchframe.load(simulated, "simulated").cpus) == {1, 2}
    command = json.loads((measured / "manifest.json").read_text())["command"]
    assert command == ["benchframe", "run", "--strategy", "pmdcache", "--workload", "zipf:vmas=50,events=2000"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("run('rbtre', 'zipf')", "did you mean rbtree?"),
        ("run('rbtree', 'zipf:vmas=0')", "vmas=0 is not"),
        ("run('rbtree', 'zipf', mode='fast')", "choose quick, default or rigorous"),
        ("run('rbtree', 'zipf', rounds=0)", "at least 1"),
        ("run('rbtree', 'zipf', budget=-1)", "positive number of seconds"),
        ("run('rbtree', 'zipf', plugins='no.py')", "no.py"),
        ("simulate('rbtree', 'mixed', cpus=())", "give numbers"),
        ("simulate('rbtree', 'mixed', seeds=0)", "at least 1"),
        ("simulate('rbtree', 'mixed', machine='z80')", "z80"),
    ],
)
def test_mistakes_are_exceptions_of_one_line(
    call: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the commands say in a line is a BenchframeError in Python, and leaves no folder behind."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchframeError) as raised:
        eval(f"benchframe.{call}")
    assert words in str(raised.value)
    assert not list(tmp_path.iterdir())
