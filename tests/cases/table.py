"""The table: situations that the kernel's own VMA tests look at, and those of the errno rules, in our notation.

The situations are those of tools/testing/vma and tools/testing/selftests/mm/merge.c; the words and code are ours.
"""

from benchframe.judge.child import MREMAP, PAGE
from benchframe.judge.programs import Op
from cases.notation import HEAP, Case, adv, brk, fork, grow, lock, m, mf, mv, p, pr, rd, sh, shared, un, unlock, wr

EINVAL, ENOMEM, EACCES, EFAULT, EEXIST = -22, -12, -13, -14, -17
BOTH_WAYS = {"anon_vma_merge_both_ways": True}
COPIED = {"anon_vma_copied_from": True}

NEW = [
    Case("case 1: a new range joins both neighbours", (m(0, 2), m(4, 2)), "ww..ww", m(2, 2), "wwwwww", p(2), 1),
    Case("case 2: a new range joins the area before", (m(0, 2), m(5, 1)), "ww...w", m(2, 2), "wwww.w", p(2), 2),
    Case("case 3: a new range joins the area after", (m(0, 1), m(4, 2)), "w...ww", m(2, 2), "w.wwww", p(2), 3),
    Case("a new range touches nothing", (m(0, 1), m(4, 1)), "w...w", m(2, 1), "w.w.w", p(2)),
    Case("other protection: no merge", (m(0, 2), m(4, 2)), "ww..ww", m(2, 2, "r"), "ww|rr|ww", p(2)),
    Case("NORESERVE is a flag that must match", (m(0, 2),), "ww", m(2, 2, flags=0x4032), "ww|ww", p(2)),
    Case("a mapping replaces what lies under it", (m(0, 6),), "wwwwww", m(2, 2, "r"), "ww|rr|ww", p(2)),
    Case("replacing like with like merges", (m(0, 6),), "wwwwww", m(2, 2), "wwwwww", p(2)),
    Case(
        "a replaced middle joins written neighbours of one anon_vma",
        (m(0, 6), wr(0)),
        "wwwwww",
        m(2, 2),
        "wwwwww",
        p(2),
        1,
    ),
    Case(
        "neighbours with different anon_vmas: only the first joins",
        (m(0, 2), m(4, 2), wr(0), wr(4)),
        "ww..ww",
        m(2, 2),
        "wwww|ww",
        p(2),
        2,
    ),
    Case("one neighbour written: both join", (m(0, 2), m(4, 2), wr(0)), "ww..ww", m(2, 2), "wwwwww", p(2), 1),
    Case("the other neighbour written: both join", (m(0, 2), m(4, 2), wr(4)), "ww..ww", m(2, 2), "wwwwww", p(2), 1),
    Case(
        "an inherited neighbour is not extended",
        (m(0, 2), wr(0), fork()),
        "ww",
        m(2, 2),
        "ww|ww",
        p(2),
    ),
    Case("an unwritten neighbour is extended after fork", (m(0, 2), fork()), "ww", m(2, 2), "wwww", p(2), 2),
    Case("two shared anonymous mappings are two objects", (shared(0, 2),), "WW", shared(2, 2), "WW|WW", p(2)),
    Case("FIXED_NOREPLACE refuses an overlap", (m(0, 4),), "wwww", m(3, 2, flags=0x100022), "wwww", EEXIST),
    Case("FIXED_NOREPLACE takes a hole, and merges", (m(0, 2),), "ww", m(2, 1, flags=0x100022), "www", p(2), 2),
    Case("length 0", (m(0, 1),), "w", m(1, 0), "w", EINVAL),
    Case("GROWSDOWN and shared do not go together", (m(0, 1),), "w", m(2, 1, flags=0x131), "w", EINVAL),
]

