"""What a result depends on, as hashes: the strategy's source and all it calls, the model's and engine's source."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.dialect.function import Identities

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

_MODEL = ("dialect", "mm", "engine")
"""Parts of the package whose every change may change a figure."""


def strategy_digest(strategy: Strategy) -> str:
    """sha256 (hex) over the identities of all functions that fill a hook in ``strategy``, and its own memory.

    An identity covers what the function calls, transitively; comments and docstrings do not count. O(size of the
    strategy's call graph), a few ms.
    """
    identities = Identities(strategy.binding)
    digest = hashlib.sha256(b"benchframe strategy 1\n")
    for name in sorted(strategy.binding):
        digest.update(f"{name}={identities.of(strategy.binding[name])}\n".encode())
    for slab in strategy.slabs:
        digest.update(f"{slab.name} {slab.number} {slab.per_vma} {slab.fixed} {slab.layout}\n".encode())
    return digest.hexdigest()


@cache
def model_digest() -> str:
    """sha256 (hex) over the source of the model, the dialect and the engine: a result of another model is stale.

    The oracle is left out: it decides whether a cell is timed, not what the time is.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(b"benchframe model 1\n")
    for part in _MODEL:
        for path in sorted((root / part).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
