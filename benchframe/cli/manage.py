"""Commands for authors and their folders: ``benchframe new``, ``plugin``, ``header`` and ``cache``."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from benchframe.cli import options
from benchframe.cli.options import guarded, registry
from benchframe.errors import BenchframeError, UsageError, did_you_mean
from benchframe.linux import SourceTree


@guarded
def new(
    name: Annotated[str, typer.Argument(help="Name of the strategy or workload, and of its folder.")],
    kind: Annotated[str, typer.Option("--kind", "-k", help="cache, index, protocol or workload.")] = "cache",
    language: Annotated[
        str, typer.Option("--lang", help="python, or c: a cache whose hot path is C, with its twin.")
    ] = "python",
    from_linux: Annotated[
        Path | None,
        typer.Option("--from-linux", metavar="DIR", help="An index that is a file of this kernel source tree itself."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of --from-linux: lib/maple_tree.c (default) or lib/rbtree.c."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Parent of the new folder.")] = Path(),
    remember: Annotated[bool, typer.Option(help="Let every command load it from there, without installing it.")] = True,
) -> None:
    """Make an installable package with a working strategy or workload, its tests and a README.

    It is added to your list of plugins (`benchframe plugin list`), so that check and run can use it at once; with
    --no-remember it must be installed, or named with --plugin. Nothing is overwritten.

    With --from-linux the strategy's text stays in the source tree: edit it there, and every run compiles it again
    (docs/c-strategies.md).

    Exit codes: 0, 2 (a bad name, or the folder exists already), 3 (the disk, no source tree).

    \b
    Examples:
      benchframe new mine && benchframe check --strategy mine && benchframe run --quick --strategy mine
      benchframe new my-tree --kind index -o ~/src
      benchframe new fast --lang c
      benchframe new patched --from-linux ~/linux && benchframe run --quick -s patched,maple -w mmap-churn
      benchframe new my-load --kind workload --no-remember
    """
    from benchframe.linux import one_tree
    from benchframe.registry import PluginPathError
    from benchframe.registry import remember as keep

    if file is not None and from_linux is None:
        raise UsageError("--file names a file of the source tree that --from-linux names; add that")
    if from_linux is not None and (kind != "cache" or language != "python"):
        raise UsageError("--from-linux makes an index in C; leave --kind and --lang out")
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r}; {did_you_mean(kind, KINDS)}")
    known = registry()
    if name in known.strategies or name in known.workloads:
        raise UsageError(f"{name!r} is already the name of a strategy or workload; choose another name")
    tree = one_tree(from_linux) if from_linux is not None else None
    project = make(name, kind, output, language, tree, file or MAPLE)
    refused = ""
    if remember:  # before anything is printed: the reader of the output may close it
        try:
            keep(project.folder)
        except (PluginPathError, OSError) as error:
            refused = str(error)
    edited = project.source.relative_to(project.folder) if tree is None else tree.path / (file or MAPLE)
    typer.echo(f"made {project.folder}: edit {edited}, then")
    extra = "" if remember else f" --plugin {_shown(project.folder)}"
    if kind == "workload":
        typer.echo(f"  benchframe run --quick --workload {name} --strategy mmap_cache{extra}")
    else:
        typer.echo(f"  benchframe check --strategy {name}{extra}")
        typer.echo(f"  benchframe run --quick --strategy {name}{extra}")
    typer.echo(f"  python -m pytest {_shown(project.folder)}")
    if refused:
        typer.echo(f"benchframe: warning: it cannot be remembered: {refused}; use --plugin {project.folder}", err=True)
    elif remember:
        typer.echo(f"every command loads it from there, until `benchframe plugin remove {name}`")


def _shown(path: Path) -> str:
    """The path as the user would type it here."""
    import shlex

    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


plugin_app = typer.Typer(
    help="List, add or remove the plugins that every command loads from their folders.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@plugin_app.command("list")
@guarded
def list_() -> None:
    """List the remembered paths, and where the list is stored.

    Exit codes: 0 always.

    \b
    Example:
      benchframe plugin list
    """
    from benchframe.registry import LIST, config_folder, listed

    typer.echo(f"list  {config_folder() / LIST}")
    for path in listed():
        typer.echo(path)


@plugin_app.command("add")
@guarded
def add(path: Annotated[Path, typer.Argument(help="A Python file, or a project's folder.")]) -> None:
    """Remember a plugin: from now on every command loads it. Its code is executed: add only what you trust.

    Exit codes: 0, 2 (there is no plugin at this path), 3 (the disk).

    \b
    Examples:
      benchframe plugin add mine.py
      benchframe plugin add ../my-strategy
    """
    from benchframe.registry import remember

    typer.echo(f"{path.absolute()} is loaded from now on" if remember(path) else f"{path.absolute()} was on the list")


@plugin_app.command("remove")
@guarded
def remove(name: Annotated[str, typer.Argument(help="The path, or its last part.")]) -> None:
    """Forget a plugin; its files stay.

    Exit codes: 0, 2 (it is not remembered), 3 (the disk).

    \b
    Example:
      benchframe plugin remove my-strategy
    """
    from benchframe.registry import forget, listed

    gone = forget(name)
    if not gone:
        known = ", ".join(str(path) for path in listed()) or "nothing is"
        raise UsageError(f"there is no remembered plugin {name!r}; remembered: {known}")
    for path in gone:
        typer.echo(f"{path} is not loaded any more")


@guarded
def header(
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", "-s", help="Include the private slabs of this strategy.", autocompletion=options.strategies
        ),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Load a plugin from this file.")] = None,
) -> None:
    """Print benchframe.h: the records that C code of a strategy sees, with every offset asserted.

    C files of a strategy get it without including it; this copy is for reading, and for an editor.

    Exit codes: 0, 3 (the disk).

    \b
    Examples:
      benchframe header > benchframe.h
      benchframe header --strategy mine --plugin mine.py
    """
    from benchframe.cstrategy import header as text

    slabs = registry(plugin).strategy(strategy).slabs if strategy else ()
    typer.echo(text(slabs), nl=False)


cache_app = typer.Typer(
    help="Compiled code and the oracle's answers: where they are, how large, and how to remove them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ANSWERS = "answers"
"""The folder of the oracle's answers, below the cache folder (benchframe.verify)."""
COUNTS = "counts"
"""That of counted replays (benchframe.engine.cost)."""