FILES = [
    Case("a file continues: joins the area before", (mf(0, 2, 0),), "rr", mf(2, 2, 2), "rrrr", p(2), 2),
    Case("a file continues: joins the area after", (mf(2, 2, 2),), "..rr", mf(0, 2, 0), "rrrr", p(0), 3),
    Case("a hole in a file filled", (mf(0, 2, 0), mf(4, 2, 4)), "rr..rr", mf(2, 2, 2), "rrrrrr", p(2), 1),
    Case("offsets do not continue", (mf(0, 2, 0),), "rr", mf(2, 2, 3), "rr|rr", p(2)),
    Case("another opening of the same file", (mf(0, 2, 0),), "rr", mf(2, 2, 2, file=1), "rr|rr", p(2)),
    Case("another file", (mf(0, 1, 0),), "r", mf(1, 1, 1, file=3), "r|r", p(1)),
    Case("a file beside anonymous memory", (m(0, 2, "r"),), "rr", mf(2, 2, 2), "rr|rr", p(2)),
    Case("shared and private of one file", (mf(0, 2, 0),), "rr", mf(2, 2, 2, flags=0x11), "rr|RR", p(2)),
    Case("shared write to a read-only file", (m(0, 1),), "w", mf(2, 1, 0, 2, "w", 0x11), "w", EACCES),
    Case("any mapping of a write-only file", (m(0, 1),), "w", mf(2, 1, 0, 4, "r"), "w", EACCES),
    Case("read-only shared cannot be made writable", (mf(0, 2, 0, 2, "r", 0x11),), "RR", pr(0, 1, "w"), "RR", EACCES),
    Case(
        "a private file page that was once writable keeps its charge: no merge with a fresh one",
        (mf(0, 2, 0), pr(0, 2, "w"), pr(0, 2, "r")),
        "rr",
        mf(2, 2, 2),
        "rr|rr",
        p(2),
        0,
        {"account_history": True},
    ),
    Case("unwritten anonymous memory loses its charge", (m(0, 2), pr(0, 2, "r")), "rr", m(2, 2, "r"), "rrrr", p(2), 2),
    Case(
        "written anonymous memory keeps its charge", (m(0, 2), wr(0), pr(0, 2, "r")), "rr", m(2, 2, "r"), "rr|rr", p(2)
    ),
    Case("access past the end of a file", (mf(0, 4, 0, 3),), "rrrr", rd(3), "rrrr", EFAULT),
    Case("access to the last, partial page of a file", (mf(0, 4, 0, 3),), "rrrr", rd(2), "rrrr"),
]

CHANGED = [
    Case(
        "case 4: the tail of an area joins the next", (m(0, 4), m(4, 2, "r")), "wwww|rr", pr(2, 2, "r"), "ww|rrrr", 0, 4
    ),
    Case(
        "case 5: the head of an area joins the one before",
        (m(0, 2, "x"), m(2, 4)),
        "xx|wwww",
        pr(2, 2, "x"),
        "xxxx|ww",
        0,
        5,
    ),
    Case("a written head keeps its charge", (m(0, 2, "x"), m(2, 4), wr(2)), "xx|wwww", pr(2, 2, "x"), "xx|xx|ww"),
    Case("case 5, charged alike", (m(0, 2, "a"), m(2, 4)), "aa|wwww", pr(2, 2, "a"), "aaaa|ww", 0, 5),
    Case("case 6: a whole area joins both", (m(0, 6), pr(2, 2, "r")), "ww|rr|ww", pr(2, 2, "w"), "wwwwww", 0, 6),
    Case("case 7: a whole area joins the one before", (m(0, 4), pr(2, 2, "r")), "ww|rr", pr(2, 2, "w"), "wwww", 0, 7),
    Case("case 8: a whole area joins the next", (m(0, 4), pr(0, 2, "r")), "rr|ww", pr(0, 2, "w"), "wwww", 0, 8),
    Case("the middle of an area: two splits", (m(0, 6),), "wwwwww", pr(2, 2, "r"), "ww|rr|ww"),
    Case("a change that changes nothing splits nothing", (m(0, 4),), "wwww", pr(1, 2, "w"), "wwww"),
    Case("a file's whole area joins both", (mf(0, 6, 0), pr(2, 2, "-")), "rr|--|rr", pr(2, 2, "r"), "rrrrrr", 0, 6),
    Case("a file's tail joins the next", (mf(0, 6, 0), pr(4, 2, "-")), "rrrr|--", pr(2, 2, "-"), "rr|----", 0, 4),
    Case("a file's head joins the one before", (mf(0, 6, 0), pr(0, 2, "-")), "--|rrrr", pr(2, 2, "-"), "----|rr", 0, 5),
    Case("over three areas at once", (m(0, 6), pr(2, 2, "a")), "ww|aa|ww", pr(1, 4, "a"), "w|aaaa|w"),
    Case("a hole stops it, the part before stays changed", (m(0, 2), m(3, 2)), "ww.ww", pr(0, 5, "a"), "aa.ww", ENOMEM),
    Case("no area at the start", (m(1, 2),), ".ww", pr(0, 2, "r"), ".ww", ENOMEM),
]

