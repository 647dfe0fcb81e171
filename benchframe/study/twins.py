"""A plugin of strategies with known differences: copies of the red-black tree, and one that does more work.

Loaded only by `benchframe selftest`. A copy runs exactly the code of `rbtree` (equal code is compiled once), so every
difference from it is a measurement error. The slowed twin walks the tree a second time on one lookup in PERIOD.
"""

from benchframe.dialect import NULL, native
from benchframe.mm.hooks import index_find
from benchframe.strategy import Cache, Strategy, hookimpl

COPIES = tuple(f"rbtree-copy{i}" for i in range(1, 6))
SLOWED = "rbtree-slowed"
BASELINE = "rbtree"
PERIOD = 16


@native
def walk_again(mm, task, addr):
    """Caches nothing; each PERIOD-th lookup walks the tree a second time. The result of the walk is stored, so that the
    compiler cannot remove it."""
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
