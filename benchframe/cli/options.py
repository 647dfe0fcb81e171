"""What several commands share: options, completion, errors with an exit code, and text that fits the terminal."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from benchframe.errors import ENVIRONMENT, USAGE, BenchframeError, UsageError, address_limit, out_of_memory

if TYPE_CHECKING:
    from benchframe.registry import Registry
    from benchframe.report.table import Table
    from benchframe.results.folder import RunFolder
    from benchframe.results.studies import SavedStudy


# ----------------------------------------------------------------------------------------------------------------------
# What all commands share: errors as one line and an exit code, lists with commas, durations, the registry.

INTERRUPTED, TERMINATED, BROKEN_PIPE = 130, 143, 141
"""Exit codes besides those of benchframe.errors: 128 + the signal. docs/cli.md explains them."""

P = ParamSpec("P")


@dataclass
class Settings:
    """Options given before the subcommand."""

    debug: bool = False
    told: bool = False
    """Not an option: that Ctrl-C has been answered with a line."""


settings = Settings()


class Terminated(BaseException):
    """SIGTERM arrived."""


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """A typer command whose errors end in one line on stderr and the documented exit code.

    The command returns its exit code (None: 0).
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with sigterm():
            raise typer.Exit(outcome(lambda: command(*args, **kwargs)))

    return run


@contextmanager
def sigterm() -> Iterator[None]:
    """Inside this context SIGTERM raises Terminated, so that open files are closed and the run records it."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def outcome(action: Callable[[], int | None]) -> int:
    """The exit code of ``action``; prints an expected error, lets an unexpected one pass through."""
    try:
        return action() or 0
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except Terminated:
        return fail("terminated", TERMINATED)
    except BrokenPipeError:
        # The reader has closed our output: there is nothing left to print, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        code = exit_code(error)
        if code is None or settings.debug:
            raise
        return fail(_line(error), code)


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected error; None for an error that can only be a bug of benchframe."""
    if isinstance(error, BenchframeError):
        return error.exit_code
    return ENVIRONMENT if isinstance(error, OSError) or out_of_memory(error) else None


def _line(error: Exception) -> str:
    if isinstance(error, BenchframeError):
        return error.line
    text = " ".join(str(error).split())
    if out_of_memory(error):
        limit = address_limit()
        hint = f"; the address space is limited to {limit >> 20:,} MiB: raise that limit (ulimit -v)" if limit else ""
        return f"out of memory{f': {text[:200]}' if text else ''}{hint}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text or type(error).__name__


def fail(message: str, code: int) -> int:
    """Print one line on stderr; returns ``code``."""
    settings.told = settings.told or code == INTERRUPTED
    typer.echo(f"benchframe: {message}", err=True)
    return code


def strategy_names(values: Sequence[str] | None, known: Registry) -> list[str]:
    """Names from ``--strategy``: all known names if none is given, or for the single word ``all`` if no strategy has
    that name."""
    names = split(values)
    if values and not names:
        raise UsageError("--strategy is empty; omit it to run every strategy")
    if not names or (names == ["all"] and "all" not in known.strategies):
        return list(known.strategies)
    return names


def run_folder(name: str | None) -> RunFolder | None:
    """The run named by ``--save``; None without the option. Raises ResultsError."""
    from benchframe.results.folder import RunFolder, find_run

    return None if name is None else RunFolder.open(find_run(name))


def keep_study(folder: RunFolder | None, study: SavedStudy) -> None:
    """Store ``study`` with the run, and print where; does nothing without ``--save``."""
    from benchframe.results.studies import write_study

    if folder is not None:
        typer.echo(f"kept: {write_study(folder.path, study)}   (benchframe report {folder.path})", err=True)


def split(values: Sequence[str] | None) -> list[str]:
    """Names from repeated and comma-separated options, each once.

    A piece that only sets a parameter belongs to the workload before it.

    >>> split(["uniform,zipf:vmas=1000,alpha=1.2", "zipf:vmas=50"])
    ['uniform', 'zipf:vmas=1000,alpha=1.2', 'zipf:vmas=50']
    """
    found: list[str] = []
    for value in values or ():
        first = len(found)
        for piece in value.split(","):
            name, equals, _ = piece.partition("=")
            if equals and ":" not in name and len(found) > first:
                found[-1] += f",{piece.strip()}"
            elif piece.strip():
                found.append(piece.strip())
    return list(dict.fromkeys(found))


def seconds(text: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``5m``, ``1h30m``.

    >>> seconds("5m"), seconds("1h30m"), seconds("2.5")
    (300.0, 5400.0, 2.5)
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is not a duration; write 90s, 5m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + rest
    if total <= 0:
        raise UsageError(f"the duration must be positive: {text!r}")
    return total


KernelImage = Annotated[
    Path | None,
    typer.Option("--kernel", metavar="IMAGE", help="Boot this kernel image (a bzImage) in QEMU and run there."),
]
Accel = Annotated[
    str, typer.Option(help="With --kernel: tcg emulates the processor, kvm uses this one.", metavar="tcg|kvm")
]
Cpu = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="With --kernel: the processor, as QEMU's -cpu has it: Haswell, or max,la57=off,pku=off [default: max; "
        "with kvm host].",
    ),
]
"""Options of each command that can run on another kernel (benchframe.guest)."""


