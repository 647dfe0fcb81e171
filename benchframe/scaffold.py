"""``benchframe new``: an installable package with a working strategy or workload, its tests and a README."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template

from benchframe.errors import BenchframeError

KINDS = ("cache", "index", "protocol", "workload")
"""The kinds of plugin that can be created; each has its own template."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 40
_TEMPLATES = Path(__file__).resolve().parent / "templates"
TAKEN = ("plugins", "workloads")
"""Names whose module would clash with one of benchframe's own."""


class ScaffoldError(BenchframeError):
    """A name or folder that cannot be used; ``str()`` is one line with a hint."""


@dataclass(frozen=True)
class Project:
    """A created project: ``folder`` holds it, ``module`` is its Python module's name, ``source`` that module's file."""

    name: str
    kind: str
    folder: Path
    module: str

    @property
    def source(self) -> Path:
        """The file to edit."""
        return self.folder / "src" / f"{self.module}.py"


def check_name(name: str) -> None:
    """Raise ScaffoldError unless ``name`` can name a strategy, a folder, a distribution and, with ``_``, a module.

    >>> check_name("my-cache2")
    >>> check_name("../x")
    Traceback (most recent call last):
        ...
    benchframe.scaffold.ScaffoldError: '../x' cannot be a plugin's name; take small letters, digits, - and _
    """
    if len(name) > _LONGEST:
        raise ScaffoldError(f"{name[:_LONGEST]!r}... is too long for a name; take at most {_LONGEST} characters")
    if not _NAME.fullmatch(name):
        raise ScaffoldError(f"{name!r} cannot be a plugin's name; take small letters, digits, - and _")
    if name in TAKEN:
        raise ScaffoldError(f"{name!r} is the name of benchframe's own package; choose another one")


def make(name: str, kind: str, parent: Path) -> Project:
    """Write the package ``parent/name`` in one step: it appears complete or not at all. Nothing is overwritten.

    Raises ScaffoldError (for the name, the kind, an existing folder of that name, or an installed module of that name)
    and OSError.
    """
    check_name(name)
    if kind not in KINDS:
        raise ScaffoldError(f"there is no kind {kind!r}; choose {', '.join(KINDS)}")
    module = "benchframe_" + name.replace("-", "_")
    folder = parent.absolute() / name
    if folder.exists() or folder.is_symlink():
        raise ScaffoldError(f"{folder} exists; choose another name, or another place with -o")
    if importlib.util.find_spec(module) is not None:
        raise ScaffoldError(f"a module {module} is installed already; choose another name")
    parent.mkdir(parents=True, exist_ok=True)
    words = {"name": name, "module": module, "kind": kind, "function": name.replace("-", "_")}
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        tests = "workload" if kind == "workload" else "strategy"
        for template, target in (
            (f"{kind}.py.txt", f"src/{module}.py"),
            (f"test_{tests}.py.txt", f"tests/test_{words['function']}.py"),
            ("pyproject.toml.txt", "pyproject.toml"),
            (f"readme_{tests}.md.txt", "README.md"),
        ):
            path = building / target
            path.parent.mkdir(exist_ok=True)
            text = (_TEMPLATES / template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Project(name, kind, folder, module)
