"""The plugins: entry points, files and remembered paths, and the strategies and workloads of each by name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import stat
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from benchframe import strategy as hookspecs
from benchframe.errors import BenchframeError, did_you_mean, near
from benchframe.files import parse_toml, replacing
from benchframe.strategy import HOOKS, PROJECT, Moved
from benchframe.workload import Workload, WorkloadSpec, sweep

if TYPE_CHECKING:
    from benchframe.scenario import Historic
    from benchframe.strategy import Strategy


# ----------------------------------------------------------------------------------------------------------------------
# The plugin files that a command loads besides the installed plugins: given with ``--plugin``, or remembered.
#
# Code is loaded only because the user named it. ``--plugin`` takes a Python file or the folder of a project whose
# ``pyproject.toml`` has entry points of the group ``benchframe``. ``benchframe new`` and ``benchframe plugin add``
# write such a path to a list in the user's own configuration folder; nothing is ever looked for in the current
# folder. A list, or a file named in it, that somebody else could have written is refused (as ssh does with its
# configuration).

LIST = "plugins.txt"
"""The file with the remembered paths: one absolute path per line; ``#`` begins a comment."""
_MAX = 1 << 20


class PluginPathError(BenchframeError):
    """A path that cannot be a plugin; ``str()`` is one line that says why and what to do."""


def config_folder() -> Path:
    """``$BENCHFRAME_CONFIG_DIR`` or the platform's user configuration folder for benchframe."""
    chosen = os.environ.get("BENCHFRAME_CONFIG_DIR")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_config_dir(PROJECT))


def expand(path: Path) -> list[Path]:
    """The Python files that ``path`` stands for, absolute: the file itself, or a project's entry-point modules.

    Raises :class:`PluginPathError`: no such file, a folder without ``pyproject.toml``, a project without entry points,
    or an entry point whose module is neither in ``src/`` nor beside ``pyproject.toml``.
    """
    path = path.absolute()
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise PluginPathError(f"plugin file {path} does not exist; give the path of a Python file or project folder")
    points = _entry_points(path / "pyproject.toml")
    return [_module_file(path, module.partition(":")[0].strip()) for module in points.values()]


