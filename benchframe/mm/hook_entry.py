"""The strategy's hook entry: one compiled function through which the shared mapping operations reach its hooks."""

from __future__ import annotations

import linecache
from collections.abc import Container
from types import FunctionType

from benchframe.dialect import native
from benchframe.mm.hooks import ALL

SOURCE = "<hook entry>"
"""Where tracebacks find its text."""


def hook_mask(filled: Container[str]) -> int:
    """``mm.hook_mask`` of a strategy that fills the hooks named in ``filled``: bit i for hook i of ALL."""
    return sum(1 << i for i, h in enumerate(ALL) if h.name in filled and h.called)


def _write() -> FunctionType:
    """``hook_entry(mm, number, a, b, c, d)`` as a chain over the hooks' numbers; hot ones are never called so."""
    lines = ["def hook_entry(mm, number, a, b, c, d):"]
    for number, hook in enumerate(ALL):
        if hook.called:
            arguments = ", ".join(["mm", "a", "b", "c", "d"][: hook.arity])
            lines += [f"    if number == {number}:", f"        return {hook.name}({arguments})"]
    lines.append("    return 0")
    scope: dict[str, object] = {hook.name: hook for hook in ALL}
    scope["__name__"] = __name__
    linecache.cache[SOURCE] = (0, None, [f"{line}\n" for line in lines], SOURCE)  # for tracebacks and identities
    exec(compile("\n".join(lines), SOURCE, "exec"), scope)  # written from our own table only
    function = scope["hook_entry"]
    assert isinstance(function, FunctionType)
    return native(function)


hook_entry = _write()
