"""All parts of Numba that benchframe uses although Numba does not promise them, in one place, and a check that they
exist.

Numba's public interface compiles a function, optimises it and hands it to its own execution engine. A unit needs less:
the LLVM modules as lowered, to be linked, optimised and emitted once. No public interface gives that. After an upgrade
of Numba :func:`broken` names what has changed; ``tests/dialect/test_numba_internals.py`` runs it, and pyproject.toml
bounds the version to the newest that was tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llvmlite import binding as llvm
from numba.core import (
    base,
    bytecode,
    cgutils,
    codegen,
    compiler,
    compiler_lock,
    funcdesc,
    typed_passes,
    types,
    untyped_passes,
)
from numba.core.compiler_machinery import PassManager
from numba.core.types import functions
from numba.core.typing import templates
from numba.np import numpy_support

from benchframe.dialect.store import Functions

OWNERS: dict[Any, tuple[str, ...]] = {
    codegen.JITCodeLibrary: ("finalize", "add_linking_library", "get_pointer_to_function", "_optimize_functions"),
    codegen.JITCPUCodegen: ("set_env", "_module_pass_manager"),
    cgutils: ("alloca_once", "alloca_once_value", "get_or_insert_function"),
    compiler_lock: ("global_compiler_lock",),
    numpy_support: ("from_dtype",),
    functions.BaseFunction: ("get_call_type",),
    bytecode.FunctionIdentity: ("from_function",),
    types.Record: ("mangling_args",),
    funcdesc: ("ExternalFunctionDescriptor",),
    base.BaseContext: ("insert_user_function",),
}
"""Attributes of classes and modules."""
LIBRARY, CODEGEN = ("_final_module", "_linking_libraries", "_codegen", "_finalized"), ("_tm", "_data_layout")
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
        if library.name != "nrt":  # Numba's reference counting: the dialect has nothing to count
            self._linking_libraries.append(library)

    def leave(self: Any, module: Any) -> None:
        # Numba runs LLVM's passes over each function as well: a sixth of a compile, done again by those over the unit.
        module.data_layout = self._codegen._data_layout

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

    identify: Any = bytecode.FunctionIdentity.from_function

    def from_function(cls: Any, pyfunc: Any) -> Any:
        # The number in a symbol is the text's, not one that counts up: a symbol is the same in every process, and what
        # of Numba's own (min, abs) two kept functions call is linked once.
        about = identify(pyfunc)
        code, cells = pyfunc.__code__, [cell.cell_contents for cell in pyfunc.__closure__ or ()]
        about.unique_id = zlib.crc32(repr((code.co_code, code.co_consts, code.co_names, cells)).encode())
        about.unique_name = f"{about.func_qualname}${about.unique_id}"
        return about

    def mangling_args(self: Any) -> Any:
        # By itself the number of the type, which counts up: symbols differed by what a process had typed before, and a
        # kept function's callee, lowered again by another process, had another name.
        return type(self).__name__, (zlib.crc32(self.name.encode()),)

    library, cpu = codegen.JITCodeLibrary, codegen.JITCPUCodegen
    stand_ins: list[tuple[Any, str, Any]] = [
        (library, "finalize", keep),
        (library, "add_linking_library", refer),
        (library, "_optimize_functions", leave),
        (library, "get_pointer_to_function", lambda self, name: 0),
        (cpu, "set_env", lambda self, name, env: None),
        (functions.BaseFunction, "get_call_type", get_call_type),
        (bytecode.FunctionIdentity, "from_function", classmethod(from_function)),
        (types.Record, "mangling_args", property(mangling_args)),
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


@dataclass
class Stored:
    """A function from the store, as an entry of a dispatcher's ``overloads``."""

    signature: Any
    library: Any
    fndesc: Any
    entry_point: object = field(default_factory=object)
    """Numba finds the function's lowering by this."""
    objectmode: bool = False


_loaded: dict[str, tuple[Any, str, str]] = {}
"""From the key of a function that came from the store to its library, its symbol and the name of its result's type."""
_keys: dict[Any, str] = {}
"""From the library of a function that is in the store to its key."""


