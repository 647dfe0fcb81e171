"""Where plugins are: entry points of installed distributions, and files named by the user.

Finding does not import. :func:`import_plugin` does, and turns whatever goes wrong into a :class:`Problem` that names
the plugin, its file and, where there is one, the line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from benchframe.hookspecs import PROJECT

BUILT_IN = ("benchframe_plugins", "benchframe_workloads")
"""Packages whose every public module must have an entry point."""
AGAIN = "pip install -e . again"


@dataclass(frozen=True)
class Problem:
    """Something wrong with one plugin: who, in which file ("" if unknown), what, and what to do about it."""

    plugin: str
    file: str
    what: str
    mend: str

    def __str__(self) -> str:
        place = f" ({self.file})" if self.file else ""
        return f"plugin {self.plugin}{place}: {self.what}; {self.mend}"


@dataclass(frozen=True)
class Found:
    """A plugin not yet imported: ``where`` is a module's name, or a file's path if ``is_file``."""

    name: str
    where: str
    distribution: str = ""
    is_file: bool = False


def find(
    plugin_files: Sequence[Path] = (), points: Iterable[EntryPoint] | None = None
) -> tuple[list[Found], list[Problem]]:
    """All plugins: benchframe's own, other distributions' (sorted), then files in the order given.

    One distribution can be on ``sys.path`` twice (an editable install and the source tree); its entry points count
    once. Of two different plugins with one name the second is a problem.
    """
    if points is None:
        points = entry_points(group=PROJECT)
    candidates = [Found(p.name, p.value, p.dist.name if p.dist is not None else "") for p in points]
    candidates.sort(key=lambda found: (found.distribution != PROJECT, found.distribution))
    for path in plugin_files:
        path = Path(path).absolute()
        name = path.parent.name if path.stem == "__init__" else path.stem
        candidates.append(Found(name, str(path), is_file=True))
    plugins: dict[str, Found] = {}
    problems = []
    for found in candidates:
        first = plugins.setdefault(found.name, found)
        if first != found and not _same_file(first, found):
            whose = f"of {first.distribution or first.where}"
            what = f"a plugin of this name was already found: the one {whose}"
            problems.append(Problem(found.name, found.where, what, "rename the entry point or the file"))
    return list(plugins.values()), problems


def _same_file(installed: Found, file: Found) -> bool:
    """Whether a file was named that is installed as well (from where it lies): then the installed one counts."""
    return file.is_file and not installed.is_file and _file_of(installed.where) == file.where


def without_entry_point(installed: Iterable[Found]) -> list[Problem]:
    """Built-in modules that implement a hook and that no entry point names: these are frozen when benchframe is
    installed. What plugins share among themselves needs none."""
    installed = list(installed)
    named = {found.where.partition(":")[0] for found in installed}
    given = {Path(found.where).resolve() for found in installed if found.is_file}
    problems = []
    for package in BUILT_IN:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).glob("*.py")):
                known = f"{package}.{path.stem}" in named or path.resolve() in given
                if not path.stem.startswith("_") and not known and "@hookimpl" in path.read_text(encoding="utf-8"):
                    problems.append(Problem(path.stem, str(path), "it has no entry point, so it was not loaded", AGAIN))
    return problems


def import_plugin(found: Found) -> ModuleType | Problem:
    """Import ``found``; a module, or what went wrong. Only KeyboardInterrupt and the like pass through."""
    try:
        if found.is_file:
            return _import_file(found)
        module = found.where.partition(":")[0]
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a plugin's top level may raise
        file = found.where if found.is_file else _file_of(found.where)
        return Problem(found.name, file, _why(error, file), _mend(error, found))


def _import_file(found: Found) -> ModuleType:
    path = Path(found.where)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    # Two files may share a stem: the path makes the module's name its own.
    name = f"{PROJECT}_file_{hashlib.sha256(found.where.encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python source file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(where: str) -> str:
    """The source file of a module that could not be imported; its dotted name if there is none."""
    module = where.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    return (spec.origin if spec else None) or module


def _why(error: BaseException, file: str) -> str:
    text = str(error).strip().splitlines() or [""]
    if isinstance(error, FileNotFoundError) and error.filename == file:
        return "the file does not exist"
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"line {error.lineno}: SyntaxError: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}it cannot be imported: {type(error).__name__}: {text[0]}".rstrip(": ")


def _mend(error: BaseException, found: Found) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == found.where.partition(":")[0]:
        return "the module is gone: " + (AGAIN if found.distribution == PROJECT else f"reinstall {found.distribution}")
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}"
    if isinstance(error, FileNotFoundError):
        return "check the path"
    return "correct the plugin, or leave it out with --no-plugin " + found.name
