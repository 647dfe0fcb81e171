"""Run the table of cases on anything that has the calls: the oracle, the compiled model, the running kernel."""

from typing import Any

from benchframe.judge.judge import Kernel
from benchframe.judge.programs import Make, apply, words_of
from cases.notation import Case, draw


def run_case(case: Case, make: Make) -> list[str]:
    """The case on a fresh judged side: what is wrong, one line each; an empty list if all is as the table says."""
    side = make()
    for op in case.setup:
        side, result = apply(side, op)
        if -4096 < result < 0:
            return [f"setup {op} failed: {result}"]
    before = draw(words_of(side.layout()), case.first)
    if case.fail_prealloc:
        lacking: Any = side
        lacking.fail_prealloc = True
    side, result = apply(side, case.call)
    return _compare(case, before, result, draw(words_of(side.layout()), case.first))


def run_case_on_kernel(case: Case, kernel: Kernel) -> list[str]:
    """The same on the running kernel."""
    answer = kernel.run([*case.setup, case.call])
    failed = [
        f"setup {op} failed: {result}"
        for op, result in zip(case.setup, answer.results, strict=False)
        if -4096 < result < 0
    ]
    before, after = (draw(layout, case.first) for layout in answer.layouts[-2:])
    return failed or _compare(case, before, answer.results[-1], after)


def _compare(case: Case, before: str, result: int, after: str) -> list[str]:
    """Three things must be as the table says."""
    triples = (("before", case.before, before), ("ret", case.ret, result), ("after", case.after, after))
    return [f"{what}: the table says {want!r}, got {got!r}" for what, want, got in triples if want != got]
