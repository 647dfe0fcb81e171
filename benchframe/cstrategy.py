"""Strategies written in C: their sources, the header with the model's records, and the calls between C and Python."""

from __future__ import annotations

import ctypes
import hashlib
import linecache
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from benchframe.dialect.functions import CCall, Native, is_native, native, where
from benchframe.dialect.records import DialectError, Slab
from benchframe.dialect.store import compiler_version, run_compiler
from benchframe.linux import SHIM, SourcesError, included, options
from benchframe.mm import flags, layout
from benchframe.mm.layout import ARENA, FILE, FREED, MM, PAGE, PTE, TASK, VMA

# ----------------------------------------------------------------------------------------------------------------------
# The records of the model as C: what a strategy's C code includes as ``benchframe.h``.

_CONSTANTS = (
    *((name, getattr(layout, name)) for name in ("PAGE_SHIFT", "PAGE_SIZE", "PMD_SHIFT", "PMD_SIZE", "ARENA_PRIVATE0")),
    *((name, getattr(flags, name)) for name in ("VM_READ", "VM_WRITE", "VM_EXEC", "VM_SHARED", "VM_GROWSDOWN")),
)
_TYPES = {"i8": "int64_t", "i4": "int32_t"}
_C_NAMES = {"FILE": "MM_FILE"}
"""stdio.h has a FILE too."""
_HEAD = """\
/*
 * benchframe.h: the records of the model, as benchframe lays them out. Generated: do not edit.
 *
 * References between records are indices of their slabs, 0 is none; VMA(mm, i) is the i-th vm_area_struct. A function
 * that fills a hook is `int64_t name(struct mm_struct *mm, int64_t ...)`; docs/strategy-interface.md has the hooks.
 * [..] names the lock that protects a field. Plain accesses are for memory that a lock protects; for the rest READ_ONCE
 * and the like, with the kernel's meaning.
 */
#ifndef BENCHFRAME_H
#define BENCHFRAME_H

#include <stddef.h>
#include <stdint.h>

#define READ_ONCE(x)            __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)        __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define smp_load_acquire(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb()                __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define likely(x)               __builtin_expect(!!(x), 1)
#define unlikely(x)             __builtin_expect(!!(x), 0)
"""


_ARENAS = """
/* A record of a strategy's own slab: arena_alloc(mm, ARENA_PRIVATE0 + number) gives its index, 0 if the slab is full,
 * which makes the run void. Caller holds mmap_lock for write. */
static inline void arena_lock(struct mm_struct *mm, int64_t which)
{
#ifndef BENCHFRAME_COUNTED /* where accesses are counted there is one task */
	while (mm->crew_base && __atomic_exchange_n(&ARENA(mm, which)->lock, 1, __ATOMIC_ACQUIRE))
		;
#endif
}

static inline void arena_unlock(struct mm_struct *mm, int64_t which)
{
#ifndef BENCHFRAME_COUNTED
	if (mm->crew_base)
		smp_store_release(&ARENA(mm, which)->lock, 0);
#endif
}

static inline int64_t arena_alloc(struct mm_struct *mm, int64_t which)
{
	struct arena *a = ARENA(mm, which);
	int64_t slot = 0;

	arena_lock(mm, which);
	if (a->free > 0)
		slot = FREED(mm, a->stack + --a->free)->slot;
	else if (a->top < a->capacity)
		slot = a->top++;
	else
		mm->error = which + 1;
	if (slot && ++a->live > a->peak)
		a->peak = a->live;
	arena_unlock(mm, which);
	return slot;
}

/* Nobody may use the record any more. */
static inline void arena_free(struct mm_struct *mm, int64_t which, int64_t slot)
{
	struct arena *a = ARENA(mm, which);

	arena_lock(mm, which);
	FREED(mm, a->stack + a->free++)->slot = slot;
	a->live--;
	arena_unlock(mm, which);
}
"""
"""As :mod:`benchframe.mm.layout` and, with threads, :mod:`benchframe.mm.smp` have it."""