ANON_VMA = [
    Case("unwritten left, unwritten right", (m(0, 4), pr(0, 2, "a")), "aa|ww", pr(0, 2, "w"), "wwww", 0, 8),
    Case(
        "a written area into an unwritten next",
        (m(0, 4), pr(2, 2, "a"), wr(0)),
        "ww|aa",
        pr(0, 2, "a"),
        "aaaa",
        0,
        8,
        BOTH_WAYS,
    ),
    Case(
        "a written area into an unwritten one before",
        (m(0, 4), pr(0, 2, "a"), wr(2)),
        "aa|ww",
        pr(2, 2, "a"),
        "aaaa",
        0,
        7,
        BOTH_WAYS,
    ),
    Case(
        "an unwritten area into a written one before",
        (m(0, 4), pr(2, 2, "a"), wr(0)),
        "ww|aa",
        pr(2, 2, "w"),
        "wwww",
        0,
        7,
    ),
    Case(
        "an unwritten area into a written next", (m(0, 4), pr(0, 2, "a"), wr(2)), "aa|ww", pr(0, 2, "w"), "wwww", 0, 8
    ),
    Case(
        "written on both sides of unwritten, unrelated",
        (m(0, 2), m(4, 2), wr(0), wr(4), m(2, 2, "a")),
        "ww|aa|ww",
        pr(2, 2, "w"),
        "wwww|ww",
        0,
        7,
    ),
    Case(
        "an area written between two unwritten",
        (m(0, 6), pr(2, 2, "a"), wr(2)),
        "ww|aa|ww",
        pr(2, 2, "w"),
        "wwwwww",
        0,
        6,
        BOTH_WAYS,
    ),
    Case(
        "neighbours written one after the other share an anon_vma",
        (m(0, 4), pr(2, 2, "a"), wr(0), wr(2)),
        "ww|aa",
        pr(2, 2, "w"),
        "wwww",
        0,
        7,
    ),
    Case(
        "written apart, then made to touch by mremap: no merge",
        (m(0, 2), m(8, 2), wr(0), wr(8)),
        "ww......ww",
        mv(8, 2, 2),
        "ww|ww",
        p(2),
    ),
    Case(
        "inherited area, unwritten target: no merge",
        (m(0, 4), pr(2, 2, "a"), wr(0), fork()),
        "ww|aa",
        pr(0, 2, "a"),
        "aa|aa",
    ),
    Case(
        "inherited target, unwritten area: no merge",
        (m(0, 4), pr(2, 2, "a"), wr(2), fork()),
        "ww|aa",
        pr(0, 2, "a"),
        "aa|aa",
    ),
    Case(
        "two inherited halves of one area stay two",
        (m(0, 4), wr(0), pr(2, 2, "a"), fork()),
        "ww|aa",
        pr(2, 2, "w"),
        "ww|ww",
    ),
    Case(
        "halves split after fork join again",
        (m(0, 4), wr(0), fork(), pr(2, 2, "a")),
        "ww|aa",
        pr(2, 2, "w"),
        "wwww",
        0,
        7,
    ),
]

