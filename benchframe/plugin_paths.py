"""Which plugin files a command loads besides the installed ones: those given with ``--plugin``, and those remembered.

Code is loaded only because the user named it. ``--plugin`` takes a Python file or the folder of a project whose
``pyproject.toml`` has entry points of the group ``benchframe``. ``benchframe new`` and ``benchframe plugin add`` write
such a path to a list in the user's own configuration folder; nothing is ever looked for in the current folder. A list,
or a file named in it, that somebody else could have written is refused (as ssh does with its configuration).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchframe.errors import BenchframeError
from benchframe.files import replacing
from benchframe.hookspecs import PROJECT

LIST = "plugins.txt"
"""The remembered paths, one a line, absolute; ``#`` begins a comment."""
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
    """The Python files that ``path`` stands for, absolute: itself, or a project's entry-point modules.

    Raises :class:`PluginPathError`: no such file, a folder without ``pyproject.toml``, a project without entry points,
    or an entry point whose module lies neither in ``src/`` nor beside ``pyproject.toml``.
    """
    path = path.absolute()
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise PluginPathError(f"plugin file {path} does not exist; give the path of a Python file or project folder")
    points = _entry_points(path / "pyproject.toml")
    return [_module_file(path, module.partition(":")[0].strip()) for module in points.values()]


def _entry_points(project: Path) -> dict[str, str]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    if not project.is_file():
        raise PluginPathError(f"{project.parent} has no pyproject.toml; name the plugin's Python file itself")
    try:
        data: Any = tomllib.loads(project.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginPathError(f"{project}: {error}; correct it") from None
    points = data.get("project", {}) if isinstance(data, dict) else {}
    for key in ("entry-points", PROJECT):
        points = points.get(key, {}) if isinstance(points, dict) else {}
    if not isinstance(points, dict) or not points or not all(isinstance(p, str) for p in points.values()):
        raise PluginPathError(f"{project} has no [project.entry-points.{PROJECT}]; add it, or name the Python file")
    return points


def _module_file(folder: Path, module: str) -> Path:
    """Where a project keeps ``module``; a name is split at dots and never leaves the folder."""
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise PluginPathError(f"{folder / 'pyproject.toml'}: {module!r} is no module's name; correct the entry point")
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
    """Why ``path`` is not to be trusted; empty if only the user (or root) can have written it."""
    info = path.stat()
    if hasattr(os, "geteuid") and info.st_uid not in (0, os.geteuid()):
        return "it belongs to another user"
    if info.st_mode & stat.S_IWOTH:
        return "anybody can write it"
    return ""


def listed() -> list[Path]:
    """The remembered paths as they stand in the list, in order; PluginPathError if the list is not the user's own."""
    path = config_folder() / LIST
    try:
        wrong = _ours(path)
        if wrong or path.stat().st_size > _MAX:
            raise PluginPathError(f"{path} is not used: {wrong or 'it is far too long'}; remove it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise PluginPathError(f"{path} cannot be read ({error}); remove it") from None
    return [Path(line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def remember(path: Path) -> bool:
    """Put ``path`` on the list; False if it was there. Raises PluginPathError as :func:`expand` does, OSError."""
    path = path.absolute()
    expand(path)
    paths = listed()
    if path in paths:
        return False
    _write([*paths, path])
    return True


def forget(name: str) -> list[Path]:
    """Take every path off the list that is ``name`` or ends in it; those taken off."""
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
    """Every file to load, those ``given`` last, each once; and what is wrong with remembered ones, a line each.

    Raises PluginPathError for a given path that cannot be used.
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
