"""Whether an answer is right: the oracle for a machine with given parameters, and the one comparison with it.

Model and oracle share no code, so the same setting has two names: a bit of ``Parameters.rules`` in the model, a switch
of ``Rules`` in the oracle. Only this module knows both. A setting that only one of them has keeps its default in the
other.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchframe.dialect.store import cache_folder
from benchframe.events import LIFE, NIL, Kind
from benchframe.files import prune, replacing
from benchframe.mm import flags
from benchframe.mm.layout import PAGE_SHIFT
from benchframe.mm.machine import Machine, Parameters
from benchframe.mm.validate import live_mms, vma_numbers
from benchframe.oracle import Limits, Oracle, Rules, replay

Array = npt.NDArray[Any]
_SWITCHES = {
    "anon_vma_merge_both_ways": flags.RULE_ANON_VMA_616,
    "mremap_many": flags.RULE_MREMAP_617,
    "guard_flag": flags.RULE_GUARD_FLAG,
    "dontunmap_clears_account": flags.RULE_DONTUNMAP_ACCOUNT,
    "droppable": flags.RULE_DROPPABLE,
    "dontneed_frees_tables": flags.RULE_DONTNEED_TABLES,
}
"""From a switch of Rules to its bit of Parameters."""
MODEL_RULES = frozenset({*_SWITCHES, "thp_read_prepares_anon_vma", "thp_always", "execute_only"})
"""The rules that the model has too. Operations that ask for execute-only memory are not sent to it."""


KEEP = 256 << 20
"""Bytes of answers to keep in the cache; the least recently used are deleted first."""


def rules(parameters: Parameters) -> Rules:
    """The oracle's rules for the model's parameters."""
    switches = {name: bool(parameters.rules & bit) for name, bit in _SWITCHES.items()}
    return Rules(thp_read_prepares_anon_vma=parameters.thp != 0, thp_always=parameters.thp == 2, **switches)


def limits(parameters: Parameters) -> Limits:
    """The oracle's limits for the model's parameters."""
    p = parameters
    return Limits(
        task_size=p.task_size,
        mmap_base=p.mmap_base,
        mmap_min_addr=p.mmap_min_addr,
        max_map_count=p.max_map_count,
        stack_guard_gap=p.stack_guard_gap,
        rlimit_stack=p.stack_limit,
    )


def oracle(parameters: Parameters | None = None) -> Oracle:
    """An empty address space of the oracle, which answers as a machine with these parameters must."""
    p = parameters or Parameters()
    return Oracle(rules(p), limits(p))


def parameters(rules: Rules, limits: Limits) -> Parameters:
    """The model's parameters for a kernel with these rules and limits, as far as the model supports them."""
    return Parameters(
        task_size=limits.task_size,
        mmap_base=limits.mmap_base,
        mmap_min_addr=0 if limits.may_map_low else limits.mmap_min_addr,
        max_map_count=limits.max_map_count,
        stack_limit=limits.rlimit_stack,
        stack_guard_gap=limits.stack_guard_gap,
        thp=1 + rules.thp_always if rules.thp_read_prepares_anon_vma else 0,
        rules=sum(bit for name, bit in _SWITCHES.items() if getattr(rules, name)),
    )


# ---- answers to a stream --------------------------------------------------------------------------------------------


def expected(events: Array, parameters: Parameters) -> tuple[Array, Array, Array, Array]:
    """The oracle's answers: ret, vm_start, vm_end per event (int64), and the final layout as rows of (mm, vm_start,
    vm_end, prot, shared, file offset, file) of the mms alive at the end. Cached; a missing cache only costs time."""
    folder = cache_folder() / "answers"
    path = folder / f"{_key(events, parameters)}.npz"
    names = ("ret", "vm_start", "vm_end", "layout")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = tuple(file[name] for name in names)
        if all(len(found[i]) == len(events) for i in range(3)) and found[3].ndim == 2:
            os.utime(path)
            return found
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass
    answers = replay(events, rules(parameters), limits(parameters))
    rows = [(mm, *row) for mm in sorted(answers.spaces) for row in answers.layouts[mm]]
    table = (answers.ret, answers.vm_start, answers.vm_end, np.array(rows, np.int64).reshape(-1, 7))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path, durable=False, mode=0o600) as file:
            np.savez(file, ret=table[0], vm_start=table[1], vm_end=table[2], layout=table[3])
        prune(folder, KEEP)
    except OSError:
        pass  # with a full or read-only disk the next process has to ask the oracle again
    return table


