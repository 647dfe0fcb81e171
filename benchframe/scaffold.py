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
from benchframe.linux.tree import SourceTree

KINDS = ("cache", "index", "protocol", "workload")
"""What a new plugin can be; each has a template of its own."""
LANGUAGES = ("python", "c")
"""What its hot path can be written in."""
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


MAPLE = "lib/maple_tree.c"
LINUX_FILES = {MAPLE: "linux_maple", "lib/rbtree.c": "linux_rbtree"}
"""Files of a kernel source tree that can be an index, and the templates of the strategy around each."""


def make(
    name: str,
    kind: str,
    parent: Path,
    language: str = "python",
    linux: SourceTree | None = None,
    file: str = MAPLE,
) -> Project:
    """Write the package ``parent/name``, in one step: it appears complete or not at all. Nothing is overwritten.

    ``language`` "c" begins a cache whose hot path is C, with its twin. With ``linux`` it is an index whose text is
    ``file`` of that source tree (LINUX_FILES), which stays where it is. Raises ScaffoldError (name, kind, language,
    file, a folder of that name, a module of that name is installed) and OSError.
    """
    check_name(name)
    if kind not in KINDS:
        raise ScaffoldError(f"there is no kind {kind!r}; choose {', '.join(KINDS)}")
    if language not in LANGUAGES or (language == "c" and kind != "cache"):
        what = f"a {kind} does not begin in {language!r}" if language in LANGUAGES else f"there is no {language!r}"
        raise ScaffoldError(f"{what}; a cache may begin in c, everything in python (docs/c-strategies.md)")
    if linux is not None:
        if file not in LINUX_FILES:
            raise ScaffoldError(f"{file} cannot be an index; choose {' or '.join(LINUX_FILES)}")
        if lacking := linux.lacks([file]):
            raise ScaffoldError(f"{linux.path} has no {lacking[0]}; name another source tree")
    module = "benchframe_" + name.replace("-", "_")
    folder = parent.absolute() / name
    if folder.exists() or folder.is_symlink():
        raise ScaffoldError(f"{folder} exists; choose another name, or another place with -o")
    if importlib.util.find_spec(module) is not None:
        raise ScaffoldError(f"a module {module} is installed already; choose another name")
    parent.mkdir(parents=True, exist_ok=True)
    words = {"name": name, "module": module, "kind": kind, "function": name.replace("-", "_")}
    sources = [(f"{kind}.py.txt", f"src/{module}.py")]
    if language == "c":
        sources = [(f"{kind}_c.py.txt", f"src/{module}.py"), (f"{kind}.c.txt", f"src/{module}.c")]
    if linux is not None:
        kind = words["kind"] = "index"
        sources = [(f"{LINUX_FILES[file]}{end}.txt", f"src/{module}{end}") for end in (".py", ".c")]
        rcu = " | MT_FLAGS_USE_RCU" if linux.version >= (6, 3) else ""  # 3dd443254941
        words |= {"linux": repr(str(linux.path.resolve())), "version": f"Linux {linux.name}:", "rcu": rcu}
    words["files"] = ", ".join(f'"{target}"' for _, target in sources)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        tests = "workload" if kind == "workload" else "strategy"
        for template, target in (
            *sources,
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
