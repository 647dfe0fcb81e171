"""The store of compiled units: a second process compiles nothing, edits are never stale, damage and races survived."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import dialect_sample as sample

from benchframe.dialect import store as store_module
from benchframe.dialect.numba_internals import Pipeline
from benchframe.dialect.store import KEEP, Functions, Store
from benchframe.units import Units, UnitSpec

HELPER = """from benchframe.dialect import native
FACTOR = 3


@native
def helper(x):
    return x * FACTOR
"""
PLUGIN = """from benchframe.dialect import native
from helper_module import helper


@native
def entry(mm, x):
    return helper(x) + 1
"""
RUN = """
import json, sys
import numpy as np
from author_module import entry
from support.dialect_sample import tiny
from benchframe.units import Units, UnitSpec
units = Units(tiny, [])
unit = units.get(UnitSpec("author", entry, {}))
print(json.dumps([unit(np.zeros(1, tiny.dtype).ctypes.data, 10), len(units.compiled), "numba" in sys.modules]))
"""


class Package:
    """A plugin of two modules in a folder, run in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        (folder / "helper_module.py").write_text(HELPER)
        (folder / "author_module.py").write_text(PLUGIN)

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace text in a module."""
        path = self.folder / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def start(self) -> "subprocess.Popen[str]":
        """A process that compiles or loads the unit and calls it with 10."""
        parts = [str(self.folder), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, parts)),
            "BENCHFRAME_CACHE_DIR": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self) -> list[int]:
        """(result, units compiled, was numba imported)."""
        return self.finish(self.start())

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> list[int]:
        """Its answer."""
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        answer: list[int] = json.loads(out)
        return answer

    def files(self) -> list[Path]:
        """The unit files."""
        return sorted((self.cache / "units").glob("*"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A fresh one."""
    return Package(tmp_path)


def test_second_process_compiles_nothing(package: Package) -> None:
    """The first compiles one unit, the second loads it without numba, and the folder stays as it is."""
    assert package.run() == [31, 1, True]
    before = package.files()
    for _ in range(2):
        assert package.run() == [31, 0, False]
    assert package.files() == before
    assert len(before) == 1


def test_an_edit_is_never_stale(package: Package) -> None:
    """The function, a function in another module, its constant: each edit counts at once; undone, nothing compiles."""
    assert package.run()[0] == 31
    package.edit("author_module.py", "+ 1", "+ 2")
    assert package.run()[:2] == [32, 1]
    package.edit("helper_module.py", "x * FACTOR", "x * FACTOR + 100")
    assert package.run()[:2] == [132, 1]
    package.edit("helper_module.py", "FACTOR = 3", "FACTOR = 4")
    assert package.run()[:2] == [142, 1]
    package.edit("helper_module.py", "FACTOR = 4", "FACTOR = 3")
    assert package.run() == [132, 0, False]


def test_two_cold_runs_at_once(package: Package) -> None:
    """Both give the right answer and leave one good file."""
    first, second = package.start(), package.start()
    assert [Package.finish(p)[0] for p in (first, second)] == [31, 31]
    assert len(package.files()) == 1
    assert package.run() == [31, 0, False]


# ---- the store alone ----


def units(folder: Path) -> Units:
    """A loader that has nothing in memory from other tests."""
    return Units(sample.tiny, [sample.maybe], Store(folder))


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test as a fresh process would see it."""
    from benchframe import units as units_module

    monkeypatch.setattr(units_module, "_loaded", {})


SPEC = UnitSpec("sample", sample.added, {})


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "magic"])
def test_a_damaged_file_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """A file that does not carry its own checksum is not executed but replaced."""
    from benchframe import units as units_module

    units(tmp_path).get(SPEC)
    (path,) = (tmp_path / "units").glob("*.o")
    good = path.read_bytes()
    half = len(good) // 2
    bad = {
        "empty": b"",
        "truncated": good[:half],
        "flipped": good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :],
        "magic": b"x" + good[1:],
    }[damage]
    path.write_bytes(bad)
    monkeypatch.setattr(units_module, "_loaded", {})
    again = units(tmp_path)
    assert again.missing([SPEC]) == [SPEC]
    again.get(SPEC)
    assert [name for name, _ in again.compiled] == ["sample"]
    assert Store(tmp_path).load("sample", SPEC.key(sample.tiny, [sample.maybe])) is not None


def test_versions_are_bounded(tmp_path: Path) -> None:
    """A unit edited all day keeps KEEP files, the last used ones; other units' files are not touched."""
    store = Store(tmp_path)
    store.save("other", "f" * 64, b"o")
    for number in range(3 * KEEP):
        store.save("mine", f"{number:064x}"[::-1], b"code")
        path = store.path("mine", f"{number:064x}"[::-1])
        os.utime(path, (1000 + number, 1000 + number))
    kept = sorted(p.name for p in store.folder.glob("mine-*.o"))
    assert len(kept) == KEEP
    newest = [store.path("mine", f"{n:064x}"[::-1]).name for n in range(3 * KEEP - KEEP, 3 * KEEP)]
    assert kept == sorted(newest)
    assert store.load("other", "f" * 64) == b"o"
    assert not list(store.folder.glob(".unit-*"))