def wrong_answers(events: Array, ours: Array, ret: Array, vm_start: Array, vm_end: Array) -> Array:
    """A mask: which of our answers (records with ``ret``, ``vm_start``, ``vm_end``) to ``events`` differ from the
    oracle's.

    A fault or a lookup must find the same VMA and end the same way; a call must return the same value. Events that
    begin or end a task (:data:`~benchframe.events.LIFE`) return nothing.
    """
    kind = events["kind"]
    found = is_lookup(kind) & ((ours["vm_start"] != vm_start) | (ours["vm_end"] != vm_end))
    wrong: Array = found | (~np.isin(kind, LIFE) & (ours["ret"] != ret))
    return wrong


def is_lookup(kind: Array) -> Array:
    """A mask: which events ask for the VMA of an address."""
    mask: Array = (kind == Kind.FAULT) | (kind == Kind.LOOKUP)
    return mask


def differs(number: int, event: Any, answer: Any, right: tuple[int, int, int], whose: str) -> str:
    """One line: what the strategy ``whose`` answered to event ``number``, and what the oracle answers (ret, vm_start,
    vm_end)."""
    return (
        f"event {number} ({Kind(int(event['kind'])).name} {int(event['addr']):#x} len {int(event['len']):#x}): "
        f"{whose} says {int(answer['ret'])} in {int(answer['vm_start']):#x}-{int(answer['vm_end']):#x}, "
        f"the oracle {right[0]} in {right[1]:#x}-{right[2]:#x}"
    )


def model_layout(machine: Machine) -> Array:
    """The model's final layout, in the same form. O(VMAs)."""
    records, parts = machine.arrays["vma_base"], [np.empty((0, 7), np.int64)]
    shmem = machine.arrays["file_base"]["flags"] & flags.FILE_SHMEM
    for number in live_mms(machine):
        v = records[vma_numbers(machine, number)]
        file, bits = v["vm_file"], v["vm_flags"]
        columns = (
            np.full(len(v), number),
            v["vm_start"],
            v["vm_end"],
            bits & 7,
            (bits & flags.VM_MAYSHARE != 0).astype(np.int64),
            np.where(file != 0, v["vm_pgoff"] << PAGE_SHIFT, 0),
            np.where((file != 0) & (shmem[file] == 0), file - 1, NIL),
        )
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def first_difference(machine: Machine, layout: Array) -> str:
    """Where the model's final layout differs from the oracle's; empty if they agree."""
    ours = model_layout(machine)
    both = min(len(ours), len(layout))
    wrong = np.flatnonzero((ours[:both] != layout[:both]).any(axis=1))
    if len(wrong):
        mine, right = ours[wrong[0]].tolist(), layout[wrong[0]].tolist()
        return f"mm {right[0]} has {_row(mine)}, the oracle {_row(right)}"
    if len(ours) != len(layout):
        return f"the layout has {len(ours)} VMAs, the oracle's {len(layout)}"
    return ""


def _row(row: list[int]) -> str:
    return f"{row[1]:#x}-{row[2]:#x} prot {row[3]} shared {row[4]} offset {row[5]:#x} file {row[6]}"


def _sources() -> list[Path]:
    """The oracle's own source files: a changed oracle invalidates the cache."""
    return sorted((Path(__file__).parent / "oracle").glob("*.py"))


def _key(events: Array, parameters: Parameters) -> str:
    """The cache key: content of the stream, rules, limits, and the oracle itself."""
    digest = hashlib.sha256(np.ascontiguousarray(events).view(np.uint8).data)
    digest.update(repr((rules(parameters), limits(parameters))).encode())
    for source in _sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:40]
