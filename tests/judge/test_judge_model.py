"""The compiled model as judged side: the table of cases, and the machinery that lets the kernel judge it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from cases.notation import Case, adv, fork, grow, m, mf, mv, pr, wr
from cases.runner import run_case
from cases.table import CASES
from support.compile import compiled
from support.space import registry

from benchframe import verify
from benchframe.judge import child
from benchframe.judge.judge import (
    Kernel,
    Side,
    check,
    host_limits,
    maker,
    model_side,
    probe,
    rehearse,
    speaks,
    supported,
)
from benchframe.judge.kernel_sources import ModelVmas
from benchframe.judge.programs import Calls, Op
from benchframe.mm.machine import Parameters
from benchframe.oracle import Limits, Rules, flip

BEYOND = {"any mapping of a write-only file": "a trace does not say how a file was opened for reading"}

OPEN: dict[str, str] = {}
"""Cases where the model is not yet the kernel: whoever mends one removes it here."""


@cache
def side() -> Side:
    """Sides of the model with the plain red-black tree, compiled once."""
    from benchframe.runner import NativeRunner
    from benchframe.strategy import resolve
    from benchframe_plugins import rbtree

    return model_side(NativeRunner(compiled(resolve(rbtree.benchframe_strategies()[0], {}))))


def without_memory(rules: Rules, limits: Limits) -> Calls:
    """A side of the model with `maple`, interpreted, whose index may lack memory."""
    made = ModelVmas(registry().strategy("maple"), verify.parameters(rules, limits))
    made.exec(child.BRK_BASE)
    return made


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Kernel, Rules]]:
    """The running kernel and the rules it follows."""
    reason = supported()
    if reason:
        pytest.skip(reason)
    with Kernel() as kernel:
        yield kernel, probe(kernel, host_limits()).rules


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in BEYOND], ids=str)
def test_the_model_does_what_the_table_says(case: Case, request: pytest.FixtureRequest) -> None:
    """Layout before, result and layout after are those of the table."""
    if case.name in OPEN:
        request.applymarker(pytest.mark.xfail(reason=OPEN[case.name], strict=True))
    rules = Rules(**case.needs)
    if not all(getattr(Rules(), name) == value or name in verify._SWITCHES for name, value in case.needs.items()):
        pytest.skip("the model keeps to Linux 6.18 here (docs/oracle.md)")
    assert run_case(case, maker(without_memory if case.fail_prealloc else side(), rules, Limits())) == []


@pytest.mark.parametrize("switch", verify._SWITCHES)
def test_parameters_there_and_back(switch: str) -> None:
    """Each switch that model and oracle both have, and every limit, comes back as it went."""
    known = flip(verify.rules(Parameters()), switch)
    limits = Limits(1 << 40, 1 << 39, 4096, False, 99, 8192, 1 << 20)
    made = verify.parameters(known, limits)
    assert made.rules != Parameters().rules
    assert (verify.rules(made), verify.limits(made)) == (known, limits)
    assert verify.rules(replace(made, thp=1)).thp_read_prepares_anon_vma
    assert verify.parameters(known, replace(limits, may_map_low=True)).mmap_min_addr == 0


def test_sides_of_one_machine_are_fresh() -> None:
    """A new side knows nothing of the one before, forks and files included."""
    make = maker(side(), Rules(), Limits())
    program = [m(0, 4), wr(0), fork(), mf(8, 2, 1), pr(1, 1, "r"), mv(8, 2, 12), adv(2, 1, 102), grow(12, 2, 3)]
    first = rehearse(make, program)
    assert first.layouts[-1] != []
    for _ in range(3):
        again = rehearse(make, program)
        assert (again.results, again.layouts, again.flags) == (first.results, first.layouts, first.flags)


def test_sides_of_two_machines_take_turns() -> None:
    """Sides with other rules live on another machine; whoever is made last is the one that answers."""
    program = [m(0, 4), wr(0), mv(0, 2, 12)]
    found = [rehearse(maker(side(), rules, Limits()), program) for rules in (Rules(), flip(Rules(), "droppable")) * 2]
    assert found[0].layouts[-1] != []
    assert [run.results for run in found] == [found[0].results] * 4
    assert [run.layouts for run in found] == [found[0].layouts] * 4


def test_the_kernel_judges_the_model(live: tuple[Kernel, Rules]) -> None:
    """A program over all the calls: results, areas and flags are the kernel's."""
    kernel, rules = live
    program = [
        m(0, 6),
        wr(0),
        pr(2, 2, "r"),
        mf(8, 4, 2, 0, "w"),
        wr(8),
        fork(),
        mv(8, 2, 16),
        adv(0, 1, 10),
        pr(2, 2, "w"),
        grow(16, 2, 3),
        Op(child.BRK, child.BRK_BASE + 5000),
        Op(child.TOUCH, child.BRK_BASE, 2),
        Op(child.MUNMAP, child.BRK_BASE, 4096),
    ]
    make = maker(side(), rules, host_limits())
    assert all(speaks(op) for op in program)
    assert check(make, program, kernel) is None
    wrong = maker(side(), Rules(guard_flag=not rules.guard_flag), host_limits())
    assert check(wrong, [m(0, 2), wr(0), adv(0, 1, 102)], kernel) is not None


def test_what_a_trace_cannot_hold_is_not_asked() -> None:
    """Numbers from 2**63 on, unknown files and files not open for reading are left out."""
    assert speaks(mf(0, 1, 0, file=2))
    assert not speaks(mf(0, 1, 0, file=4))
    assert not speaks(mf(0, 1, 0, file=99))
    assert not speaks(Op(child.MUNMAP, 4096, 1 << 63))
    assert speaks(Op(child.MUNMAP, 4096, 1 << 62))


def test_too_many_forks_are_reported() -> None:
    """A program with more forks than the machine has address spaces ends in an error that says so."""
    with pytest.raises(RuntimeError, match="forks"):
        rehearse(maker(side(), Rules(), Limits()), [fork()] * 80)