class Reuse:
    """Lowered functions that are kept on disk and taken from there, instead of being typed and lowered again.

    ``context`` is all that decides a function's code besides its identity and the types of its arguments. ``kinds``
    names the types that such functions may take and return. What is kept of a function is LLVM's bitcode, its symbol,
    its result's type, and the keys of the functions it calls.
    """

    def __init__(self, store: Functions, context: str, kinds: Callable[[], dict[str, Any]]) -> None:
        self.store, self.context, self._kinds = store, context, kinds

    def ensure(self, dispatcher: Any, identity: str, args: tuple[Any, ...]) -> None:
        """Let ``dispatcher``, whose function has this content hash, be callable with ``args``. Raises as Numba does."""
        if args in dispatcher.overloads:
            return
        names = {kind: name for name, kind in self._kinds().items()}
        key = ""
        if all(kind in names for kind in args):
            text = "\n".join([self.context, identity, *(names[kind] for kind in args)])
            key = hashlib.sha256(text.encode()).hexdigest()
        if key and self._recall(dispatcher, key, args):
            return
        dispatcher.compile(args)
        made = dispatcher.overloads[args]
        unliteral: Any = types.unliteral
        returns = names.get(unliteral(made.signature.return_type))
        if key and returns is not None:
            self._save(made.library, key, made.fndesc.llvm_func_name, returns)

    def _save(self, library: Any, key: str, symbol: str, returns: str) -> None:
        bitcode = library._final_module.as_bitcode()
        _keys[library] = key = key or hashlib.sha256(bitcode).hexdigest()
        callees = list(dict.fromkeys(reversed(library._linking_libraries)))[::-1]  # as module_of meets them
        for callee in callees:
            if callee not in _keys:  # Numba's own, such as min
                self._save(callee, "", callee.name, "none")
        head = {"symbol": symbol, "returns": returns, "callees": [_keys[callee] for callee in callees]}
        self.store.save(key, json.dumps(head).encode() + b"\n" + bitcode)

    def _recall(self, dispatcher: Any, key: str, args: tuple[Any, ...]) -> bool:
        context = dispatcher.targetctx
        if not self._load(context.codegen(), key):
            return False
        library, symbol, returns = _loaded[key]
        kind = self._kinds()[returns]
        about: Any = funcdesc.ExternalFunctionDescriptor(symbol, kind, args)  # type: ignore[no-untyped-call]
        signature: Any = templates.signature
        found = Stored(signature(kind, *args), library, about)
        context.insert_user_function(found.entry_point, about, [library])
        dispatcher.overloads[args] = found
        return True

    def _load(self, codegen: Any, key: str) -> bool:
        """Take a function and all that it calls from the store; False if one is missing."""
        if key in _loaded:
            return True
        head, _, bitcode = (self.store.load(key) or b"{}").partition(b"\n")
        about = json.loads(head)
        if about.get("returns") not in self._kinds() or not all(self._load(codegen, one) for one in about["callees"]):
            return False
        library = codegen.create_library(about["symbol"])
        library._final_module = llvm.parse_bitcode(bitcode)
        library._linking_libraries = [_loaded[one][0] for one in about["callees"]]
        library._finalized = True
        _keys[library] = key
        _loaded[key] = library, about["symbol"], about["returns"]
        return True


def integers_as_int64(dispatcher: Any, reuse: Reuse, identity: str) -> Any:
    """``dispatcher``, whose callers pass every integer and truth value as int64: the code is made once, or taken from
    ``reuse``.

    By itself Numba makes it again for each constant that some caller passes, for each narrower integer, for a truth
    value: a quarter of the functions of a unit, typed and lowered several times. Returns ``dispatcher``.
    """
    resolve = dispatcher.get_call_template
    integer = (types.Integer, types.Boolean, types.IntegerLiteral, types.BooleanLiteral)

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        args = tuple(types.int64 if isinstance(kind, integer) else kind for kind in args)
        if not kws and len(args) == dispatcher.py_func.__code__.co_argcount:
            reuse.ensure(dispatcher, identity, args)
        return resolve(args, kws)

    dispatcher.get_call_template = get_call_template
    return dispatcher


def module_of(library: Any) -> llvm.ModuleRef:
    """A new module: the function that was compiled :func:`unoptimised`, with all functions it calls. O(their number).

    The callees are ``linkonce_odr``, so that modules which share some can be linked.
    """
    module, linked, waiting = library._final_module.clone(), {library}, list(library._linking_libraries)
    while waiting:
        callee = waiting.pop()
        if callee not in linked:
            linked.add(callee)
            for function in callee._final_module.functions:
                if not function.is_declaration and function.linkage == llvm.Linkage.external:
                    function.linkage = "linkonce_odr"
            module.link_in(callee._final_module, preserve=True)
            waiting += callee._linking_libraries
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
