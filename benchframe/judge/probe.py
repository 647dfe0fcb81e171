"""Which rules does the running kernel follow? One small program per switch, run on the kernel and on the oracle.

A switch is set to the value with which the oracle gives the kernel's answers. Kernel names and version numbers are
never looked at: vendors move rules between versions.
"""

from dataclasses import dataclass, field, replace

from benchframe.judge.child import ARENA, FORK, MADVISE, MASK, MMAP, MPROTECT, MREMAP, TASK_SIZE, TOUCH
from benchframe.judge.judge import check
from benchframe.judge.kernel import Kernel
from benchframe.judge.ops import Op
from benchframe.judge.sides import maker, oracle_side
from benchframe.oracle import Limits, Rules

_P = 4096
_A = ARENA + (64 << 20)
_FIXED = 0x32  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def _anon(page: int, pages: int, prot: int = 3, flags: int = _FIXED) -> Op:
    return Op(MMAP, _A + page * _P, pages * _P, prot, flags, MASK, 0)


def _advise(page: int, pages: int, advice: int) -> Op:
    return Op(MADVISE, _A + page * _P, pages * _P, advice)


def _protect(page: int, pages: int, prot: int) -> Op:
    return Op(MPROTECT, _A + page * _P, pages * _P, prot)


def _write(page: int) -> Op:
    return Op(TOUCH, _A + page * _P, 2)


def _move(page: int, pages: int, flags: int, target: int) -> Op:
    return Op(MREMAP, _A + page * _P, pages * _P, pages * _P, flags, _A + target * _P)


PROBES: dict[str, list[Op]] = {
    "thp": [_anon(0, 1), _advise(0, 1, 15)],
    "ksm": [_anon(0, 1), _advise(0, 1, 12)],
    "droppable": [_anon(0, 1, flags=0x38)],
    "swap": [_anon(0, 1), _advise(0, 1, 3)],
    "guard": [_anon(0, 1), _advise(0, 1, 103)],
    "guard_file": [Op(MMAP, _A, _P, 3, 0x12, 0, 0), _advise(0, 1, 103)],
    "guard_flag": [_anon(0, 1), _write(0), _advise(0, 1, 102)],
    # Two areas that differ only in protection; one gets a guard region, one is written: equal again, do they merge?
    "guard_prepares_anon_vma": [_anon(0, 2), _anon(4, 2), _advise(0, 1, 102), _write(5), _anon(2, 2), _write(2)],
    # A faulted area, made equal to its unfaulted neighbour.
    "anon_vma_merge_both_ways": [_anon(0, 4), _protect(2, 2, 7), _write(0), _protect(0, 2, 7)],
    "mremap_checks_length_first": [Op(MREMAP, _A, _P, TASK_SIZE + _P, 1, 0)],
    "mremap_checks_first": [_anon(0, 2), _anon(8, 8), Op(MREMAP, _A, 4 * _P, 6 * _P, 3, _A + 8 * _P)],
    "mremap_many": [_anon(0, 2), _anon(2, 2, prot=1), _move(0, 4, 3, 16)],
    "dontunmap_clears_account": [_anon(0, 2), _move(0, 2, 7, 16)],
    # The copy of a written area merges with an unwritten neighbour: does it hand its anon_vma on? A write to the
    # area between them and a change of protection show it.
    "anon_vma_copied_from": [
        _anon(0, 4),
        _protect(2, 2, 1),
        _write(0),
        Op(FORK),
        _move(0, 2, 3, 16),
        _protect(2, 2, 3),
        _move(16, 2, 3, 0),
    ],
    "dontneed_frees_tables": [
        _anon(0, 1024),
        _protect(512, 512, 1),
        Op(TOUCH, _A, 1),
        _advise(0, 512, 4),
        _advise(0, 1024, 14),
        Op(TOUCH, _A, 1),
        Op(FORK),
        _protect(512, 512, 3),
    ],
    # Huge pages may be forbidden altogether: the read then leaves the area without an anon_vma.
    "thp_read_prepares_anon_vma": [
        _anon(0, 2048),
        _advise(0, 2048, 14),
        Op(TOUCH, _A + 512 * _P, 1),
        _anon(2048, 512, prot=1),
        _advise(2048, 512, 14),
        Op(FORK),
        _protect(2048, 512, 3),
    ],
}
"""For each switch that a kernel may have either way: a program that tells."""


@dataclass
class Probed:
    """What probing found."""

    rules: Rules
    changed: list[str] = field(default_factory=list)
    """Switches that differ from the defaults."""
    unclear: list[str] = field(default_factory=list)
    """Switches with which the oracle is wrong either way: a rule that it does not know."""


def probe(kernel: Kernel, limits: Limits) -> Probed:
    """Find the switches of the running kernel; some 15 small programs, about 0.1 s."""
    found = Probed(Rules())
    for name, program in PROBES.items():
        default = bool(getattr(found.rules, name))
        agrees = {
            value: check(maker(oracle_side, replace(found.rules, **{name: value}), limits), program, kernel) is None
            for value in (True, False)
        }
        if not any(agrees.values()):
            found.unclear.append(name)
        elif not agrees[default]:
            found.rules = replace(found.rules, **{name: not default})
            found.changed.append(name)
    return found