UNMAPPED = [
    Case("a hole in the middle", (m(0, 6),), "wwwwww", un(2, 2), "ww..ww"),
    Case("the head", (m(0, 4),), "wwww", un(0, 2), "..ww"),
    Case("the tail", (m(0, 4),), "wwww", un(2, 2), "ww"),
    Case("across areas and holes", (m(0, 2), m(3, 2, "r"), m(6, 2)), "ww.rr.ww", un(1, 6), "w......w"),
    Case("nothing there", (m(0, 1),), "w", un(4, 2), "w"),
    Case("length 0 of munmap", (m(0, 1),), "w", un(0, 0), "w", EINVAL),
]

MOVED = [
    Case("move to a free place", (m(0, 2),), "ww", mv(0, 2, 4), "....ww", p(4)),
    Case("move part of an area", (m(0, 4),), "wwww", mv(1, 2, 6), "w..w..ww", p(6)),
    Case("an unwritten area merges where it lands", (m(0, 2), m(8, 2)), "ww......ww", mv(8, 2, 2), "wwww", p(2), 2),
    Case(
        "unwritten beside written: it lands and merges",
        (m(0, 2), m(8, 2), wr(0)),
        "ww......ww",
        mv(8, 2, 2),
        "wwww",
        p(2),
        2,
    ),
    Case(
        "unwritten between two halves of a written area",
        (m(0, 6), wr(0), un(2, 2), m(8, 2)),
        "ww..ww..ww",
        mv(8, 2, 2),
        "wwwwww",
        p(2),
        1,
    ),
    Case(
        "written memory keeps its offset: no merge elsewhere",
        (m(0, 2), m(8, 2), wr(8)),
        "ww......ww",
        mv(8, 2, 2),
        "ww|ww",
        p(2),
    ),
    Case(
        "written memory back in its place merges",
        (m(0, 4), wr(0), mv(2, 2, 8)),
        "ww......ww",
        mv(8, 2, 2),
        "wwww",
        p(2),
        2,
    ),
    Case(
        "a written area back beside its unwritten other half",
        (m(0, 4), pr(2, 2, "a"), wr(2), mv(2, 2, 8), pr(8, 2, "w")),
        "ww......ww",
        mv(8, 2, 2),
        "wwww",
        p(2),
        2,
        COPIED | BOTH_WAYS,
    ),
    Case(
        "the same with an inherited one: no merge",
        (m(0, 4), pr(2, 2, "a"), wr(2), mv(2, 2, 8), pr(8, 2, "w"), fork()),
        "ww......ww",
        mv(8, 2, 2),
        "ww|ww",
        p(2),
        0,
        COPIED,
    ),
    Case("beside itself it merges with itself", (m(0, 4),), "wwww", mv(0, 2, 4), "..wwww", p(4)),
    Case("over another mapping", (m(0, 2), m(4, 4, "r")), "ww..rrrr", mv(0, 2, 5), "....r|ww|r", p(5)),
    Case("onto itself", (m(0, 4),), "wwww", mv(0, 2, 1), "wwww", EINVAL),
    Case(
        "several areas at once, with the hole between them",
        (m(0, 1), m(2, 1, "r")),
        "w.r",
        mv(0, 3, 5),
        ".....w.r",
        p(5),
        0,
        {"mremap_many": True},
    ),
    Case("a hole at the start", (m(1, 2),), ".ww", mv(0, 3, 5), ".ww", EFAULT),
    Case("grow in place", (m(0, 2),), "ww", grow(0, 2, 4), "wwww", p(0)),
    Case("grow until it touches the next and merges", (m(0, 2), m(4, 2)), "ww..ww", grow(0, 2, 4), "wwwwww", p(0)),
    Case(
        "grow, written against written: stay apart",
        (m(0, 2), m(4, 2), wr(0), wr(4)),
        "ww..ww",
        grow(0, 2, 4),
        "wwww|ww",
        p(0),
    ),
    Case(
        "an inherited area that grows takes over an unwritten one",
        (m(0, 2), wr(0), fork(), m(4, 2)),
        "ww..ww",
        grow(0, 2, 4),
        "wwwwww",
        p(0),
        0,
        BOTH_WAYS,
    ),
    Case("no room to grow", (m(0, 2), m(3, 1)), "ww.w", grow(0, 2, 4), "ww.w", ENOMEM),
    Case("not the end of the area: no growing in place", (m(0, 4),), "wwww", grow(0, 2, 6), "wwww", ENOMEM),
    Case("shrink", (m(0, 4),), "wwww", grow(0, 4, 1), "w", p(0)),
    Case("grow while moving", (m(0, 2),), "ww", mv(0, 2, 4, 3, 4), "....wwww", p(4)),
    Case("shrink while moving", (m(0, 4),), "wwww", mv(0, 4, 6, 3, 2), "......ww", p(6)),
    Case("DONTUNMAP leaves the source", (m(0, 2),), "ww", mv(0, 2, 4, 7), "ww..ww", p(4)),
    Case(
        "DONTUNMAP of a written area frees its anon_vma",
        (m(0, 2), wr(0), mv(0, 2, 8, 7)),
        "ww......ww",
        m(2, 2),
        "wwww....ww",
        p(2),
        2,
    ),
    Case("old length 0 duplicates a shared mapping", (shared(0, 2),), "WW", mv(0, 0, 4, 3, 2), "WW..WW", p(4)),
    Case("old length 0 of a private mapping", (m(0, 2),), "ww", mv(0, 0, 4, 3, 2), "ww", EINVAL),
    Case("FIXED without MAYMOVE", (m(0, 2),), "ww", mv(0, 2, 4, 2), "ww", EINVAL),
    Case("growing over two areas", (m(0, 2), m(2, 2, "r")), "ww|rr", grow(0, 4, 6, 1), "ww|rr", EFAULT),
]

