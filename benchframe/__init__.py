"""benchframe: benchmark and judge VMA-lookup strategies on a faithful model of Linux's mm."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchframe.results.frame import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """``benchframe.load`` is imported when it is first used: ``import benchframe`` costs nothing."""
    if name == "load":
        from benchframe.results.frame import load

        return load
    raise AttributeError(f"module 'benchframe' has no attribute {name!r}")
