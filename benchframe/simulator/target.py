"""The processor for which simulated units are compiled: always the same one, on any host.

The compiler decides how many accesses a text has. A unit for the host's own CPU would give other figures on another
host.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import version

from benchframe.dialect.store import LOWERING
from benchframe.errors import BenchframeError

TARGET = {"x86_64": "x86-64-v2", "aarch64": "generic"}
"""From a machine to LLVM's name of the processor."""


class SimulateError(BenchframeError):
    """Something that cannot be simulated, and why; one line."""


def architecture() -> str:
    """The host's architecture, if units can be simulated on it. Raises SimulateError."""
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if name not in TARGET or not sys.platform.startswith("linux"):
        raise SimulateError(f"benchframe simulates on Linux on x86-64 and arm64; this is {platform.system()} on {name}")
    return name


def toolchain() -> dict[str, str]:
    """Everything besides the sources that decides the code of simulated units; part of every result."""
    return {
        "target": f"{architecture()} {TARGET[architecture()]}",
        "llvmlite": version("llvmlite"),
        "numba": version("numba"),
        "python": "{}.{}".format(*sys.version_info[:2]),
    }


def target_key() -> str:
    """The toolchain as a hash: part of the content keys of compiled code."""
    return hashlib.sha256(repr((LOWERING, sorted(toolchain().items()))).encode()).hexdigest()