ADVISED = [
    Case("a flag splits", (m(0, 6),), "wwwwww", adv(2, 2, 10), "ww|ww|ww"),
    Case("taking it back merges", (m(0, 6), adv(2, 2, 10)), "ww|ww|ww", adv(2, 2, 11), "wwwwww", 0, 6),
    Case("a flag over a hole: the rest is done", (m(0, 2), m(3, 2)), "ww.ww", adv(1, 3, 10), "w|w.w|w", ENOMEM),
    Case("different advice keeps areas apart", (m(0, 4), adv(0, 2, 1)), "ww|ww", adv(2, 2, 2), "ww|ww"),
    Case("the same advice brings them together", (m(0, 4), adv(0, 2, 1)), "ww|ww", adv(2, 2, 1), "wwww", 0, 7),
    Case("DONTNEED changes no area", (m(0, 4),), "wwww", adv(1, 2, 4), "wwww"),
    Case("WIPEONFORK of a file", (mf(0, 2, 0),), "rr", adv(0, 1, 18), "rr", EINVAL),
    Case("unknown advice", (m(0, 1),), "w", adv(0, 1, 7), "w", EINVAL),
    Case("locked memory is not given back", (m(0, 2), lock(0, 2)), "ww", adv(0, 2, 4), "ww", EINVAL),
    Case("populate by writing at a hole", (m(0, 1),), "w", adv(0, 2, 23), "w", ENOMEM),
    Case("populate by writing without permission", (m(0, 1, "r"),), "r", adv(0, 1, 23), "r", EINVAL),
    Case("a guard region does not split", (m(0, 4),), "wwww", adv(1, 2, 102), "wwww", 0, 0, {"guard": True}),
    Case("access to a guard region", (m(0, 4), adv(1, 2, 102)), "wwww", rd(1), "wwww", EFAULT, 0, {"guard": True}),
    Case(
        "a removed guard region",
        (m(0, 4), adv(1, 2, 102), adv(1, 1, 103)),
        "wwww",
        rd(1),
        "wwww",
        0,
        0,
        {"guard": True},
    ),
    Case(
        "a guard region moves along",
        (m(0, 2), adv(0, 1, 102), mv(0, 2, 4)),
        "....ww",
        rd(4),
        "....ww",
        EFAULT,
        0,
        {"guard": True},
    ),
    Case("mlock splits", (m(0, 6),), "wwwwww", lock(2, 2), "ww|ww|ww"),
    Case("munlock merges again", (m(0, 6), lock(2, 2)), "ww|ww|ww", unlock(2, 2), "wwwwww", 0, 6),
    Case("mlock across a hole", (m(0, 1), m(2, 1)), "w.w", lock(0, 3), "w.w", ENOMEM),
    Case("DONTFORK: not in the child", (m(0, 2), m(3, 1), adv(0, 2, 10)), "ww.w", fork(), "...w"),
]