def _struct(slab: Slab) -> list[str]:
    struct = slab.struct
    lines = [f"struct {struct.name} {{"]
    end = 0
    for name, (offset, kind) in struct.fields.items():
        if offset > end:
            lines.append(f"\tchar pad_{end}[{offset - end}];")
        comment = struct.members[name].comment.replace("*/", "* /")
        lines.append(f"\t{_TYPES[kind]} {name}; /* {offset}: {comment} */")
        end = offset + int(kind[1])
    if struct.size > end:
        lines.append(f"\tchar pad_[{struct.size - end}];")
    lines += ["};", f'_Static_assert(sizeof(struct {struct.name}) == {struct.size}, "size of {struct.name}");']
    lines += [
        f'_Static_assert(offsetof(struct {struct.name}, {name}) == {offset}, "{struct.name}.{name}");'
        for name, (offset, _) in struct.fields.items()
    ]
    return lines


def header(private: Sequence[Slab] = ()) -> str:
    """The text of ``benchframe.h``, including a strategy's ``private`` slabs; the C compiler asserts every offset."""
    lines = [_HEAD]
    lines += [f"#define {name} {value:#x}LL" for name, value in _CONSTANTS]
    slabs = [MM, VMA, TASK, PAGE, PTE, FILE, ARENA, FREED, *private]
    for slab in slabs:
        lines += ["", f"/* {_C_NAMES.get(slab.name, slab.name)}(mm, i) */", *_struct(slab)]
    lines.append("")
    for slab in slabs:
        name = slab.struct.name
        lines += [
            f"static inline struct {name} *{_C_NAMES.get(slab.name, slab.name)}(const struct mm_struct *mm, int64_t i)",
            "{",
            f"\treturn (struct {name} *)mm->{slab.base} + i;",
            "}",
        ]
    lines += [_ARENAS, "#endif"]
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------------------------
# Strategies whose hot path is C: a .c file compiled against the model's records and linked into the compiled unit.
#
#     C = CSource("rb_find.c")                                  # beside this Python file
#     find = C.function("index_find", ("mm", "addr"), twin=rb_find)
#     Index(find=find, insert=rb_insert, erase=rb_erase)
#
# ``find`` is a native function like any other. Compiled, it is one direct call of the C function, whose object file
# is linked into the unit. Interpreted (by `benchframe check`, and where accesses are counted) its *twin* runs: the
# same in the dialect, checked against the oracle as the C is. Without a twin the C itself runs, as one step: no
# scheduler sees what it reads and writes. The cost engine does: it runs a second build of the file, which reports each
# access and each branch (:meth:`CSource.counted`).
#
# C code is compiled and loaded only because the user named the plugin that refers to it. Like any plugin, it runs with
# the user's rights.

FLAGS = ("-O2", "-Wall")
LINUX_FLAGS = ("-O2", "-w", "-fno-strict-aliasing")
"""For the kernel's text, which has warnings here that it has not there."""
_ALWAYS = (
    "-std=gnu11",
    "-fPIC",  # the loader may map it at any address
    "-fvisibility=hidden",  # calls within the file bypass the PLT
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-c",
)
COUNTED_FLAGS = ("-O0", "-fno-omit-frame-pointer", "-fsanitize=thread", "-fsanitize-coverage=trace-pc", "-S")
"""One call before each access as the source has it, and one in each block; to assembler text."""
_COUNTED_HEAD = "#include <string.h>\n" + "".join(
    f"void *counted_{name}(void *, {second}, size_t);\n#define {name} counted_{name}\n"
    for name, second in (("memcpy", "const void *"), ("memmove", "const void *"), ("memset", "int"))
)
_BLOCK = re.compile(r"^(?P<call>\t(?:call|bl)\t)__sanitizer_cov_trace_pc\b", re.MULTILINE)
_CONDITIONAL = re.compile(r"^\t(?:j(?!mp\b)[a-z]+|b\.[a-z]+|cbn?z|tbn?z)\t", re.MULTILINE)
"""Jumps of x86-64 and of arm64."""
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"\n]+)"', re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LARGEST = 4 << 20


