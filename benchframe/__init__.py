"""benchframe: benchmark and judge VMA-lookup strategies on a faithful model of Linux's mm.

In Python: :func:`run` and :func:`simulate` do what the commands of these names do, :func:`load` reads runs as data
frames.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchframe.python import Run as Run
    from benchframe.python import load as load
    from benchframe.python import run as run
    from benchframe.python import simulate as simulate

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load", "run", "simulate"]


def __getattr__(name: str) -> object:
    """Functions are imported when they are first used: ``import benchframe`` costs nothing."""
    if name in ("Run", "load", "run", "simulate"):
        from benchframe import python

        return getattr(python, name)
    raise AttributeError(f"module 'benchframe' has no attribute {name!r}")