STACKS = [
    Case("an area grows down to the page touched", (m(8, 2, flags=0x132),), "........ww", wr(3), "...wwwwwww"),
    Case("it does not grow upwards", (m(8, 2, flags=0x132),), "........ww", wr(10), "........ww", EFAULT),
    Case("ordinary memory does not grow", (m(8, 2),), "........ww", wr(7), "........ww", EFAULT),
    Case(
        "the guard gap to an accessible mapping stops it",
        (m(0, 1), m(8, 1, flags=0x132)),
        "w.......w",
        wr(5),
        "w.......w",
        EFAULT,
    ),
    Case("an inaccessible mapping may come close", (m(0, 1, "-"), m(4, 1, flags=0x132)), "-...w", wr(1), "-|wwww"),
    Case("it grows before the permission is looked at", (m(4, 1, "r", 0x132),), "....r", wr(2), "..rrr", EFAULT),
]

HEAPS = [
    Case(
        "brk grows the area before alone",
        (brk(2), m(HEAP + 5, 2)),
        "ww...ww",
        brk(4),
        "wwww.ww",
        p(HEAP + 4),
        first=HEAP,
    ),
    Case(
        "brk expands its area alone, which an area lies before (expand_only_mode)",
        (m(HEAP - 5, 2), brk(2)),
        "ww...ww",
        brk(6),
        "ww...wwwwww",
        p(HEAP + 6),
        first=HEAP - 5,
    ),
    Case(
        "brk leaves a page to the next area",
        (brk(2), m(HEAP + 4, 2)),
        "ww..ww",
        brk(4),
        "ww..ww",
        p(HEAP + 2),
        first=HEAP,
    ),
    Case(
        "a mapping joins the heap and what follows",
        (brk(2), m(HEAP + 3, 2)),
        "ww.ww",
        m(HEAP + 2, 1),
        "wwwww",
        p(HEAP + 2),
        1,
        first=HEAP,
    ),
    Case(
        "brk begins an area where the last one differs",
        (brk(3), pr(HEAP + 2, 1, "r")),
        "ww|r",
        brk(5),
        "ww|r|ww",
        p(HEAP + 5),
        first=HEAP,
    ),
    Case("brk shrinks", (brk(4),), "wwww", brk(1), "w", p(HEAP + 1), first=HEAP),
]

_LOCKED = m(0, 2, flags=0x2032)
_BACK = (m(0, 2), wr(0), mv(0, 2, 16), mv(16, 2, 0, 7))
_TOO_LONG = Op(MREMAP, p(0), PAGE, 1 << 62, 1, 0)


def _either(name: str, setup: tuple[Op, ...], before: str, call: Op, **outcomes: tuple[str, int]) -> list[Case]:
    """One situation under each combination of switches: ``RULE=..., no_RULE=...``, several joined by ``__``."""
    return [
        Case(
            f"{name}, {key.replace('__', ' ')}",
            setup,
            before,
            call,
            after,
            ret,
            needs={word.removeprefix("no_"): not word.startswith("no_") for word in key.split("__")},
        )
        for key, (after, ret) in outcomes.items()
    ]


