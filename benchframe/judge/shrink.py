"""Make a failing program small: delta debugging over the list of operations, each try run on the kernel again."""

from collections.abc import Sequence

from benchframe.judge.judge import Mismatch, check
from benchframe.judge.kernel import Kernel
from benchframe.judge.ops import Make, Op


def shrink(make: Make, mismatch: Mismatch, kernel: Kernel, tries: int = 2000) -> Mismatch:
    """The smallest program found that still ends in a disagreement (not always the same one).

    Removes ever smaller runs of operations until none can go (ddmin), or ``tries`` programs were run. Returns the
    mismatch as it was if it cannot be repeated.
    """
    best = check(make, mismatch.ops, kernel)
    if best is None:
        return mismatch
    size = max(1, len(best.ops) // 2)
    while True:
        at, removed = 0, False
        while at < len(best.ops) and tries > 0:
            tries -= 1
            smaller = _without(best.ops, at, at + size)
            found = check(make, smaller, kernel) if smaller else None
            if found is not None:
                best, removed = found, True
            else:
                at += size
        if tries <= 0 or (size == 1 and not removed):
            return best
        size = max(1, size // 2) if not removed or size > 1 else 1


def _without(ops: Sequence[Op], start: int, end: int) -> list[Op]:
    return [*ops[:start], *ops[end:]]
