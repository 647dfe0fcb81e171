"""From native functions to machine code: Numba types and lowers, one LLVM pass optimises, an object file comes out.

This module is imported only when something has to be compiled (it imports numba: 0.5 s). The steps for one
*unit*, an entry function with all it calls:

1. each function is cloned with its global names bound: hooks to the strategy's functions, slabs and primitives
   to intrinsics (:mod:`benchframe.dialect.lowering`), native functions to their own compiled clones (memoised by
   content hash);
2. Numba lowers each clone to LLVM IR **without** optimising it: Numba would optimise every callee again in every
   caller, which made cold compiles about three times as long;
3. the linked module gets a plain C entry point, is optimised once, and is emitted as an object file that refers
   to nothing of Python or Numba. :mod:`benchframe.dialect.loader` maps it with llvmlite alone.

The clones carry their content hash in their names, so that equal symbols are equal code.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numba
from llvmlite import binding as llvm
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError

from benchframe.dialect.function import (
    Binding,
    CCall,
    FarCall,
    Hook,
    Identities,
    Replacements,
    is_native,
    referenced,
    resolve,
    where,
)
from benchframe.dialect.link import linked
from benchframe.dialect.lint import check_function
from benchframe.dialect.lowering import (
    C_CALLS,
    PRIMITIVES,
    NoField,
    c_call,
    far_call,
    indirect_call,
    record_names,
    record_type,
    slab_intrinsic,
)
from benchframe.dialect.messages import returned, translated
from benchframe.dialect.numba_internals import emit, lowered, optimise, unoptimised
from benchframe.dialect.primitives import Primitive
from benchframe.dialect.store import CODEGEN
from benchframe.dialect.struct import DialectError, Slab, Struct
from benchframe.dialect.waiting import X86

if X86:  # elsewhere LLVM does not know the options
    for _option in CODEGEN:
        llvm.set_option("benchframe", _option)
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_clones: dict[str, Any] = {}
"""Content hash to dispatcher: what was compiled in this process."""


def _clone(function: FunctionType, identities: Identities, hook_index: dict[str, int]) -> Any:
    """The dispatcher of ``function`` with everything it names bound; compiled later, on first use."""
    key = identities.of(function)
    if key in _clones:
        return _clones[key]
    check_function(function)
    scope: dict[str, Any] = {"__builtins__": __builtins__, "__name__": function.__module__}
    for name, obj in referenced(function).items():
        if isinstance(obj, Hook):
            bound = identities.callee(obj, function)
            if bound is None:
                scope[name] = indirect_call(obj, hook_index[obj.name])
            else:
                scope[name] = _clone(bound, identities, hook_index)
        elif is_native(obj):
            scope[name] = _clone(identities.callee(obj, function), identities, hook_index)
        elif isinstance(obj, CCall):
            scope[name] = c_call(obj)
        elif isinstance(obj, FarCall):
            scope[name] = far_call(obj)
        elif isinstance(obj, Slab):
            scope[name] = slab_intrinsic(obj)
        elif isinstance(obj, Primitive):
            scope[name] = PRIMITIVES[obj.name]
        else:
            scope[name] = obj
    clone = FunctionType(function.__code__, scope, f"{function.__name__}_{key[:16]}", function.__defaults__)
    clone.__module__ = function.__module__
    clone.__qualname__ = clone.__name__
    compiled: Any = numba.njit
    _clones[key] = compiled(**_OPTIONS)(clone)
    return _clones[key]


def compile_unit(
    entry: FunctionType,
    arity: int,
    mm: Struct,
    binding: Binding | None,
    hook_index: dict[str, int],
    replace: Replacements | None = None,
) -> bytes:
    """Compile ``entry(mm, a1, ..., a_arity-1)`` to an object file with the C symbol ``entry``.

    The C signature is ``int64_t entry(struct mm_struct *mm, int64_t...)``. Raises DialectError, with the
    author's file and line, for what the dialect or Numba's typing refuses.
    """
    with global_compiler_lock, unoptimised():
        dispatcher = _clone(entry, Identities(binding, replace), hook_index)
        signature = (record_type(mm), *[types.int64] * (arity - 1))
        try:
            dispatcher.compile(signature)
        except (NumbaError, TypeError) as error:  # Numba lets some TypeErrors of a call through
            raise DialectError(translate(error, entry)) from error
        except NoField as error:
            raise DialectError(f"{_users(error.field, entry, binding)}: {error}") from error
        except KeyError as error:  # Numba's answer to a field that the record does not have
            field = str(error.args[0])
            what = f"the struct has no field {field!r}; docs/dialect.md says which fields there are"
            raise DialectError(f"{_users(field, entry, binding)}: {what}") from error
        result = dispatcher.overloads[signature]
    unliteral: Any = types.unliteral
    if unliteral(result.signature.return_type) != types.int64:
        what, mend = returned(str(result.signature.return_type), record_names())
        raise DialectError(f"{where(entry)}: {what}; {mend}")
    library = result.library
    module = lowered(library)
    module.link_in(llvm.parse_assembly(_entry_text(result.fndesc.llvm_func_name, arity)))
    for defined in module.functions:
        if not defined.is_declaration:
            defined.linkage = "external" if defined.name == "entry" else "internal"
    optimise(library, module)
    undefined = [f.name for f in module.functions if f.is_declaration and not f.name.startswith(("llvm.", "mem"))]
    c_calls = [C_CALLS[name] for name in undefined if name in C_CALLS]
    undefined = [name for name in undefined if name not in C_CALLS]
    if undefined:
        raise DialectError(
            f"{where(entry)}: the compiled code needs {', '.join(undefined[:3])}: an operation that can raise or "
            "allocate; the dialect has integers and references only"
        )
    obj = emit(library, module)
    return linked(obj, [source.build for source in {call.source for call in c_calls}]) if c_calls else obj


def _entry_text(symbol: str, arity: int) -> str:
    """LLVM text of the C entry around Numba's calling convention (return slot, error slot, arguments)."""
    kinds = ", ".join(["ptr", *["i64"] * (arity - 1)])
    params = ", ".join(["ptr %a0", *[f"i64 %a{i}" for i in range(1, arity)]])
    return f"""
declare i32 @"{symbol}"(ptr, ptr, {kinds})
define i64 @entry({params}) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @"{symbol}"(ptr %result, ptr %error, {params})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


def _users(field: str, entry: FunctionType, binding: Binding | None) -> str:
    """Which functions below ``entry`` use an attribute, or the text of one, that no struct they meet has."""
    users: dict[FunctionType, bool] = {}

    def visit(function: FunctionType) -> None:
        if function in users:
            return
        users[function] = field in function.__code__.co_names or field in function.__code__.co_consts
        for obj in referenced(function).values():
            callee = resolve(obj, binding) if isinstance(obj, Hook) else obj
            if isinstance(callee, FunctionType) and is_native(callee):
                visit(callee)

    visit(entry)
    return ", ".join([where(function) for function, uses in users.items() if uses] or [where(entry)])


def translate(error: Exception, entry: FunctionType) -> str:
    """Numba's report cut to what an author needs: the place, the reason, a mend."""
    return translated(str(error), where(entry), record_names())
