"""All parts of Numba that benchframe uses although Numba does not promise them, in one place, and a check that they
exist.

Numba's public interface compiles a function, optimises it and hands it to its own execution engine. A unit needs less:
the LLVM module as lowered, to be linked, optimised and emitted once. No public interface gives that. After an upgrade
of Numba :func:`broken` names what has changed; ``tests/dialect/test_numba_internals.py`` runs it, and pyproject.toml
bounds the version to the newest that was tested.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding as llvm
from numba.core import cgutils, codegen, compiler_lock
from numba.np import numpy_support

OWNERS: dict[Any, tuple[str, ...]] = {
    codegen.JITCodeLibrary: (
        "_optimize_final_module",
        "_finalize_final_module",
        "_ensure_finalized",
        "get_pointer_to_function",
    ),
    codegen.JITCPUCodegen: ("set_env", "_module_pass_manager"),
    cgutils: ("alloca_once", "alloca_once_value", "get_or_insert_function"),
    compiler_lock: ("global_compiler_lock",),
    numpy_support: ("from_dtype",),
}
"""Attributes of classes and modules."""
LIBRARY, CODEGEN = ("_final_module", "_codegen", "_finalized"), ("_tm",)
"""Attributes of the library of a compiled function, and of its code generator."""


def broken(library: Any) -> list[str]:
    """The names that the installed Numba lacks; ``library`` is the library of any compiled function."""
    wanted = [(owner, owner.__name__, name) for owner, names in OWNERS.items() for name in names]
    wanted += [(library, "library", name) for name in LIBRARY]
    maker = getattr(library, "_codegen", None)
    wanted += [(maker, "library._codegen", name) for name in CODEGEN]
    return [f"{told}.{name}" for owner, told, name in wanted if not hasattr(owner, name)]


@contextmanager
def unoptimised() -> Iterator[None]:
    """Inside this context Numba's libraries keep their IR as lowered: not optimised, not given to Numba's own engine,
    not turned into machine code. The unit is optimised and emitted once, at the end. This saves about half of a cold
    compile."""

    def keep(self: Any) -> None:
        self._finalized = True

    def linked(self: Any, name: str) -> int:
        self._ensure_finalized()
        return 0

    library, cpu = codegen.JITCodeLibrary, codegen.JITCPUCodegen
    stand_ins = [
        (library, "_optimize_final_module", lambda self: None),
        (library, "_finalize_final_module", keep),
        (library, "get_pointer_to_function", linked),
        (cpu, "set_env", lambda self, name, env: None),
    ]
    originals = [getattr(owner, name) for owner, name, _ in stand_ins]
    for owner, name, stand_in in stand_ins:
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(stand_ins, originals, strict=True):
            setattr(owner, name, original)


def module_of(library: Any) -> llvm.ModuleRef:
    """A copy of the module of a function that was compiled :func:`unoptimised`, with all functions it calls."""
    return library._final_module.clone()


@contextmanager
def interruptible() -> Iterator[None]:
    """While this is open, which must be for LLVM's own work alone, SIGINT ends the process at once, as it ends a
    compiler of C: Python would hear it seconds later, when LLVM returns."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def optimise(library: Any, module: llvm.ModuleRef) -> None:
    """Run Numba's own passes over ``module``."""
    manager, builder = library._codegen._module_pass_manager()
    with interruptible():
        manager.run(module, builder)


def emit(library: Any, module: llvm.ModuleRef) -> bytes:
    """``module`` as an object file for this CPU."""
    with interruptible():
        return bytes(library._codegen._tm.emit_object(module))
