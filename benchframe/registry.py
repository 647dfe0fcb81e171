"""Find plugins, ask each one what it brings, and report what is wrong with any, by name and file.

    registry = load(plugin_files=[Path("mine.py")], blocked=["mmap_cache"])
    registry.strategy("pmdcache"), registry.workload("zipf"), registry.problems

Plugins are modules named by entry points of the group ``benchframe`` (of any installed distribution, this one too),
then files. A plugin that cannot be used becomes a :class:`Problem`; the others still load. Nothing is compiled here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from benchframe import hookspecs
from benchframe.discovery import Found, Problem, find, import_plugin, without_entry_point
from benchframe.errors import BenchframeError, did_you_mean, near
from benchframe.hookspecs import HOOKS, PROJECT
from benchframe.workload import Workload, WorkloadSpec

if TYPE_CHECKING:
    from benchframe.races import Historic
    from benchframe.strategy import Strategy

__all__ = ["Origin", "Problem", "Registry", "UnknownName", "load"]


def _can_be_asked_for(name: str) -> bool:
    """Whether ``--strategy`` can name it, and a results file holds it: one printable line without commas."""
    return len(name) <= 100 and name == name.strip() and "," not in name and name.isprintable()


class UnknownName(BenchframeError, LookupError):
    """A strategy or workload that no plugin brings. ``str()`` is one line with the nearest known name."""

    def __init__(self, kind: str, name: str, known: Iterable[str], because: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.nearest = near(name, self.known, 0.5)
        otherwise = "known: {}" if self.known else "no plugin brings any"
        hint = because or did_you_mean(name, self.known, otherwise, 0.5)
        super().__init__(f"no {kind} is called {name!r}", hint=hint)


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: the plugin, its file, and the distribution (empty for a plugin file)."""

    plugin: str
    file: str
    distribution: str = ""


@dataclass
class Registry:
    """What all plugins bring together. Dicts are in order of loading: benchframe's own plugins first."""

    strategies: dict[str, Strategy] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    """By ("strategy" or "workload", name)."""
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))
    plugins: dict[str, Origin] = field(default_factory=dict)
    """The plugins that loaded, by name."""

    def strategy(self, name: str) -> Strategy:
        """The strategy called ``name``, its index resolved; raises :class:`UnknownName`."""
        if name in self.strategies:
            return self.strategies[name]
        raise UnknownName("strategy", name, self.strategies, self._because("strategy", name))

    def workload(self, name: str) -> Workload:
        """The workload called ``name``; raises :class:`UnknownName`."""
        if name in self.workloads:
            return self.workloads[name]
        raise UnknownName("workload", name, self.workloads, self._because("workload", name))

    def spec(self, text: str) -> WorkloadSpec:
        """The spec that ``zipf:vmas=1000`` stands for; raises :class:`UnknownName` or ``WorkloadError``."""
        return self.workload(text.partition(":")[0].strip()).spec(text)

    def historic(self) -> dict[str, Historic]:
        """The historic races by number, their strategies resolved; what cannot be used goes to ``problems``."""
        from benchframe.races import Historic
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
        """What the plugins say about this machine or run. A bad answer is added to ``problems`` and left out."""
        texts: dict[str, str] = {}
        for origin, answer in self._answers("benchframe_metadata"):
            good = isinstance(answer, Mapping) and all(isinstance(x, str) for pair in answer.items() for x in pair)
            if not good:
                self._problem(origin, "benchframe_metadata() returned something other than a dict of texts")
                continue
            for key, text in answer.items():
                if texts.setdefault(key, text) != text:
                    self._problem(origin, f"metadata key {key!r} is already set by another plugin", "rename the key")
        return texts

    # --- filling ------------------------------------------------------------------------------------------------

    def add(self, found: Found) -> None:
        """Import one plugin and register it; what is wrong with it goes to ``problems``."""
        module = import_plugin(found)
        if isinstance(module, Problem):
            self.problems.append(module)
            return
        origin = Origin(found.name, str(getattr(module, "__file__", None) or found.where), found.distribution)
        filled = [hook for hook in HOOKS if hasattr(getattr(module, hook, None), f"{PROJECT}_impl")]
        for name in dir(module):
            thing = getattr(module, name, None)
            marked = hasattr(thing, f"{PROJECT}_impl")
            if marked and name not in HOOKS:
                self._problem(origin, f"{name}() is no hook of benchframe", f"the hooks are {', '.join(HOOKS)}")
            elif name in HOOKS and not marked:
                self._problem(origin, f"{name}() is not marked", "write @hookimpl above it (benchframe.api)")
        if not filled:
            self._problem(origin, "it fills no hook", f"define one of {', '.join(HOOKS)} under @hookimpl")
            return
        try:
            self.manager.register(module, name=found.name)
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            self._problem(origin, _line(error))
            return
        self.plugins[found.name] = origin

    def collect(self) -> None:
        """Ask every plugin for its workloads and strategies; names must be new. O(plugins)."""
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
        """``strategy`` with the module, file and docstring of the plugin that gave it, where it says nothing itself."""
        module = self.manager.get_plugin(origin.plugin)
        text = (getattr(module, "__doc__", None) or strategy.summary).strip()
        return replace(
            strategy,
            module=strategy.module or getattr(module, "__name__", ""),
            file=strategy.file or origin.file,
            doc=strategy.doc or text,
        )

    def _resolve(self) -> None:
        from benchframe.strategy import resolve

        given = dict(self.strategies)
        for name, strategy in given.items():
            try:
                self.strategies[name] = resolve(strategy, given)
            except Exception as error:  # a plugin's mistake must not stop the others
                del self.strategies[name]
                self._problem(self.origins.pop(("strategy", name)), f"strategy {name!r}: {_line(error)}")

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
        """Call the plugins one by one, so that an exception has an owner."""
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
        """Why ``name`` is missing, if a broken plugin is the likely reason."""
        for problem in self.problems:
            if problem.plugin == name or f"{kind} {name!r}" in problem.what:
                return f"plugin {problem.plugin} has a problem: {problem.what}"
        return ""


def load(plugin_files: Sequence[Path] = (), blocked: Sequence[str] = ()) -> Registry:
    """Load every plugin but the ``blocked`` ones (by plugin name); bad ones end up in ``Registry.problems``."""
    registry = Registry()
    registry.manager.add_hookspecs(hookspecs)
    installed, problems = find(plugin_files)
    registry.problems += problems
    for name in blocked:
        if name not in {found.name for found in installed}:
            names = [found.name for found in installed]
            mend = did_you_mean(name, names, "see `benchframe list strategies` for plugin names")
            registry.problems.append(Problem(name, "", "no plugin of this name could be left out", mend))
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
