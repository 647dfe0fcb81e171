"""A plugin of strategies whose truth is known: copies of the red-black tree, and one that does more work.

Loaded by `benchframe selftest` alone. A copy runs the very code of `rbtree` (what is equal is compiled once), so every
difference to it is an error of the measurement. The slowed twin walks the tree a second time on one lookup in PERIOD.
"""

from benchframe.dialect import NULL, native
from benchframe.hookspecs import hookimpl
from benchframe.mm.hooks import index_find
from benchframe.strategy import Cache, Strategy

COPIES = tuple(f"rbtree-copy{i}" for i in range(1, 6))
SLOWED = "rbtree-slowed"
BASELINE = "rbtree"
PERIOD = 16


@native
def walk_again(mm, task, addr):
    """Nothing is ever cached; each PERIOD-th lookup walks the tree for nothing. The walk's end is stored, so that the
    compiler cannot leave it out."""
    turn = mm.strategy0 + 1
    mm.strategy0 = turn
    if turn & 15 == 0:
        mm.strategy1 = index_find(mm, addr)
    return NULL


@hookimpl
def benchframe_strategies():
    """Five copies and the slowed one."""
    copies = [Strategy(name, "rbtree under another name", BASELINE) for name in COPIES]
    slowed = Strategy(SLOWED, f"rbtree that walks twice, once in {PERIOD}", BASELINE, cache=Cache(find=walk_again))
    return [*copies, slowed]
