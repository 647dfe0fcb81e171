"""Hashes of what a result depends on: the strategy and everything it calls, the model, the engine.

Two runs can be compared if they were made with the same model. The model is what the compiled units do
(:func:`model_digest`): a comment, a docstring, a moved file or a renamed function does not change it; a changed
operation, constant or struct layout does. What is not in any unit has a version number, :data:`ENGINE`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchframe.dialect.functions import Identities, TextIdentities
from benchframe.dialect.units import UnitSpec
from benchframe.mm.defaults import DEFAULTS, count_event
from benchframe.mm.hooks import ALL, hook_entry
from benchframe.mm.layout import mm_struct
from benchframe.mm.replay import KNOWN, mapping_event, nothing_done, nothing_found, replay_entry, replay_timed
from benchframe.mm.smp import REPLACE
from benchframe.mm.smp_replay import thread_entry

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

ENGINE = 1
"""The engine's version: raise it when a figure may change although no function of the model has changed.

Such changes are: how a session sizes and places memory, replays, subtracts the known answers, reads the clock or
counts; how the dialect lowers a primitive; the code generator's options; what the cost engine counts and for how much;
what a struct's memory costs. A change of the model's own functions needs nothing: their identities are in
:func:`model_digest`.
"""

SAME_MODEL: Mapping[str, int] = MappingProxyType(
    {
        "5a3f76bc36916430": 1,  # the source of commit ec3d420, when the digest was one of bytes and paths
        "286cd4fffa3b97a5": 1,
        "74a677dffbf70cb2": 1,  # padding fields became align, two hand-written searches for the highest bit became fls
        "3ef2a3d5f46e2b2f": 1,  # refused calls as recorded, RLIMIT, ATTR: 1.4 of 540 branches of a mapping call more
        "35e22d9ec06c37ed": 1,  # the hooks index_init, index_gap_above went: nothing filled them
        "c916f6b6c8e7f411": 1,  # the two before, merged
        "839429828be6c54c": 1,  # record 0 of MM has a slab of its own: the machine code is the same
        "9e4a17da9bece49e": 1,  # a refused fault asks vma_valid: one of 67 branches of a fault that is served less
        "bf32c0db859dd797": 1,  # events WALK: one comparison more before madvise and what comes after it
        "6050dd5940601c70": 1,  # munmap calls index_erase_range, which costs nothing where no strategy fills it
        "38ca8027ac472608": 1,  # fork calls index_dup: likewise
        "1feb205c4e8d2f6c": 1,  # madvise of pages is a hook: the same counts, branches in another order
        "afe34efbb5a5ce5f": 1,  # hooks of an allocator, which the bare model does not call
        "b33b7f9754832743": 1,  # index_prepare is asked in a branch that there was
        "b20cf49a31d3a04a": 1,  # the two before, merged
        "15379c4a1c99b423": 1,  # fork asks whether the index is filled at its end: one branch of some 80 per VMA
    }
)
"""From digests (their first 16 digits, as in a manifest) of models whose figures are the same, or differ by less than
any comparison of times can detect, to the version that represents them all.

Add the new digest here when a function was rewritten but its times and counts are unchanged (the golden costs and the
machine code show it); existing results then stay comparable.
"""

_BARE = {**DEFAULTS, "index_find": nothing_found, "index_insert": nothing_done, "index_erase": nothing_done}
"""No strategy: the defaults around an index that does nothing."""
MODEL_UNITS = (
    UnitSpec("mapping", mapping_event, None),
    UnitSpec("known", replay_timed, {**DEFAULTS, **KNOWN}),
    UnitSpec("hooks", hook_entry, _BARE),
    UnitSpec("replay", replay_timed, _BARE),
    UnitSpec("checked", replay_entry, {**_BARE, "count": count_event}),
    UnitSpec("mapping-threads", mapping_event, None, REPLACE),
    UnitSpec("hooks-threads", hook_entry, {**_BARE, "count": count_event}, REPLACE),
    UnitSpec("threads", thread_entry, {**_BARE, "count": count_event}, REPLACE),
)
"""Every unit of a build that does not contain a strategy."""


def strategy_digest(strategy: Strategy) -> str:
    """sha256 (hex) over the identities of all functions that fill a hook in ``strategy``, and its own memory.

    An identity covers what the function calls, transitively; comments and docstrings do not count. O(size of the
    strategy's call graph), a few ms.
    """
    identities = Identities(strategy.binding)
    digest = hashlib.sha256(b"benchframe strategy 1\n")
    for name in sorted(strategy.binding):
        digest.update(f"{name}={identities.of(strategy.binding[name])}\n".encode())
    for slab in strategy.slabs:
        by_task = (
            f" {slab.per_task}" if slab.per_task else ""
        )  # left out, digests from before there was such a thing stay
        digest.update(f"{slab.name} {slab.number} {slab.per_vma} {slab.fixed}{by_task} {slab.layout}\n".encode())
        if strategy.allocator is not None:
            digest.update(f"{slab.kmem_cache} {slab.on_stack}\n".encode())
    return digest.hexdigest()


@cache
def model_digest() -> str:
    """sha256 (hex) over what the model's units do and :data:`ENGINE`; every Python gives the same.

    The oracle is left out: it decides whether a cell is timed, not its time. Reads the model's source: some 100 ms,
    once in a process.
    """
    return _digest(TextIdentities)


@cache
def code_digest() -> str:
    """As :func:`model_digest`, but over bytecode: a tenth of the time, for processes of one Python version only."""
    return _digest(Identities)


def _digest(kind: type[Identities]) -> str:
    digest = hashlib.sha256(f"benchframe model, engine {ENGINE}\n".encode())
    digest.update(f"{mm_struct.layout}\n{','.join(hook.name for hook in ALL)}\n".encode())
    for unit in MODEL_UNITS:
        digest.update(f"{unit.name}={kind(unit.binding, unit.replace).of(unit.entry)}\n".encode())
    return digest.hexdigest()


def model_name(digest: str) -> str:
    """The name by which models are compared: the first 16 digits of ``digest``, or the common name of equivalent
    models.

    >>> model_name("0123456789abcdef" + 48 * "0")
    '0123456789abcdef'
    """
    short = digest[:16]
    return f"engine {SAME_MODEL[short]}" if short in SAME_MODEL else short
