"""The one error that a bad trace ends in."""

from pathlib import Path


class TraceError(Exception):
    """A trace that cannot be read, written or trusted: where, what was wrong, and what to do about it.

    ``str()`` is one line, fit for a user's eyes.

    >>> print(TraceError("a.parquet", "the file is empty", "record it again"))
    a.parquet: the file is empty; record it again
    """

    def __init__(self, path: str | Path, what: str, mend: str) -> None:
        super().__init__(str(path), what, mend)
        self.path = Path(path)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return " ".join(f"{self.path}: {self.what}; {self.mend}".split())
