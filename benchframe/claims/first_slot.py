"""How often the slot that an address hashes to gave the hit, for strategies that keep task.vmacache0 to 3."""

from __future__ import annotations

from dataclasses import replace

from benchframe.dialect import NULL, hook, native
from benchframe.mm.layout import PAGE_SHIFT, PMD_SHIFT, TASK
from benchframe.strategy import Strategy


@hook("claims", mandatory=True)
def plain_find(mm, task, addr):  # type: ignore[no-untyped-def]
    """The strategy's own cache_find."""


@native
def slot_of(mm, task, slot):  # type: ignore[no-untyped-def]
    """What slot 0 to 3 holds."""
    t = TASK(mm, task)
    if slot == 0:
        return t.vmacache0
    if slot == 1:
        return t.vmacache1
    if slot == 2:
        return t.vmacache2
    return t.vmacache3


@native
def find_by_page(mm, task, addr):  # type: ignore[no-untyped-def]
    """cache_find; task.strategy0 counts hits that the slot of the page gave."""
    vma = plain_find(mm, task, addr)
    if vma != NULL and slot_of(mm, task, (addr >> PAGE_SHIFT) & 3) == vma:  # type: ignore[no-untyped-call]
        TASK(mm, task).strategy0 += 1
    return vma


@native
def find_by_region(mm, task, addr):  # type: ignore[no-untyped-def]
    """cache_find; task.strategy0 counts hits that the slot of the 2 MiB region gave."""
    vma = plain_find(mm, task, addr)
    if vma != NULL and slot_of(mm, task, (addr >> PMD_SHIFT) & 3) == vma:  # type: ignore[no-untyped-call]
        TASK(mm, task).strategy0 += 1
    return vma


def counted(strategy: Strategy) -> Strategy:
    """``strategy`` (vmacache, or its PMD variant) with the count in task.strategy0; its answers are the same."""
    find = find_by_region if strategy.name.endswith("_pmd") else find_by_page
    binding = {**strategy.binding, "cache_find": find, "plain_find": strategy.binding["cache_find"]}
    return replace(strategy, name=f"{strategy.name}-first-slot", binding=binding)
