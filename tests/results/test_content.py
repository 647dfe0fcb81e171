"""What a result depends on: the model's digest survives tidying and changes with what the model does."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import benchframe
from benchframe import runner
from benchframe import units as content
from benchframe.dialect.functions import TextIdentities
from benchframe.engine import threads
from benchframe.report.compare import Side, differences
from benchframe.results.folder import RunFolder
from benchframe.units import ENGINE, MODEL_UNITS, model_digest, model_name

ROOT = Path(benchframe.__file__).resolve().parent.parent
HELPER = """
from benchframe.dialect import Slab, Struct, fetch_add, native
from benchframe.dialect.functions import instance

point = Struct("point", [("x", "i8", "abscissa"), ("y", "i8", "ordinate")])
POINT = Slab("POINT", point, "point_base")
LIMIT = 3


@native
def lock(record):
    fetch_add(record, "word", 1)
    return 0


lock_x = instance(lock, {"word": "x"})


@native
def entry(mm, i):
    \"\"\"Some text.\"\"\"
    lock_x(POINT(mm, i))
    total = 0
    while total < LIMIT:
        total += POINT(mm, i).x + max(i, 1)
    return total
"""


def identity(folder: Path, text: str, name: str = "entry") -> str:
    """The identity of ``entry`` in a module of this text."""
    path = folder / f"m{len(list(folder.iterdir()))}.py"
    path.write_text(text)
    scope: dict[str, Any] = {"__name__": path.stem}
    exec(compile(text, str(path), "exec"), scope)
    return TextIdentities({}).of(scope[name])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("total = 0", "total = 0  # from nothing"),
        lambda s: s.replace('"""Some text."""', ""),
        lambda s: s.replace("total", "amount"),
        lambda s: s.replace("LIMIT", "MOST").replace("lock", "latch"),
        lambda s: s.replace("LIMIT = 3", "LIMIT = 1 + 2"),
        lambda s: s.replace("entry(mm, i)", "entry(mm: object, i: int) -> int").replace("i).x", "i)\\\n    .x"),
    ],
)
def test_what_does_not_count(tmp_path: Path, change: Callable[[str], str]) -> None:
    """Comments, docstrings, annotations, the lines of the text, the names of functions, locals and constants."""
    assert change(HELPER) != HELPER
    assert identity(tmp_path, change(HELPER)) == identity(tmp_path, HELPER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total < LIMIT", "total <= LIMIT"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("max(", "min("),
        ("i).x", "i).y"),
        ('"word", 1', '"word", 2'),
        ('"word": "x"', '"word": "y"'),
        ('("y", "i8"', '("y", "i4"'),
        ("mm, i):", "i, mm):"),
        ("fetch_add", "xchg"),
    ],
)
def test_what_counts(tmp_path: Path, old: str, new: str) -> None:
    """Operations, constants, callees, fields, words of an instance, layouts, arguments, primitives."""
    assert old in HELPER
    assert identity(tmp_path, HELPER.replace(old, new)) != identity(tmp_path, HELPER)


def digest_of(tree: Path) -> str:
    """model_digest of a copy of the package, in a process of its own."""
    shown = subprocess.run(
        [sys.executable, "-c", "from benchframe import units as c; print(c.__file__, c.model_digest())"],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        check=True,
    ).stdout.split()
    assert Path(shown[0]).is_relative_to(tree)
    return shown[1]


def test_tidying_and_changing_the_model(tmp_path: Path) -> None:
    """In a copy of benchframe: comments, a docstring and a renamed file leave the digest as it is; a changed comparison
    in find_vma does not."""
    shutil.copytree(ROOT / "benchframe", tmp_path / "benchframe", ignore=shutil.ignore_patterns("__pycache__"))
    home = next(path for path in (tmp_path / "benchframe/mm").rglob("*.py") if "\ndef find_vma(" in path.read_text())
    text = home.read_text()
    tidied = text.replace("    if vma != NULL:", "    # Found?\n    if vma != NULL:").replace(
        "Caller holds", "The caller holds"
    )
    assert tidied.count("# Found?") >= 2
    moved = home.with_name("renamed_file.py")
    moved.write_text(tidied)
    home.write_text(
        "from benchframe.mm.renamed_file import *  # noqa\nfrom benchframe.mm.renamed_file import find_vma\n"
    )
    assert digest_of(tmp_path) == model_digest()
    begin = tidied.index("def find_vma(")
    moved.write_text(tidied[:begin] + tidied[begin:].replace("if vma != NULL", "if vma > NULL", 1))
    assert digest_of(tmp_path) != model_digest()


def test_the_digest_covers_every_unit() -> None:
    """What the native engine compiles for a strategy, alone or with threads, begins in functions that the digest
    covers, under the same replacements."""
    bare: Any = SimpleNamespace(name="bare", binding={}, allocator=None)
    built = [
        *runner.specs(bare),
        *threads.specs(bare),
        runner.mapping(bare),
        runner.KNOWN_REPLAY,
        threads.mapping(bare),
    ]
    assert {(s.entry, str(s.replace)) for s in built} == {(s.entry, str(s.replace)) for s in MODEL_UNITS}


def committed() -> list[Path]:
    """The folders of timed runs in reports/. A simulated one has the simulator's digest, and takes a minute to make."""
    found = sorted(path.parent for path in (ROOT / "reports").glob("*/manifest.json"))
    return [path for path in found if not (path / "simulated").is_dir()]


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.name)
def test_committed_reports_are_of_this_model(path: Path) -> None:
    """A run made now has the model of the committed reports, so they are comparable - or ENGINE says otherwise."""
    then = model_name(json.loads((path / "manifest.json").read_text())["versions"]["model"])
    assert then.startswith("engine ")
    assert model_name(model_digest()) == then or int(then.split()[1]) < ENGINE, (
        f"not the model of {path.name}: if every figure is as it was, add {model_digest()[:16]!r} to SAME_MODEL "
        "(benchframe/units.py), else raise ENGINE there"
    )


def test_runs_of_known_models_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two digests that are listed under one version are the same model to `compare`; one that is not is another."""
    folder = RunFolder.open(committed()[0])
    monkeypatch.setattr(content, "SAME_MODEL", {**content.SAME_MODEL, "a" * 16: 1})
    for model, wanted in (("a" * 16, []), ("b" * 16, ["the model"])):
        manifest = replace(folder.manifest, versions={**folder.manifest.versions, "model": model})
        other = SimpleNamespace(folder=SimpleNamespace(manifest=manifest, path=folder.path / "other"), cells={})
        found = differences(Side(folder), other, [])  # type: ignore[arg-type]
        assert [d.what for d in found if d.refuses and "settings" not in d.what and "random" not in d.what] == wanted


def test_every_strategy_of_the_digest_is_bare() -> None:
    """No plugin can change the model's digest: it holds the defaults alone."""
    filled = set().union(*(unit.binding.values() for unit in MODEL_UNITS if unit.binding))
    assert not {f.__module__ for f in filled if not f.__module__.startswith("benchframe.")}