def test_names_cannot_escape(tmp_path: Path) -> None:
    """A unit's name from a plugin stays a file name in the folder."""
    store = Store(tmp_path)
    path = store.path("../../etc/x y", "0" * 64)
    assert path.parent == store.folder
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", path.name)


def test_an_unwritable_folder_warns_once_and_works(tmp_path: Path) -> None:
    """Where the folder cannot be made the code lives in the process; one warning with the mend."""
    (tmp_path / "units").write_text("a file where the folder should be")
    loader = units(tmp_path)
    with pytest.warns(RuntimeWarning, match="compiled code cannot be cached: .*set BENCHFRAME_CACHE_DIR"):
        unit = loader.get(SPEC)
    assert unit is loader.get(SPEC)
    loader.store.save("again", "0" * 64, b"x")


def test_clear(tmp_path: Path) -> None:
    """Everything goes, and it says how much."""
    store = Store(tmp_path)
    assert store_module.clear(store.folder) == (0, 0)
    store.save("a", "0" * 64, b"12345")
    size = store.path("a", "0" * 64).stat().st_size
    assert store_module.clear(store.folder) == (1, size)
    assert store.load("a", "0" * 64) is None


SHARED = """from benchframe.dialect import native
FACTOR = 3


@native
def helper(x):
    return min(x, 100) * FACTOR


@native
def entry(mm, x):
    return helper(x) + 1


@native
def other(mm, x):
    return helper(x) + 2
"""


def shared(monkeypatch: pytest.MonkeyPatch, text: str = SHARED) -> dict[str, Any]:
    """The functions of a text, in a process that has compiled nothing yet."""
    for name in ("llvm._clones", "llvm._reuse", "numba_internals._loaded", "numba_internals._keys"):
        monkeypatch.setattr(f"benchframe.dialect.{name}", {})
    scope: dict[str, Any] = {"__name__": "shared"}
    exec(text, scope)
    return scope


def test_a_lowered_function_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process makes the same machine code without lowering; another entry or an edit lowers itself alone."""
    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(tmp_path))
    lowered: list[str] = []
    lower = Pipeline.define_pipelines
    monkeypatch.setattr(
        Pipeline,
        "define_pipelines",
        lambda self: lowered.append(self.state.func_id.func_name.partition("_")[0]) or lower(self),
    )

    def made(entry: str, text: str = SHARED) -> tuple[bytes, list[str]]:
        lowered.clear()
        spec = UnitSpec(entry, shared(monkeypatch, text)[entry], {})
        return units(tmp_path).compile(spec), list(lowered)

    code, first = made("entry")
    assert sorted(first) == ["entry", "helper"]
    assert made("entry") == (code, [])
    assert made("other")[1] == ["other"]
    assert made("entry", SHARED.replace("+ 1", "+ 7"))[1] == ["entry"]
    assert sorted(made("entry", SHARED.replace("FACTOR = 3", "FACTOR = 4"))[1]) == ["entry", "helper"]
    for path in (tmp_path / "functions").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    again, damaged = made("entry")
    assert (again, sorted(damaged)) == (code, ["entry", "helper"])


def test_functions_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the older half goes, when a process saves its first."""
    monkeypatch.setenv("BENCHFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(store_module, "FUNCTIONS", 9)
    for n in range(10):
        Functions().save(f"{n:064}"[::-1], b"x")
        os.utime(tmp_path / "functions" / f"{n:064}"[::-1][:40], (n, n))
    assert len(list((tmp_path / "functions").iterdir())) == 5
    assert [Functions().load(f"{n:064}"[::-1]) for n in (4, 5)] == [None, b"x"]


def test_another_toolchain_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's optimisation level and CPU override, as an example of what decides machine code."""
    before = store_module.toolchain_key()
    monkeypatch.setenv("NUMBA_OPT", "0")
    assert store_module.toolchain_key() != before