@cache_app.command("info")
@guarded
def info() -> None:
    """Print the cache folder, and how many compiled units, lowered functions, answers and counted replays it holds.

    Exit codes: 0 always.

    \b
    Example:
      benchframe cache info
    """
    from benchframe.dialect.store import cache_folder

    typer.echo(f"folder     {cache_folder()}")
    for name, folder in _folders().items():
        sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
        typer.echo(f"{name:<9}  {len(sizes)} files, {sum(sizes):,} bytes")


@cache_app.command("clear")
@guarded
def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove all compiled code, answers and counts; the next run makes them again.

    Exit codes: 0, 3 (the disk).

    \b
    Example:
      benchframe cache clear --yes
    """
    from benchframe.dialect.store import cache_folder
    from benchframe.dialect.store import clear as cleared

    if not yes and not typer.confirm(f"Remove compiled code and answers from {cache_folder()}?"):
        return 1
    files, size = map(sum, zip(*map(cleared, _folders().values()), strict=True))
    typer.echo(f"removed {files} files, {size:,} bytes")
    return 0


KINDS = ("cache", "index", "protocol", "workload")
"""What a new plugin can be; each has a template of its own."""
LANGUAGES = ("python", "c")
"""What its hot path can be written in."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 40
_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
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
    benchframe.cli.manage.ScaffoldError: '../x' cannot be a plugin's name; take small letters, digits, - and _
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
        copies = linux.version >= (6, 8)  # fd32e4e9b764
        fork = "__mt_dup, and each VMA into its slot" if copies else "mas_expected_entries, mas_store, mas_destroy"
        words |= {"copies": str(int(copies)), "fork": fork}
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


def _folders() -> dict[str, Path]:
    """What the cache holds, and where: machine code, functions on the way to it, the oracle's answers."""
    from benchframe.dialect.store import Functions, Store, cache_folder

    kept = {name: cache_folder() / name for name in (ANSWERS, COUNTS)}
    return {"code": Store().folder, "functions": Functions().folder, **kept}
