"""What the oracle answers for a stream, kept on disk under the stream's content, so that it is asked once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.store import cache_folder
from benchframe.mm.machine import Parameters
from benchframe.mm.oracle import Limits, replay

Array = npt.NDArray[Any]
KEEP = 64
"""Answer files kept; the least recently used go first."""


def limits(parameters: Parameters) -> Limits:
    """The oracle's limits for the model's parameters."""
    p = parameters
    return Limits(
        task_size=p.task_size,
        mmap_base=p.mmap_base,
        mmap_min_addr=p.mmap_min_addr,
        max_map_count=p.max_map_count,
        stack_guard_gap=p.stack_guard_gap,
        rlimit_stack=p.stack_limit,
    )


def expected(events: Array, parameters: Parameters) -> Array:
    """int64 array (3, events): ret, vm_start, vm_end that the oracle gives. Cached; the cache only ever saves time."""
    folder = cache_folder() / "answers"
    path = folder / f"{_key(events, parameters)}.npy"
    try:
        found: Array = np.load(path, allow_pickle=False)
        if found.shape == (3, len(events)) and found.dtype == np.int64:
            os.utime(path)
            return found
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass
    answers = replay(events, limits=limits(parameters))
    table = np.stack([answers.ret, answers.vm_start, answers.vm_end])
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=".answers-", suffix=".npy", dir=folder)
        with os.fdopen(handle, "wb") as file:
            np.save(file, table)
        Path(temporary).replace(path)
        for old in sorted(folder.glob("*.npy"), key=lambda p: p.stat().st_mtime)[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError:
        pass  # a full or read-only disk costs the next process the oracle's time, nothing else
    return table


def _key(events: Array, parameters: Parameters) -> str:
    """Content of the stream, the limits, and of the oracle itself."""
    digest = hashlib.sha256(np.ascontiguousarray(events).view(np.uint8).data)
    digest.update(repr(parameters).encode())
    for source in sorted((Path(__file__).parent.parent / "mm" / "oracle").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:40]
