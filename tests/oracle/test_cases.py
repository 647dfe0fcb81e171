"""The table of cases holds for the oracle and for the running kernel."""

from collections.abc import Iterator

import pytest
from cases.notation import Case
from cases.runner import run_case, run_case_on_kernel
from cases.table import CASES

from benchframe.judge.judge import Kernel, host_limits, maker, oracle_side, probe, supported
from benchframe.oracle import RULE_NAMES, Limits, Rules, flip


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Kernel, Rules]]:
    """The running kernel and the rules it follows."""
    reason = supported()
    if reason:
        pytest.skip(reason)
    with Kernel() as kernel:
        yield kernel, probe(kernel, host_limits()).rules


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_oracle_does_what_the_table_says(case: Case) -> None:
    """Layout before, result and layout after are those of the table."""
    assert run_case(case, maker(oracle_side, Rules(**case.needs), Limits())) == []


@pytest.mark.parametrize("case", [case for case in CASES if not case.fail_prealloc], ids=str)
def test_the_kernel_does_what_the_table_says(case: Case, live: tuple[Kernel, Rules]) -> None:
    """The table is not our opinion: the running kernel agrees with each line."""
    kernel, rules = live
    if not kernel.has_brk:
        pytest.skip("this kernel cannot move the break")
    if any(getattr(rules, name) != value for name, value in case.needs.items()):
        pytest.skip("this kernel follows another rule here")
    assert run_case_on_kernel(case, kernel) == []


def test_all_eight_merge_cases_appear() -> None:
    """No case of vma_merge is left out, names are unique, and the switches named exist."""
    assert {case.number for case in CASES} == set(range(9))
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(name in RULE_NAMES for case in CASES for name in case.needs)


def test_a_wrong_model_fails_the_table() -> None:
    """The runner notices: without a rule some cases end differently."""
    for rule in ("merge_pgoff", "merge_flags", "merge_anon_vma", "account_history", "mremap_resets_pgoff"):
        make = maker(oracle_side, flip(Rules(), rule), Limits())
        assert [case.name for case in CASES if run_case(case, make)], rule