KERNELS = [
    *_either(
        "execute-only memory is read", (m(0, 1, "e"),), "e", rd(0), execute_only=("e", EFAULT), no_execute_only=("e", 0)
    ),
    *_either(
        "mremap of a hole to too great a length",
        (m(2, 1),),
        "..w",
        _TOO_LONG,
        mremap_checks_length_first=("..w", EINVAL),
        no_mremap_checks_length_first=("..w", EFAULT),
    ),
    *_either(
        "MREMAP_DONTUNMAP to a length of as many pages",
        (m(0, 1),),
        "w",
        Op(MREMAP, p(0), PAGE - 8, PAGE, 7, p(2)),
        dontunmap_rounds_lengths=("w.w", p(2)),
        no_dontunmap_rounds_lengths=("w", EINVAL),
    ),
    *_either(
        "unfaulted memory loses write permission and meets its like",
        (m(0, 1), pr(0, 1, "r")),
        "r",
        m(1, 1, "r"),
        account_unfaulted=("rr", p(1)),
        no_account_unfaulted=("r|r", p(1)),
    ),
    *_either(
        "MADV_POPULATE_READ over a hole and what cannot be read",
        (m(1, 1, "-"),),
        ".-",
        adv(0, 2, 22),
        populate_stops_at_hole=(".-", ENOMEM),
        no_populate_stops_at_hole=(".-", EINVAL),
    ),
    *_either(
        "a stack beside a plain mapping",
        (m(0, 1),),
        "w",
        m(1, 1, flags=0x20032),
        stack_nohuge=("w|w", p(1)),
        no_stack_nohuge=("ww", p(1)),
    ),
    *_either(
        "DONTUNMAP to the place behind",
        (m(0, 2),),
        "ww",
        mv(0, 2, 2, 7),
        dontunmap_merges_source=("wwww", p(2)),
        no_dontunmap_merges_source=("ww|ww", p(2)),
    ),
    *_either(
        "DONTUNMAP between the source and another area",
        (m(0, 2), m(4, 2)),
        "ww..ww",
        mv(0, 2, 2, 7),
        no_dontunmap_merges_source=("ww|wwww", p(2)),
        no_dontunmap_merges_source__no_dontunmap_merges_beside_source=("ww|ww|ww", p(2)),
    ),
    *_either(
        "DONTUNMAP of a part of locked memory",
        (_LOCKED,),
        "ww",
        mv(0, 1, 4, 7),
        dontunmap_splits_locked=("w|w..w", p(4)),
        no_dontunmap_splits_locked=("ww..w", p(4)),
    ),
    *_either(
        "a new neighbour of what DONTUNMAP left",
        _BACK,
        "ww..............ww",
        m(18, 2),
        dontunmap_resets_pgoff=("ww..............wwww", p(18)),
        no_dontunmap_resets_pgoff=("ww..............ww|ww", p(18)),
    ),
]
"""Where kernels differ: what each of them does."""

GROWS = {"merge_closing": True}
CLOSING = [
    Case(
        "vm_ops->close: a whole area joins none, since it must not be freed",
        (sh(0, 6), pr(2, 2, "r")),
        "WW|RR|WW",
        pr(2, 2, "w"),
        "WW|WW|WW",
    ),
    Case(
        "vm_ops->close: a head joins the area before",
        (sh(0, 6), pr(2, 2, "r")),
        "WW|RR|WW",
        pr(2, 1, "w"),
        "WWW|R|WW",
        0,
        5,
        GROWS,
    ),
    Case(
        "vm_ops->close: a tail joins the next area",
        (sh(0, 6), pr(2, 2, "r")),
        "WW|RR|WW",
        pr(3, 1, "w"),
        "WW|R|WWW",
        0,
        4,
        GROWS,
    ),
    Case(
        "vm_ops->close: up to 6.2 none grows",
        (sh(0, 6), pr(2, 2, "r")),
        "WW|RR|WW",
        pr(2, 1, "w"),
        "WW|W|R|WW",
        needs={"merge_closing": False},
    ),
    Case(
        "vm_ops->close: a range that comes back between two areas joins the first, and the next stays",
        (sh(0, 6), mv(2, 2, 8)),
        "WW..WW..WW",
        mv(8, 2, 2),
        "WWWW|WW",
        p(2),
        2,
        GROWS,
    ),
    Case(
        "vm_ops->close: a range that comes back joins the next area",
        (sh(0, 6), mv(0, 2, 8)),
        "..WWWW..WW",
        mv(8, 2, 0),
        "WWWWWW",
        p(0),
        3,
        GROWS,
    ),
    Case(
        "vm_ops->close: up to 6.2 mremap lets one grow where it is nevertheless",
        (sh(0, 2),),
        "WW",
        grow(0, 2, 4),
        "WWWW",
        p(0),
        needs={"merge_closing": False},
    ),
    Case("vm_ops->close: two segments are two files", (sh(0, 2),), "WW", sh(2, 2), "WW|WW", p(2)),
    Case(
        "a part of a segment is not moved together with another area (vma_multi_allowed)",
        (sh(0, 4), m(4, 2)),
        "WWWW|ww",
        mv(0, 6, 8),
        "WWWW|ww",
        EFAULT,
        needs={"mremap_many": True},
    ),
    Case("vm_ops->close: munmap splits as always", (sh(0, 6),), "WWWWWW", un(2, 2), "WW..WW"),
]


