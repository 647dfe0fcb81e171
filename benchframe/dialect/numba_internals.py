"""All parts of Numba that benchframe uses although Numba does not promise them, in one place, and a check that they
exist.

Numba's public interface compiles a function, optimises it and hands it to its own execution engine. A unit needs less:
the LLVM modules as lowered, to be linked, optimised and emitted once. No public interface gives that. After an upgrade
of Numba :func:`broken` names what has changed; ``tests/dialect/test_numba_internals.py`` runs it, and pyproject.toml
bounds the version to the newest that was tested.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding as llvm
from numba.core import cgutils, codegen, compiler, compiler_lock, typed_passes, types, untyped_passes
from numba.core.compiler_machinery import PassManager
from numba.core.types import functions
from numba.np import numpy_support

OWNERS: dict[Any, tuple[str, ...]] = {
    codegen.JITCodeLibrary: ("finalize", "add_linking_library", "get_pointer_to_function"),
    codegen.JITCPUCodegen: ("set_env", "_module_pass_manager"),
    cgutils: ("alloca_once", "alloca_once_value", "get_or_insert_function"),
    compiler_lock: ("global_compiler_lock",),
    numpy_support: ("from_dtype",),
    functions.BaseFunction: ("get_call_type",),
}
"""Attributes of classes and modules."""
LIBRARY, CODEGEN = ("_final_module", "_linking_libraries", "_codegen", "_finalized"), ("_tm",)
"""Attributes of the library of a compiled function, and of its code generator."""


def broken(library: Any) -> list[str]:
    """The names that the installed Numba lacks; ``library`` is the library of any compiled function."""
    wanted = [(owner, owner.__name__, name) for owner, names in OWNERS.items() for name in names]
    wanted += [(library, "library", name) for name in LIBRARY]
    maker = getattr(library, "_codegen", None)
    wanted += [(maker, "library._codegen", name) for name in CODEGEN]
    return [f"{told}.{name}" for owner, told, name in wanted if not hasattr(owner, name)]


_typed: dict[tuple[Any, tuple[Any, ...]], tuple[Any, Any]] = {}
"""From an operator or a builtin and the types of its operands to its signature and the key of its implementation."""


@contextmanager
def unoptimised() -> Iterator[None]:
    """Inside this context Numba's libraries keep their IR as lowered: not linked with what they call, not optimised,
    not given to Numba's own engine, not turned into machine code. The unit is linked, optimised and emitted once, at
    the end. What an operator gives for operands of some types is found once in a process."""
    resolve = functions.BaseFunction.get_call_type

    def keep(self: Any) -> None:
        self._finalized = True

    def refer(self: Any, library: Any) -> None:
        self._linking_libraries.append(library)

    def get_call_type(self: Any, context: Any, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        # Numba asks some thirty templates, those of all ufuncs of NumPy among them, at each `a + b` and each `if`.
        if kws or getattr(self.typing_key, "__module__", None) not in ("_operator", "builtins"):
            return resolve(self, context, args, kws)
        if (self, args) not in _typed:
            found: Any = resolve(self, context, args, kws)
            _typed[self, args] = found, self._impl_keys[found.args]
        signature, key = _typed[self, args]
        self._impl_keys[signature.args] = key
        return signature

    library, cpu = codegen.JITCodeLibrary, codegen.JITCPUCodegen
    stand_ins: list[tuple[Any, str, Any]] = [
        (library, "finalize", keep),
        (library, "add_linking_library", refer),
        (library, "get_pointer_to_function", lambda self, name: 0),
        (cpu, "set_env", lambda self, name, env: None),
        (functions.BaseFunction, "get_call_type", get_call_type),
    ]
    originals = [(owner, name, vars(owner).get(name)) for owner, name, _ in stand_ins]
    for owner, name, stand_in in stand_ins:
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for owner, name, original in originals:
            if original is None:  # inherited
                delattr(owner, name)
            else:
                setattr(owner, name, original)


class Pipeline(compiler.CompilerBase):  # type: ignore[misc, unused-ignore]
    """The passes that the dialect needs, in Numba's order: it has no closures, arrays, exceptions or ``with``.

    The dozen passes that look for those take a seventh of a compile.
    """

    PASSES: tuple[Any, ...] = (
        untyped_passes.TranslateByteCode,
        untyped_passes.FixupArgs,
        untyped_passes.IRProcessing,
        untyped_passes.ReconstructSSA,
        typed_passes.NopythonTypeInference,
        typed_passes.PreLowerStripPhis,
        typed_passes.IRLegalization,
        typed_passes.AnnotateTypes,
        typed_passes.NativeLowering,
        typed_passes.NoPythonBackend,
    )

    def define_pipelines(self) -> list[Any]:
        """One pipeline."""
        manager: Any = PassManager("benchframe")  # type: ignore[no-untyped-call, unused-ignore]
        for one in self.PASSES:
            manager.add_pass(one, one.name())
        manager.finalize()
        return [manager]


def integers_as_int64(dispatcher: Any) -> Any:
    """``dispatcher``, whose callers pass every integer and truth value as int64: the code is made once.

    By itself Numba makes it again for each constant that some caller passes, for each narrower integer, for a truth
    value: a quarter of the functions of a unit, typed and lowered several times. Returns ``dispatcher``.
    """
    resolve = dispatcher.get_call_template
    integer = (types.Integer, types.Boolean, types.IntegerLiteral, types.BooleanLiteral)

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return resolve(tuple(types.int64 if isinstance(kind, integer) else kind for kind in args), kws)

    dispatcher.get_call_template = get_call_template
    return dispatcher


def module_of(library: Any) -> llvm.ModuleRef:
    """A new module: the function that was compiled :func:`unoptimised`, with all functions it calls. O(their number).

    The callees are ``linkonce_odr``, so that modules which share some can be linked.
    """
    module, linked, waiting = library._final_module.clone(), {library}, list(library._linking_libraries)
    own = {function.name for function in module.functions if not function.is_declaration}
    while waiting:
        callee = waiting.pop()
        if callee not in linked:
            linked.add(callee)
            module.link_in(callee._final_module, preserve=True)
            waiting += callee._linking_libraries
    for function in module.functions:
        if not function.is_declaration and function.name not in own and function.linkage == llvm.Linkage.external:
            function.linkage = "linkonce_odr"
    return module


@contextmanager
def interruptible() -> Iterator[None]:
    """While this is open, which must be for LLVM's own work alone, SIGINT ends the process at once with a line and exit
    code 130, as it ends a compiler of C: Python would hear it seconds later, when LLVM returns."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_sigint, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _end_at_sigint(reader: int) -> None:
    """A thread that reads the numbers of arriving signals until the pipe's other side is closed. LLVM holds no lock of
    Python's, so this thread runs while the main thread is inside it."""
    with open(reader, "rb", buffering=0) as signals:
        while numbers := signals.read(64):
            if signal.SIGINT in numbers:
                shown = "\x1b[?25h\r\x1b[K" if sys.stderr.isatty() else ""  # a progress bar may have hidden the cursor
                os.write(2, f"{shown}benchframe: interrupted while compiling; what was compiled is kept\n".encode())
                os._exit(130)


def optimise(library: Any, module: llvm.ModuleRef) -> None:
    """Run Numba's own passes over ``module``."""
    manager, builder = library._codegen._module_pass_manager()
    with interruptible():
        manager.run(module, builder)


def emit(library: Any, module: llvm.ModuleRef) -> bytes:
    """``module`` as an object file for this CPU."""
    with interruptible():
        return bytes(library._codegen._tm.emit_object(module))