class CSource:
    """A C file of a plugin. ``path`` is relative to the Python file that calls this; ``slabs`` are the strategy's
    private slabs that the C code uses; ``flags`` replace ``-O2 -Wall``. With ``linux``, a kernel's source tree, the
    file may include files of it with quotes: ``"lib/maple_tree.c"``; benchframe/linux/shim.h is the kernel around them.

    The file is read and compiled only when one of its functions is needed. The C code sees ``benchframe.h``
    (:func:`benchframe.cstrategy.header`, `benchframe header`) without including it.
    """

    def __init__(
        self,
        path: str | Path,
        slabs: Sequence[Slab] = (),
        flags: Sequence[str] | None = None,
        linux: str | Path | None = None,
    ) -> None:
        here = sys._getframe(1).f_globals.get("__file__")
        self.path = (Path(here).resolve().parent if here else Path.cwd()) / path
        self.linux = Path(linux) if linux is not None else None
        self.slabs = tuple(slabs)
        self.flags = tuple(flags if flags is not None else FLAGS if linux is None else LINUX_FLAGS)
        self._functions: dict[str, int] = {}
        self._object: tuple[str, bytes] | None = None
        self._library: ctypes.CDLL | None = None
        self._counted: tuple[str, bytes] | None = None

    def function(self, symbol: str, parameters: Sequence[str], twin: Native | None = None) -> Native:
        """The C function ``symbol`` as a native function: ``int64_t symbol(struct mm_struct *mm, int64_t ...)``.

        ``parameters`` are the names of its arguments, ``mm`` first. ``twin`` is the same function in the dialect.
        Raises DialectError for a name that is not a C identifier, and for a twin that is not ``@native`` or takes
        another number of arguments.
        """
        names = tuple(parameters)
        if not names or names[0] != "mm" or not all(_NAME.fullmatch(n) for n in (symbol, *names)):
            raise DialectError(f"C function {symbol!r}{names}: its first parameter must be mm, and all must be C names")
        if twin is not None and not is_native(twin):
            raise DialectError(f"C function {symbol}: its twin {twin!r} is not marked @native")
        if twin is not None and twin.__code__.co_argcount != len(names):
            count = twin.__code__.co_argcount
            raise DialectError(f"C function {symbol} takes {len(names)} arguments, its twin {where(twin)} {count}")
        self._functions[symbol] = len(names)
        call = CCall(symbol, self, twin if twin is not None else self._bridge(symbol, names), twin is not None)
        return _written(symbol, names, {"call": call}, str(self.path))

    def text(self) -> str:
        """The C text. Raises DialectError if it cannot be read."""
        return _read(self.path)

    def content(self) -> str:
        """sha256 of the file, the files it includes with quotes, the kernel's that those include, the header, the flags
        and the compiler's version."""
        digest = hashlib.sha256()
        for path in (*self._files(), *(self._kernel() if self.linux else ())):
            digest.update(f"{path.name}\n{_read(path)}\n".encode())
        digest.update(repr((header(self.slabs), self.flags, _ALWAYS, compiler_version())).encode())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        """The file, and every existing file that it includes with quotes, directly or indirectly."""
        found = [self.path]
        for path in found:
            for name in _INCLUDE.findall(_read(path)):
                other = (path.parent / name).resolve()
                if other.is_file() and other not in found:
                    found.append(other)
        return found

    def _kernel(self) -> list[Path]:
        """The kernel's files that are compiled with it, and shim.h. Raises DialectError."""
        assert self.linux is not None
        try:
            found = [path for one in self._files() for path in included(self.linux, _read(one))]
        except SourcesError as error:
            raise DialectError(str(error)) from None
        if not found:
            raise DialectError(f"{self.path}: it includes no file of {self.linux}; is that a kernel's source tree?")
        return [*dict.fromkeys(found), SHIM]

    def symbol(self, name: str) -> str:
        """The name of function ``name`` in the object file; it contains a hash, so two sources never clash."""
        return f"benchframe_c_{self.content()[:16]}_{name}"

    # ---- compiling --------------------------------------------------------------------------------------------

    def build(self) -> bytes:
        """The object file. Raises DialectError with the compiler's message, or if a function is not defined."""
        content = self.content()
        if self._object is None or self._object[0] != content:  # several units may need it
            with tempfile.TemporaryDirectory(prefix="benchframe-c-") as folder:
                self._object = content, self._build(Path(folder))[0]
        return self._object[1]

    def _prepare(self, folder: Path) -> list[str | Path]:
        """Write unit.c, which includes the file and all it needs; returns the options that compile it."""
        (folder / "benchframe.h").write_text(header(self.slabs), encoding="utf-8")
        lines = ['#include "benchframe.h"']
        searched = ["-I", str(folder)]
        if self.linux:
            self._kernel()  # tells what is missing
            lines.append('#include "shim.h"')
            for one in self._files():
                searched += options(self.linux, _read(one), folder / "linux")
        for name, arity in self._functions.items():
            arguments = ", ".join(["struct mm_struct *", *["int64_t"] * (arity - 1)])
            visible = '__attribute__((visibility("default")))'
            lines.append(f'{visible} int64_t {name}({arguments}) __asm__("{self.symbol(name)}");')
        lines += [f'#include "{_quoted(self.path)}"', ""]
        (folder / "unit.c").write_text("\n".join(lines), encoding="utf-8")
        return [*self.flags, *_ALWAYS, *searched, folder / "unit.c"]

    def _build(self, folder: Path) -> tuple[bytes, ctypes.CDLL]:
        obj, library = folder / "unit.o", folder / "unit.so"
        run_compiler([*self._prepare(folder), "-o", obj], str(self.path))
        # Linked as a library too, to find calls of undefined functions here (MCJIT would abort on them).
        run_compiler(["-shared", "-Wl,-z,defs", "-o", library, obj], str(self.path))
        loaded = ctypes.CDLL(str(library))
        for name, arity in self._functions.items():
            if not hasattr(loaded, self.symbol(name)):
                arguments = ", ".join(["struct mm_struct *", *["int64_t"] * (arity - 1)])
                raise DialectError(f"{self.path}: it does not define int64_t {name}({arguments})")
        return obj.read_bytes(), loaded

    def counted(self, runtime: Path, constants: Sequence[str]) -> ctypes.CDLL:
        """The functions in a library of their own, not optimised, which tells ``runtime``, a C file compiled with
        ``constants`` (``-D...``), of each access and each branch; loaded anew each time, so its variables are 0.

        Raises DialectError if the compiler refuses, as others than gcc may, and on a processor whose jumps are unknown.
        """
        if platform.machine() not in ("x86_64", "aarch64"):
            raise DialectError(f"{self.path}: C is counted on x86-64 and arm64 only, this is {platform.machine()}")
        with tempfile.TemporaryDirectory(prefix="benchframe-c-") as name:
            folder = Path(name)
            library, text = folder / "counted.so", folder / "unit.s"
            content = self.content()
            if self._counted is None or self._counted[0] != content:
                head = folder / "counted.h"
                head.write_text(_COUNTED_HEAD, encoding="utf-8")
                arguments = [*self._prepare(folder), *COUNTED_FLAGS, "-DBENCHFRAME_COUNTED", "-include", head]
                try:
                    run_compiler([*arguments, "-o", text], str(self.path))
                except DialectError as error:
                    raise DialectError(f"{error}\nTo count C the cost engine needs gcc; set CC=gcc") from None
                text.write_text(_branches_named(text.read_text(encoding="utf-8")), encoding="utf-8")
                parts = [folder / "unit.o", folder / "runtime.o"]
                run_compiler(["-c", "-o", parts[0], text], str(self.path))
                options = ["-O2", "-fno-omit-frame-pointer", "-fPIC", "-fvisibility=hidden", *constants]
                run_compiler([*options, "-c", "-o", parts[1], runtime], str(runtime))
                run_compiler(["-shared", "-Wl,-z,defs", "-o", library, *parts], str(self.path))
                self._counted = content, library.read_bytes()
            library.write_bytes(self._counted[1])
            return ctypes.CDLL(str(library))

    def _bridge(self, symbol: str, names: tuple[str, ...]) -> Native:
        """The function that runs when interpreted without a twin: the same C code, on the same memory."""

        found: list[Any] = []

        def bridge(mm: Any, *arguments: int) -> int:
            if not found:
                if self._library is None:
                    with tempfile.TemporaryDirectory(prefix="benchframe-c-") as folder:
                        self._library = self._build(Path(folder))[1]
                function = getattr(self._library, self.symbol(symbol))
                function.restype = ctypes.c_int64
                function.argtypes = [ctypes.c_int64] * len(names)
                found.append(function)
            return int(found[0](_address(mm), *arguments))

        return _written(symbol, names, {"call": bridge}, str(self.path))


