"""What the hooks erase_range, dup, bulk and prepare save in the ns of a mapping call: a plugin, for `benchframe run`.

``maple_without_hooks`` and ``maple_rcu_without_hooks`` are ``maple`` and ``maple_rcu`` as they were before: a VMA that
is cut is stored twice, munmap stores NULL once for each VMA, and fork stores each VMA of the child.

    benchframe run -s maple,maple_without_hooks --baseline maple_without_hooks -w python-json,mmap-churn \\
        --plugin benchmarks/maple_hooks.py
    benchframe run -s maple_rcu,maple_rcu_without_hooks --baseline maple_rcu_without_hooks -w sh-pipeline \\
        --plugin benchmarks/maple_hooks.py
"""

from benchframe.api import Index, Protocol, Strategy, hookimpl, native
from benchframe.kernel import NULL, VMA, grow_under_write_lock
from benchframe_plugins.maple import always, mt_exit, mt_find, mt_gap_below, mt_insert
from benchframe_plugins.maple.check import MESSAGES, mt_check
from benchframe_plugins.maple.node import BIG, BIG_NODE, NODE, WORD, ma_free_rcu, mas_leaf, mas_offset, mt_slots
from benchframe_plugins.maple.store import mas_store


@native
def mt_holds(mm, addr, vma):
    """Whether the tree has ``vma`` at ``addr``."""
    if mm.mm_rb == NULL:
        return 0
    leaf = mas_leaf(mm, addr)
    return int(WORD(mm, mt_slots(leaf) + mas_offset(mm, leaf, addr)).word == vma)


@native
def mt_erase(mm, vma):
    """Store NULL over its range, unless a merge has put another VMA there."""
    v = VMA(mm, vma)
    if mt_holds(mm, v.vm_start, vma):
        return mas_store(mm, v.vm_start, v.vm_end - 1, NULL)
    return 0


@native
def mt_resize(mm, vma, old_start, old_end):
    """Store NULL in the range that it left, unless another VMA is already there; store the VMA over its new range."""
    v = VMA(mm, vma)
    if v.vm_start > old_start and mt_holds(mm, old_start, vma):
        mas_store(mm, old_start, v.vm_start - 1, NULL)
    if v.vm_end < old_end and mt_holds(mm, old_end - 1, vma):
        mas_store(mm, v.vm_end, old_end - 1, NULL)
    if v.vm_start < old_start or v.vm_end > old_end:
        mas_store(mm, v.vm_start, v.vm_end - 1, vma)
    return 0


def without_hooks(rcu: bool = False) -> Index:
    """The index of before."""
    return Index(
        slabs=(WORD, NODE, BIG, BIG_NODE),
        find=mt_find,
        insert=mt_insert,
        erase=mt_erase,
        resize=mt_resize,
        gap_below=mt_gap_below,
        exit=mt_exit,
        check=mt_check,
        bind={"mt_in_rcu": always, "ma_free_memory": ma_free_rcu} if rcu else {},
    )


@hookimpl
def benchframe_strategies():
    """Both without the hooks."""
    grow = Protocol(vma_grow=grow_under_write_lock)
    return [
        Strategy("maple_without_hooks", "maple, two stores for a cut", without_hooks(), check_messages=MESSAGES),
        Strategy(
            "maple_rcu_without_hooks",
            "maple_rcu likewise",
            without_hooks(rcu=True),
            protocol=grow,
            check_messages=MESSAGES,
        ),
    ]
