"""The hooks that a plugin may implement: four plain functions, each returning what the plugin provides.

A plugin is a module. It marks its hook functions with :data:`hookimpl` (``from benchframe.api import hookimpl``).
benchframe finds it through an entry point of the group ``benchframe``, or because the user names it with ``--plugin
FILE``. docs/plugins.md explains plugins; :mod:`benchframe.registry` loads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from benchframe.scenario import Historic
    from benchframe.strategy import Strategy
    from benchframe.workload import Workload

PROJECT = "benchframe"
"""The name of the plugin system and of the entry point group."""


class Moved(DeprecationWarning):
    """A plugin imports a name from the place where an earlier version had it. The registry collects these:
    ``Registry.notes``."""


hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def benchframe_strategies() -> list[Strategy]:  # type: ignore[empty-body]  # a specification has no body
    """The lookup strategies of this plugin. Called once, right after loading; must not compile anything."""


@hookspec
def benchframe_workloads() -> list[Workload]:  # type: ignore[empty-body]
    """The workloads of this plugin. Called once, right after loading; must not make any stream yet."""


@hookspec
def benchframe_metadata() -> dict[str, str]:  # type: ignore[empty-body]
    """Keys and texts to store with every result, such as a firmware version. Called once per run."""


@hookspec
def benchframe_historic() -> list[Historic]:  # type: ignore[empty-body]
    """Historic races, reintroduced: `benchframe check --historic` shows them. Called when they are needed."""


HOOKS = ("benchframe_strategies", "benchframe_workloads", "benchframe_metadata", "benchframe_historic")
"""The names of all hooks; each begins with the project's name."""