def _branches_named(assembler: str) -> str:
    """Each block's call of the runtime renamed to ``counted_branch`` if the block ends with a conditional jump."""
    first, *blocks = re.split(r"(?=^\t(?:call|bl)\t__sanitizer_cov_trace_pc\b)", assembler, flags=re.MULTILINE)
    return first + "".join(
        _BLOCK.sub(r"\g<call>counted_branch", block) if _CONDITIONAL.search(block) else block for block in blocks
    )


def c_sources(functions: Sequence[FunctionType]) -> list[CSource]:
    """The C files that these native functions call, without duplicates."""
    calls = [obj for f in functions for obj in f.__globals__.values() if isinstance(obj, CCall)]
    return list(dict.fromkeys(call.source for call in calls))


def unseen(functions: Sequence[FunctionType]) -> list[str]:
    """The C functions without a twin that these native functions call: no scheduler sees their memory accesses."""
    calls = [obj for f in functions for obj in f.__globals__.values() if isinstance(obj, CCall)]
    return list(dict.fromkeys(call.name for call in calls if not call.twin))


def _address(mm: Any) -> int:
    """The memory address of an interpreted mm reference: the records hold the addresses of the slabs."""
    return int(mm.mm_base) + int(mm.index) * int(mm.slab.struct.size)


def _written(name: str, parameters: tuple[str, ...], scope: dict[str, Any], file: str) -> Native:
    """A native function that passes its arguments on; its source can be displayed."""
    arguments = ", ".join(parameters)
    text = f'def {name}({arguments}):\n    """{name} of {Path(file).name}."""\n    return call({arguments})\n'
    shown = f"<{name} of {file}>"
    linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)
    scope["__name__"] = __name__
    exec(compile(text, shown, "exec"), scope)  # only the names vary, and they are C identifiers
    function = scope[name]
    assert isinstance(function, FunctionType)
    return native(function)


def _quoted(path: Path) -> str:
    text = str(path)
    if '"' in text or "\n" in text or "\\" in text:
        raise DialectError(f"{text!r}: a C file's path must not contain quotes, backslashes or line breaks; move it")
    return text


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise DialectError(f"{path}: larger than {_LARGEST >> 20} MiB, which is too long for a strategy")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DialectError(f"{path}: {error.strerror or error}; CSource looks beside the plugin's file") from None
    except UnicodeDecodeError:
        raise DialectError(f"{path} is not UTF-8 text; save it as such") from None