def _lacking(name: str, setup: tuple[Op, ...], before: str, call: Op, ret: int = ENOMEM, first: int = 0) -> Case:
    """Without memory for the index nothing changes."""
    return Case(f"no memory for nodes: {name}", setup, before, call, before, ret, first=first, fail_prealloc=True)


PREALLOC = [
    _lacking("a new area", (m(0, 1),), "w", m(2, 2)),
    _lacking("a new range joins both neighbours", (m(0, 2), m(4, 2)), "ww..ww", m(2, 2)),
    _lacking("a new range joins the area before", (m(0, 2),), "ww", m(2, 2)),
    _lacking("a new range joins the area after", (m(2, 2),), "..ww", m(0, 2)),
    _lacking("case 4", (m(0, 4), m(4, 2, "r")), "wwww|rr", pr(2, 2, "r")),
    _lacking("case 5", (m(0, 2, "a"), m(2, 4)), "aa|wwww", pr(2, 2, "a")),
    _lacking("case 6", (m(0, 6), pr(2, 2, "r")), "ww|rr|ww", pr(2, 2, "w")),
    _lacking("case 7", (m(0, 4), pr(2, 2, "r")), "ww|rr", pr(2, 2, "w")),
    _lacking("case 8", (m(0, 4), pr(0, 2, "r")), "rr|ww", pr(0, 2, "w")),
    _lacking("a split", (m(0, 4),), "wwww", pr(1, 2, "r")),
    _lacking("munmap of two areas", (m(0, 2), m(2, 2, "r")), "ww|rr", un(0, 4)),
    _lacking("munmap of a part", (m(0, 4),), "wwww", un(1, 2)),
    _lacking("a mapping does not replace what lies under it", (m(0, 4),), "wwww", m(0, 4, "r")),
    _lacking("a move", (m(0, 2),), "ww", mv(0, 2, 8)),
    _lacking("mremap grows where it is", (m(0, 2),), "ww", grow(0, 2, 4)),
    _lacking("mremap cuts", (m(0, 4),), "wwww", grow(0, 4, 2)),
    _lacking("mlock of a part", (m(0, 4),), "wwww", lock(0, 2)),
    _lacking("brk stays where it is", (brk(2),), "ww", brk(4), p(HEAP + 2), HEAP),
    Case(
        "no memory for nodes: a change of a whole area stores nothing",
        (m(0, 2), m(4, 2)),
        "ww..ww",
        pr(0, 2, "r"),
        "rr..ww",
        fail_prealloc=True,
    ),
]

CASES = [*NEW, *FILES, *CHANGED, *ANON_VMA, *UNMAPPED, *MOVED, *ADVISED, *STACKS, *HEAPS, *KERNELS, *CLOSING, *PREALLOC]
"""Every case; all eight numbers of vma_merge appear."""
