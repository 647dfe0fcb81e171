"""The oracle that answers for a machine: its rules and limits from the machine's parameters, and the other way round.

Model and oracle share no code, so the same thing has two names: a bit of ``Parameters.rules`` here, a switch of
``Rules`` there. This module alone knows both. What only one of them can switch keeps its default in the other.
"""

from __future__ import annotations

from benchframe.mm import flags
from benchframe.mm.machine import Parameters
from benchframe.oracle import Limits, Oracle, Rules

_SWITCHES = {
    "anon_vma_merge_both_ways": flags.RULE_ANON_VMA_616,
    "mremap_many": flags.RULE_MREMAP_617,
    "guard_flag": flags.RULE_GUARD_FLAG,
    "dontunmap_clears_account": flags.RULE_DONTUNMAP_ACCOUNT,
    "droppable": flags.RULE_DROPPABLE,
    "dontneed_frees_tables": flags.RULE_DONTNEED_TABLES,
}
"""A switch of Rules to its bit of Parameters."""


def rules(parameters: Parameters) -> Rules:
    """The oracle's rules for the model's parameters. ``thp`` 2 (always) is 1 (by madvise) to the oracle."""
    switches = {name: bool(parameters.rules & bit) for name, bit in _SWITCHES.items()}
    return Rules(thp_read_prepares_anon_vma=parameters.thp != 0, **switches)


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
    """An empty address space of the oracle that must answer as a machine with these parameters does."""
    p = parameters or Parameters()
    return Oracle(rules(p), limits(p))


def parameters(rules: Rules, limits: Limits) -> Parameters:
    """The model's parameters for a kernel with these rules and limits, as far as the model has them."""
    return Parameters(
        task_size=limits.task_size,
        mmap_base=limits.mmap_base,
        mmap_min_addr=0 if limits.may_map_low else limits.mmap_min_addr,
        max_map_count=limits.max_map_count,
        stack_limit=limits.rlimit_stack,
        stack_guard_gap=limits.stack_guard_gap,
        thp=1 if rules.thp_read_prepares_anon_vma else 0,
        rules=sum(bit for name, bit in _SWITCHES.items() if getattr(rules, name)),
    )
