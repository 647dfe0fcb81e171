"""The errors that a user can act on: what is wrong, where, what to do about it, and the exit code of the command.

Every exception that benchframe raises for bad input, or because the machine refuses something, is a
:class:`BenchframeError`; a command prints it as one line. Any other exception is a bug in benchframe and ends in a
traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

FAILED, USAGE, ENVIRONMENT = 1, 2, 3
"""Exit codes: the answer is no; bad input or usage; the machine refused. docs/cli.md explains all of them."""


class BenchframeError(Exception):
    """An error to show to the user; ``str()`` is one line: ``where: what; hint``.

    ``where`` is the file, option or plugin, ``hint`` what to do; either may be part of ``what`` and then is empty.
    ``exit_code`` is that of a command which ends in this error.

    >>> print(BenchframeError("the file is empty", where="a.parquet", hint="record it again"))
    a.parquet: the file is empty; record it again
    """

    exit_code = USAGE

    def __init__(self, what: object = "", *, where: str | Path = "", hint: str = "") -> None:
        super().__init__(what)
        self.where, self.what, self.hint = str(where), str(what), hint

    def __str__(self) -> str:
        told = f"{self.where}: {self.what}" if self.where else self.what
        return f"{told}; {self.hint}" if self.hint else told

    @property
    def line(self) -> str:
        """The line that a command prints; never empty."""
        return " ".join(str(self).split()) or type(self).__name__


class UsageError(BenchframeError):
    """An option or argument that cannot be used."""


class EngineError(BenchframeError):
    """An engine cannot run this strategy on this trace; one line says why."""


class FileError(BenchframeError):
    """A file or folder that cannot be read, written or trusted."""

    def __init__(self, where: str | Path, what: str, hint: str, *, exit_code: int = USAGE) -> None:
        super().__init__(" ".join(what.split()), where=where, hint=" ".join(hint.split()))
        self.args = (str(where), what, hint)  # the arguments with which pickle recreates it
        self.exit_code = exit_code


class TraceError(FileError):
    """A trace that cannot be read, written or trusted."""


class ResultsError(FileError):
    """A run, a bundle or a study that cannot be read, written or trusted.

    >>> print(ResultsError("runs/x", "it has no manifest", "name a folder that `benchframe run` made"))
    runs/x: it has no manifest; name a folder that `benchframe run` made
    """


def disk_error(where: str | Path, error: OSError, action: str) -> ResultsError:
    """The ResultsError for an OSError during ``action`` ("written", "read")."""
    reason = error.strerror or str(error)
    short = error.errno is None and "requested and" in reason  # NumPy says only how much it could write
    if short or error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free space, then run the command again (a run goes on with --resume)"
        reason = f"the disk is full: {reason}" if short else reason
    elif error.errno == errno.EFBIG:
        hint = "raise the limit of file sizes (ulimit -f), then continue with --resume"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "check the permissions, or choose another folder with -o"
    else:
        hint = "check the path"
    code = ENVIRONMENT if action == "written" else USAGE
    return ResultsError(where, f"cannot be {action} ({reason})", hint, exit_code=code)


NO_ROOM = (
    "failed to map segment",
    "Could not find/load shared object",
    "malloc of size",
    "Failed to launch worker thread",
    "can't start new thread",
)
"""What the loader, LLVM's binding, Arrow and Python say when the address space is full."""


def address_limit() -> int:
    """How large this process's address space may be, in bytes (``ulimit -v``); 0 if there is no limit."""
    try:
        import resource
    except ImportError:  # not on this system
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


def out_of_memory(error: BaseException) -> bool:
    """Is memory what was missing? Libraries say so in words of their own, which count only under a limit.

    >>> out_of_memory(MemoryError()), out_of_memory(ImportError("no module of that name"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    return address_limit() > 0 and any(words in str(error) for words in NO_ROOM)


def near(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name closest to a misspelt one; None if there is none.

    >>> near("hit_rat", ["hit_rate", "vmas"]), near("x", ["hit_rate", "vmas"])
    ('hit_rate', None)
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "there are {}", cutoff: float = 0.6) -> str:
    """The hint of an error about a name that does not exist: the nearest known name, or ``otherwise`` with all of them.

    >>> did_you_mean("hit_rat", ["hit_rate", "vmas"]), did_you_mean("x", ["hit_rate", "vmas"])
    ('did you mean hit_rate?', 'there are hit_rate, vmas')
    """
    known = list(known)
    nearest = near(name, known, cutoff)
    return f"did you mean {nearest}?" if nearest else otherwise.format(", ".join(known))