def _entry_points(project: Path) -> dict[str, str]:
    if not project.is_file():
        raise PluginPathError(f"{project.parent} has no pyproject.toml; name the plugin's Python file itself")
    try:
        data: Any = parse_toml(project.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PluginPathError(f"{project}: {error}; correct it") from None
    points = data.get("project", {}) if isinstance(data, dict) else {}
    for key in ("entry-points", PROJECT):
        points = points.get(key, {}) if isinstance(points, dict) else {}
    if not isinstance(points, dict) or not points or not all(isinstance(p, str) for p in points.values()):
        raise PluginPathError(f"{project} has no [project.entry-points.{PROJECT}]; add it, or name the Python file")
    return points


def _module_file(folder: Path, module: str) -> Path:
    """The file in which a project keeps ``module``; the name is split at dots and cannot leave the folder."""
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise PluginPathError(f"{folder / 'pyproject.toml'}: {module!r} is not a module name; correct the entry point")
    parts = module.split(".")
    for root in (folder / "src", folder):
        for file in (root.joinpath(*parts).with_suffix(".py"), root.joinpath(*parts, "__init__.py")):
            if file.is_file():
                return file.resolve()
    raise PluginPathError(
        f"{folder}: module {module} is neither in src/ nor beside pyproject.toml; correct the entry point"
    )


# ---- the user's list ------------------------------------------------------------------------------------------------


def _ours(path: Path) -> str:
    """Why ``path`` cannot be trusted; empty if only the user (or root) can have written it."""
    info = path.stat()
    if hasattr(os, "geteuid") and info.st_uid not in (0, os.geteuid()):
        return "it belongs to another user"
    if info.st_mode & stat.S_IWOTH:
        return "other users can write it"
    return ""


def listed() -> list[Path]:
    """The remembered paths in the order of the list. Raises PluginPathError if other users can write the list."""
    path = config_folder() / LIST
    try:
        wrong = _ours(path)
        if wrong or path.stat().st_size > _MAX:
            raise PluginPathError(f"{path} is not used: {wrong or 'it is too long'}; remove it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise PluginPathError(f"{path} cannot be read ({error}); remove it") from None
    return [Path(line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def remember(path: Path) -> bool:
    """Add ``path`` to the list; False if it was already there. Raises PluginPathError as :func:`expand` does, and
    OSError."""
    path = path.absolute()
    expand(path)
    paths = listed()
    if path in paths:
        return False
    _write([*paths, path])
    return True


def forget(name: str) -> list[Path]:
    """Remove from the list every path that is ``name`` or ends in it; returns the removed paths."""
    paths = listed()
    gone = [path for path in paths if path == Path(name).absolute() or path.name == name]
    if gone:
        _write([path for path in paths if path not in gone])
    return gone


def _write(paths: Sequence[Path]) -> None:
    folder = config_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    head = "# plugins that benchframe loads: `benchframe plugin add` and `remove` write this list\n"
    with replacing(folder / LIST, mode=0o600) as file:
        file.write((head + "".join(f"{path}\n" for path in paths)).encode())


def plugin_files(given: Sequence[Path] = ()) -> tuple[list[Path], list[str]]:
    """The files to load, without duplicates, those ``given`` last; and one line per remembered path that cannot be
    used.

    Raises PluginPathError if a given path cannot be used.
    """
    files: dict[Path, None] = {}
    problems: list[str] = []
    try:
        paths = listed()
    except PluginPathError as error:
        paths, problems = [], [str(error)]
    for path in paths:
        try:
            found = expand(path)
            wrong = next((f"{file}: {why}" for file in found if (why := _ours(file))), "")
        except (PluginPathError, OSError) as error:
            found, wrong = [], str(error)
        if wrong:
            problems.append(f"remembered plugin {path}: {wrong} (benchframe plugin remove {path.name})")
        else:
            files.update(dict.fromkeys(found))
    for path in given:
        for file in expand(path):
            files.pop(file, None)
            files[file] = None
    return list(files), problems


# ----------------------------------------------------------------------------------------------------------------------
# Where plugins are: entry points of installed distributions, and files named by the user.
#
# Finding does not import. :func:`import_plugin` does, and turns whatever goes wrong into a :class:`Problem` that names
# the plugin, its file and, where there is one, the line.

BUILT_IN = ("benchframe_plugins", "benchframe_workloads")
"""Packages in which every public module must have an entry point."""
AGAIN = "pip install -e . again"


@dataclass(frozen=True)
class Problem:
    """A problem with one plugin: its name, its file ("" if unknown), what is wrong, and what to do about it."""

    plugin: str
    file: str
    what: str
    mend: str

    def __str__(self) -> str:
        place = f" ({self.file})" if self.file else ""
        return f"plugin {self.plugin}{place}: {self.what}; {self.mend}"


@dataclass(frozen=True)
class Found:
    """A plugin that is not imported yet: ``where`` is a module's name, or a file's path if ``is_file``."""

    name: str
    where: str
    distribution: str = ""
    is_file: bool = False


def find(
    plugin_files: Sequence[Path] = (), points: Iterable[EntryPoint] | None = None
) -> tuple[list[Found], list[Problem]]:
    """All plugins: benchframe's own, those of other distributions (sorted), then files in the order given.

    A distribution can be on ``sys.path`` twice (an editable install and the source tree); its entry points count once.
    If two different plugins have the same name, the second is a problem.
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
    """Whether the named file is also installed (from the same path); then the installed plugin is used."""
    return file.is_file and not installed.is_file and _file_of(installed.where) == file.where


def without_entry_point(installed: Iterable[Found]) -> list[Problem]:
    """Built-in modules that implement a hook but have no entry point: entry points are fixed when benchframe is
    installed. Modules that plugins only share among themselves need none."""
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


@contextmanager
def moved_names(into: list[str]) -> Iterator[None]:
    """Collect in the list the names that a plugin imports from their old place, instead of warning about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Moved)
        yield
    for warning in caught:
        if issubclass(warning.category, Moved):
            into.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def import_plugin(found: Found) -> ModuleType | Problem:
    """Import ``found``; returns the module, or what went wrong. Only KeyboardInterrupt and similar exceptions
    propagate."""
    try:
        if found.is_file:
            return _import_file(found)
        module = found.where.partition(":")[0]
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a plugin's top level may raise anything
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
    """The source file of a module that could not be imported; its dotted name if it has none."""
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
        line, column = next(((line, column) for line, column, _ in _habits(error)), (error.lineno, error.offset))
        return f"line {line}, column {column}: SyntaxError: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}it cannot be imported: {type(error).__name__}: {text[0]}".rstrip(": ")


def _habits(error: SyntaxError) -> list[tuple[int, int, str]]:
    """The line, column and mend of whatever is C in the file that Python does not understand."""
    from benchframe.dialect.lint import c_places

    try:
        return c_places(Path(error.filename or "").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def _elsewhere(error: ImportError) -> str:
    """Where a name is that ``benchframe.api`` or ``benchframe.kernel`` does not have; "" if nowhere."""
    asked = re.match(r"cannot import name '(\w+)' from 'benchframe\.(api|kernel)'", str(error))
    if asked is None:
        return ""
    names = {one: importlib.import_module(f"benchframe.{one}").__all__ for one in ("api", "kernel")}
    home = next((module for module, known in names.items() if asked[1] in known), "")
    if home:
        return f"write: from benchframe.{home} import {asked[1]}"
    every = [*names["api"], *names["kernel"]]
    close = near(asked[1], every) or next((name for name in every if asked[1] in name), "")
    return f"did you mean {close}?" if close else f"docs/strategy-interface.md lists what benchframe.{asked[2]} has"


def _mend(error: BaseException, found: Found) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == found.where.partition(":")[0]:
        return "the module is gone: " + (AGAIN if found.distribution == PROJECT else f"reinstall {found.distribution}")
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}"
    if isinstance(error, FileNotFoundError):
        return "check the path"
    if isinstance(error, SyntaxError) and (habits := _habits(error)):
        first, *others = habits
        return "\n  ".join([first[2], *(f"line {line}, column {column}: {mend}" for line, column, mend in others)])
    if isinstance(error, ImportError) and (elsewhere := _elsewhere(error)):
        return elsewhere
    return "correct the plugin, or leave it out with --no-plugin " + found.name


# ----------------------------------------------------------------------------------------------------------------------
# Find plugins, collect what each one provides, and report problems by name and file.
#
#     registry = load(plugin_files=[Path("mine.py")], blocked=["mmap_cache"])
#     registry.strategy("pmdcache"), registry.workload("zipf"), registry.problems
#
# Plugins are modules named by entry points of the group ``benchframe`` (of any installed distribution, this one too),
# then files. A plugin that cannot be used becomes a :class:`Problem`; the others still load. Nothing is compiled here.

__all__ = ["Origin", "Problem", "Registry", "UnknownName", "load"]


def _can_be_asked_for(name: str) -> bool:
    """Whether ``--strategy`` can name it and a results file can hold it: one printable line without commas."""
    return len(name) <= 100 and name == name.strip() and "," not in name and name.isprintable()


class UnknownName(BenchframeError, LookupError):
    """A strategy or workload that no plugin defines. ``str()`` is one line with the nearest known name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], because: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.nearest = near(name, self.known, 0.5)
        otherwise = "known: {}" if self.known else "no plugin defines any"
        hint = because or did_you_mean(name, self.known, otherwise, 0.5)
        super().__init__(f"no {kind} is called {name!r}", hint=hint)


@dataclass(frozen=True)
class Origin:
    """Where a name is defined: the plugin, its file, and the distribution (empty for a plugin file)."""

    plugin: str
    file: str
    distribution: str = ""


@dataclass
class Registry:
    """Everything that the plugins provide together. Dicts are in loading order: benchframe's own plugins first."""

    strategies: dict[str, Strategy] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What still works but is deprecated: a line per plugin that imports names from where 0.1 had them."""
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    """Where each is defined, by ("strategy" or "workload", name)."""
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))
    plugins: dict[str, Origin] = field(default_factory=dict)
    """The plugins that loaded, by name."""

    def strategy(self, name: str) -> Strategy:
        """The strategy called ``name``, with its index resolved. Raises :class:`UnknownName`."""
        if name in self.strategies:
            return self.strategies[name]
        raise UnknownName("strategy", name, self.strategies, self._because("strategy", name))

    def workload(self, name: str) -> Workload:
        """The workload called ``name``. Raises :class:`UnknownName`."""
        if name in self.workloads:
            return self.workloads[name]
        raise UnknownName("workload", name, self.workloads, self._because("workload", name))

    def spec(self, text: str) -> WorkloadSpec:
        """The spec that a text such as ``zipf:vmas=1000`` stands for. Raises :class:`UnknownName` or
        ``WorkloadError``."""
        return self.workload(text.partition(":")[0].strip()).spec(text)

    def recorded(self) -> dict[str, Mapping[str, float]]:
        """The nominal statistics of the recorded programs that have any, by workload."""
        return {name: w.nominal for name, w in self.workloads.items() if w.nominal and "trace" in w.tags}

    def sweep(self, text: str) -> dict[str, WorkloadSpec]:
        """The specs of ``zipf:vmas=10..1e6:log`` or ``zipf:vmas=10/100`` by their texts; one if no parameter has
        several values."""
        return {one: self.spec(one) for one in sweep(text)}

    def historic(self) -> dict[str, Historic]:
        """The historic races by number, with their strategies resolved; unusable ones are added to ``problems``."""
        from benchframe.scenario import Historic
        from benchframe.strategy import StrategyError, resolve

        races: dict[str, Historic] = {}
        for origin, race in self._each("benchframe_historic", Historic):
            try:
                sides = {
                    name: self.strategy(side) if isinstance(side, str) else resolve(side, self.strategies)
                    for name, side in (("broken", race.broken), ("mended", race.mended))
                    if side != ""
                }
            except (StrategyError, UnknownName) as error:
                self._problem(origin, f"historic race {race.number}: {error}")
                continue
            if races.setdefault(race.number, made := replace(race, **sides)) != made:
                self._problem(origin, f"historic race {race.number} is already defined", "rename one")
        return races

    def metadata(self) -> dict[str, str]:
        """What the plugins report about this machine or run. A wrong answer is added to ``problems`` and left out."""
        texts: dict[str, str] = {}
        for origin, answer in self._answers("benchframe_metadata"):
            good = isinstance(answer, Mapping) and all(isinstance(x, str) for pair in answer.items() for x in pair)
            if not good:
                self._problem(origin, "benchframe_metadata() did not return a dict of strings")
                continue
            for key, text in answer.items():
                if texts.setdefault(key, text) != text:
                    self._problem(origin, f"metadata key {key!r} is already set by another plugin", "rename the key")
        return texts

    # --- filling ------------------------------------------------------------------------------------------------

    def add(self, found: Found) -> None:
        """Import one plugin and register it; problems are added to ``problems``."""
        moved: list[str] = []
        with moved_names(moved):
            module = import_plugin(found)
        if moved:
            more = f" (and {len(moved) - 1} more names)" if len(moved) > 1 else ""
            self.notes.append(f"plugin {found.name}: {moved[0]}{more}; the old imports work until 0.3")
        if isinstance(module, Problem):
            self.problems.append(module)
            return
        origin = Origin(found.name, str(getattr(module, "__file__", None) or found.where), found.distribution)
        filled = [hook for hook in HOOKS if hasattr(getattr(module, hook, None), f"{PROJECT}_impl")]
        for name in dir(module):
            thing = getattr(module, name, None)
            marked = hasattr(thing, f"{PROJECT}_impl")
            if marked and name not in HOOKS:
                self._problem(origin, f"{name}() is not a hook of benchframe", f"the hooks are {', '.join(HOOKS)}")
            elif name in HOOKS and not marked:
                self._problem(origin, f"{name}() is not marked", "write @hookimpl above it (benchframe.api)")
        if not filled:
            self._problem(origin, "it implements no hook", f"define one of {', '.join(HOOKS)} under @hookimpl")
            return
        try:
            self.manager.register(module, name=found.name)
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            self._problem(origin, _line(error))
            return
        self.plugins[found.name] = origin

    def collect(self) -> None:
        """Ask every plugin for its workloads and strategies; their names must be new. O(plugins)."""
        from benchframe.strategy import Strategy

        for origin, workload in self._each("benchframe_workloads", Workload):
            wrong = workload.problem()
            if wrong:
                self._problem(origin, f"workload {workload.name!r}: {wrong}")
            else:
                self._claim("workload", workload.name, workload, self.workloads, origin)
        for origin, strategy in self._each("benchframe_strategies", Strategy):
            if not isinstance(strategy.name, str) or not strategy.name:
                self._problem(origin, f"a strategy is called {strategy.name!r}", "give it a name")
            elif not _can_be_asked_for(strategy.name):
                mend = "take up to 100 printable characters, no comma and no space at either end"
                self._problem(origin, f"a strategy is called {strategy.name[:120]!r}", mend)
            else:
                self._claim("strategy", strategy.name, self._placed(strategy, origin), self.strategies, origin)
        self._resolve()

    def _placed(self, strategy: Strategy, origin: Origin) -> Strategy:
        """``strategy`` with the module, file and docstring of its plugin, where it does not set them itself."""
        module = self.manager.get_plugin(origin.plugin)
        text = (getattr(module, "__doc__", None) or strategy.summary).strip()
        return replace(
            strategy,
            module=strategy.module or getattr(module, "__name__", ""),
            file=strategy.file or origin.file,
            doc=strategy.doc or text,
        )

    def _resolve(self) -> None:
        from benchframe.strategy import StrategyError, resolve

        given = dict(self.strategies)
        for name, strategy in given.items():
            try:
                self.strategies[name] = resolve(strategy, given)
            except Exception as error:  # a plugin's mistake must not stop the others
                del self.strategies[name]
                told = str(error) if isinstance(error, StrategyError) else _line(error)
                told = told.removeprefix(f"strategy {name}: ")
                origin = self.origins.pop(("strategy", name))
                self._problem(origin, f"strategy {name!r}: {told}", self._and_in_text(origin))

    def _and_in_text(self, origin: Origin) -> str:
        """What to do about a strategy that cannot be used; and a line for each finding in the plugin's functions."""
        from benchframe.dialect.functions import is_native
        from benchframe.dialect.lint import lint

        module = self.manager.get_plugin(origin.plugin)
        own = [f for f in vars(module).values() if is_native(f) and f.__module__ == getattr(module, "__name__", "")]
        return "\n  ".join(["correct the plugin", *(str(finding) for f in own for finding in lint(f))])

    def _claim(self, kind: str, name: str, thing: Any, table: dict[str, Any], origin: Origin) -> None:
        first = self.origins.get((kind, name))
        if first is not None:
            what = f"{kind} {name!r} is already defined in {first.file}"
            mend = f"rename one, or leave one out with --no-plugin {first.plugin}"
            self._problem(origin, f"it gives {kind} {name!r} twice" if first == origin else what, mend)
            return
        self.origins[kind, name] = origin
        table[name] = thing

    def _each(self, hook: str, wanted: type[Any]) -> Iterable[tuple[Origin, Any]]:
        for origin, answer in self._answers(hook):
            if not isinstance(answer, (list, tuple)):
                self._problem(origin, f"{hook}() returned a {type(answer).__name__}, not a list of {wanted.__name__}")
                continue
            for thing in answer:
                if isinstance(thing, wanted):
                    yield origin, thing
                else:
                    what = f"{hook}() returned a {type(thing).__name__} in its list, not a {wanted.__name__}"
                    self._problem(origin, what)

    def _answers(self, hook: str) -> Iterable[tuple[Origin, Any]]:
        """Call the plugins one by one, so that an exception can be attributed."""
        impls = {impl.plugin_name: impl for impl in getattr(self.manager.hook, hook).get_hookimpls()}
        for name, origin in self.plugins.items():
            if name not in impls:
                continue
            try:
                answer = impls[name].function()
            except (Exception, SystemExit) as error:  # a plugin's bug must not stop the others
                self._problem(origin, f"{hook}() raised {_line(error)}")
            else:
                yield origin, answer

    def _problem(self, origin: Origin, what: str, mend: str = "correct the plugin") -> None:
        self.problems.append(Problem(origin.plugin, origin.file, what, mend))

    def _because(self, kind: str, name: str) -> str:
        """Why ``name`` is missing, if a broken plugin is the probable cause."""
        for problem in self.problems:
            if problem.plugin == name or f"{kind} {name!r}" in problem.what:
                return f"plugin {problem.plugin} has a problem: {problem.what}"
        return ""


def load(plugin_files: Sequence[Path] = (), blocked: Sequence[str] = ()) -> Registry:
    """Load every plugin except the ``blocked`` ones (by plugin name); problems end up in ``Registry.problems``."""
    registry = Registry()
    registry.manager.add_hookspecs(hookspecs)
    installed, problems = find(plugin_files)
    registry.problems += problems
    for name in blocked:
        if name not in {found.name for found in installed}:
            names = [found.name for found in installed]
            mend = did_you_mean(name, names, "see `benchframe list strategies` for plugin names")
            registry.problems.append(Problem(name, "", "there is no plugin of this name to leave out", mend))
    for found in installed:
        if found.name not in blocked:
            registry.add(found)
    registry.collect()
    registry.problems += [p for p in without_entry_point(installed) if p.plugin not in blocked]
    registry.problems = [replace(p, what=" ".join(p.what.split())) for p in registry.problems]
    return registry


def _line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
