"""The records of the model as C: what a strategy's C code includes as ``benchframe.h``."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.dialect import Slab
from benchframe.mm import flags, layout
from benchframe.mm.layout import FILE, MM, PAGE, PTE, TASK, VMA

_CONSTANTS = (
    *((name, getattr(layout, name)) for name in ("PAGE_SHIFT", "PAGE_SIZE", "PMD_SHIFT", "PMD_SIZE")),
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
    """The text of ``benchframe.h``, with a strategy's ``private`` slabs too; the C compiler asserts every offset."""
    lines = [_HEAD]
    lines += [f"#define {name} {value:#x}LL" for name, value in _CONSTANTS]
    slabs = [MM, VMA, TASK, PAGE, PTE, FILE, *private]
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
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"
