"""The one error that a bad results folder, or a disk that refuses, ends in."""

from __future__ import annotations

import errno
from pathlib import Path


class ResultsError(Exception):
    """Where, what was wrong, and what to do; ``str()`` is one line for a user's eyes.

    ``environment`` is True if the machine, not the input, is at fault (disk full, no permission).

    >>> print(ResultsError("runs/x", "it has no manifest", "name a folder that `benchframe run` made"))
    runs/x: it has no manifest; name a folder that `benchframe run` made
    """

    def __init__(self, where: str | Path, what: str, mend: str, *, environment: bool = False) -> None:
        super().__init__(str(where), what, mend)
        self.where = str(where)
        self.what = what
        self.mend = mend
        self.environment = environment

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}; {self.mend}".split())


def disk_error(where: str | Path, error: OSError, action: str) -> ResultsError:
    """The ResultsError for an OSError during ``action`` ("written", "read")."""
    reason = error.strerror or str(error)
    short = error.errno is None and "requested and" in reason  # NumPy says only how much it could write
    if short or error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "free space, then run the command again (a run goes on with --resume)"
        reason = f"the disk is full: {reason}" if short else reason
    elif error.errno == errno.EFBIG:
        mend = "raise the limit of file sizes (ulimit -f), then continue with --resume"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        mend = "check the permissions, or choose another folder with -o"
    else:
        mend = "check the path"
    return ResultsError(where, f"cannot be {action} ({reason})", mend, environment=action == "written")
