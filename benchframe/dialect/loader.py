"""Maps a unit's object file into the process and gives its entry point; needs llvmlite only, not numba."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

_engines: list[Any] = []
_machine: Any = None


def _engine() -> Any:
    """A fresh MCJIT engine: one per object, so that equal symbols never meet."""
    global _machine
    from llvmlite import binding as llvm

    if _machine is None:
        with contextlib.suppress(RuntimeError):
            llvm.initialize()  # needed up to llvmlite 0.44, an error after it
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _machine = llvm.Target.from_default_triple()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine.create_target_machine())


class Unit:
    """A compiled entry function: call it with integers; ``address`` is its C address.

    Calls release the GIL. The first argument is the address of an ``mm_struct``.
    """

    def __init__(self, name: str, obj: bytes, arity: int) -> None:
        from llvmlite import binding as llvm

        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(obj))
        engine.finalize_object()
        _engines.append(engine)  # code must outlive every address handed out
        self.name = name
        self.address: int = engine.get_function_address("entry")
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arity)
        self._call: Callable[..., int] = kind(self.address)

    def __call__(self, *args: int) -> int:
        return self._call(*args)


class Library:
    """An object file with several C symbols, mapped into the process for good."""

    def __init__(self, obj: bytes) -> None:
        from llvmlite import binding as llvm

        self._engine = _engine()
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(obj))
        self._engine.finalize_object()
        _engines.append(self._engine)

    def address(self, symbol: str) -> int:
        """Where ``symbol`` lies; 0 if the file has none of that name."""
        return int(self._engine.get_function_address(symbol))


def add_symbol(name: str, address: int) -> None:
    """Object files that are mapped from now on may refer to ``name``."""
    from llvmlite import binding as llvm

    _engine()
    llvm.add_symbol(name, address)