def plugin_files(plugins: Sequence[Path] | None = None) -> list[Path]:
    """The files behind ``--plugin`` (a file, or a project's folder) and the remembered plugins, each once.

    An unusable remembered plugin is a warning, an unusable given one an error.
    """
    from benchframe.registry import plugin_files as find

    files, problems = find(plugins or ())
    for problem in problems:
        typer.echo(f"benchframe: warning: {problem}", err=True)
    return files


def registry(plugins: Sequence[Path] | None = None, blocked: Sequence[str] | None = None) -> Registry:
    """Load all plugins; problems are told on stderr, and the plugins without one can be used. A problem of one that was
    given with ``--plugin`` ends the command."""
    return loaded(plugin_files(plugins), blocked, plugins)


def writable_cache() -> None:
    """If the folder of compiled code cannot be written, use a temporary one until this command ends: otherwise every
    worker process would compile everything again."""
    import atexit
    import shutil
    import tempfile

    from benchframe.dialect.store import cache_folder

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        other = tempfile.mkdtemp(prefix="benchframe-")
        atexit.register(shutil.rmtree, other, ignore_errors=True)
        os.environ["BENCHFRAME_CACHE_DIR"] = other
        reason = error.strerror or str(error)
        text = f"{folder} cannot be written ({reason}): compiled code is kept in {other} until this command ends"
        typer.echo(f"benchframe: warning: {text}; set BENCHFRAME_CACHE_DIR to another folder", err=True)


def loaded(
    files: Sequence[Path], blocked: Sequence[str] | None = None, given: Sequence[Path] | None = None
) -> Registry:
    """As :func:`registry`, with what :func:`plugin_files` gave; ``given`` are those of ``--plugin``."""
    from benchframe.registry import expand, load

    writable_cache()
    found = load(files, split(blocked))
    named = {str(file) for path in given or () for file in expand(path)}
    for problem in found.problems:
        typer.echo(f"benchframe: {'' if problem.file in named else 'warning: '}{problem}", err=True)
    if any(problem.file in named for problem in found.problems):
        raise typer.Exit(USAGE)
    for note in found.notes:
        typer.echo(f"benchframe: note: {note}", err=True)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Shell completion of names; it prints no errors, because a shell is waiting.


def _names(kind: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            from benchframe.registry import load, plugin_files

            known = load(plugin_files()[0])
            names: Iterable[str] = known.strategies if kind == "strategy" else known.workloads
        except Exception:  # completion must never print
            return []
        return matching(incomplete, names)

    return complete


def matching(incomplete: str, names: Iterable[str]) -> list[str]:
    """Completions of the last name in a comma-separated list.

    >>> matching("rbtree,pm", ["rbtree", "pmdcache"])
    ['rbtree,pmdcache']
    """
    head, comma, last = incomplete.rpartition(",")
    given = head.split(",")
    return [f"{head}{comma}{name}" for name in sorted(names) if name.startswith(last) and name not in given]


strategies = _names("strategy")
workloads = _names("workload")


def anything(incomplete: str) -> list[str]:
    """Names of strategies and workloads."""
    return strategies(incomplete) + workloads(incomplete)


def runs(incomplete: str) -> list[str]:
    """Names of runs below reports/runs, the newest first."""
    try:
        from benchframe.results.folder import list_runs

        return [name for name in ["last", *(p.name for p in reversed(list_runs()))] if name.startswith(incomplete)]
    except Exception:  # completion must never print
        return []


PLAIN_WIDTH = 100
"""Columns of a list that goes to a file or a pipe."""
ROOM, INDENT = 30, 4
"""Fewest columns of the text beside a list's other columns; what it is indented by, if it has fewer."""


def width() -> int:
    """The columns of the terminal behind stdout; 0 if it is none: a table in a file or a pipe keeps all columns."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def colour() -> bool:
    """Whether stdout shows colours: it is a terminal, not a dumb one, and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shown(table: Table, form: str) -> str:
    """``table`` in a format of :data:`~benchframe.report.table.FORMATS`; as text it fits the terminal. Raises KeyError
    if there is no such format."""
    from benchframe.report.table import render, to_text

    return to_text(table, width(), colour()) if form == "text" else render(table, form)


def print_list(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; the last one is wrapped, and may have lines of its own; where it has no room it stands below
    the others. Nothing is left out."""
    if not rows:
        typer.echo(f"no {heads[0]} found", err=True)
        return
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads) - 1)]
    indent, whole = sum(widths) + 2 * len(widths), width() or PLAIN_WIDTH
    beside = whole - indent >= ROOM
    indent = indent if beside else INDENT
    room = max(whole - indent, ROOM)
    for row in [heads, *rows]:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        parts = [line for text in row[-1].split("\n") for line in wrap(text, room, break_on_hyphens=False)]
        first, *rest = parts if parts and beside else ["", *parts]
        typer.echo("  ".join([*cells, first]).rstrip())
        for line in rest:
            typer.echo(" " * indent + line)
