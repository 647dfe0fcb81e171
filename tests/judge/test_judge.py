"""The kernel as judge: it agrees with the oracle, catches every rule switched off, and gives small reproducers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchframe.errors import USAGE, UsageError
from benchframe.judge import child
from benchframe.judge.command import DIFFERENT, EQUAL, as_c, as_python, report, run_oracle_command
from benchframe.judge.judge import (
    BATCH,
    PROBES,
    JudgeError,
    Kernel,
    check,
    host_limits,
    judge,
    maker,
    oracle_side,
    probe,
    rehearse,
    shrink,
    supported,
)
from benchframe.judge.programs import ZONES, Op, Row, generator
from benchframe.oracle import Limits, Oracle, Rules, flip

pytestmark = pytest.mark.skipif(bool(supported()), reason=supported() or "supported")
AT = child.ARENA + (64 << 20)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """One judging process for the module."""
    with Kernel() as process:
        yield process


@pytest.fixture(scope="module")
def rules(kernel: Kernel) -> Rules:
    """The running kernel's rules."""
    return probe(kernel, host_limits()).rules


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("text", [False, True], ids=["query", "text"])
def test_the_kernel_agrees_with_the_oracle(name: str, text: bool, rules: Rules) -> None:
    """Thousands of random operations: results, areas and flags equal, read either way."""
    with Kernel(text_maps=text) as process:
        if name == "brk" and not process.has_brk:
            pytest.skip("this kernel cannot move the break")
        outcome = judge(maker(oracle_side, rules, host_limits()), 2000 if text else 6000, 20, name, process)
    assert outcome.mismatches == []
    assert outcome.ops >= 2000
    assert outcome.flag_checks >= 7
    assert outcome.grew > 100
    assert outcome.shrank > 50
    assert outcome.errnos


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("merge_conditions", "merge"),
        ("merge_flags", "merge"),
        ("merge_pgoff", "merge"),
        ("merge_file", "mixed"),
        ("account_history", "mixed"),
        ("mremap_resets_pgoff", "merge"),
        ("sigbus_past_end", "mixed"),
        ("anon_vma_reuse", "merge"),
    ],
)
def test_a_rule_switched_off_is_caught(rule: str, name: str, kernel: Kernel, rules: Rules) -> None:
    """The comparison has teeth: without the rule a mismatch comes soon, and shrinks to a few operations."""
    make = maker(oracle_side, flip(rules, rule), host_limits())
    outcome = judge(make, 20_000, 20, name, kernel)
    assert len(outcome.mismatches) == 1
    small = shrink(make, outcome.mismatches[0], kernel)
    assert len(small.ops) <= min(8, len(outcome.mismatches[0].ops))
    assert check(make, small.ops, kernel) is not None
    assert all(check(make, [*small.ops[:at], *small.ops[at + 1 :]], kernel) is None for at in range(len(small.ops)))


def test_every_rule_switched_off_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """`benchframe oracle --ablate all`."""
    assert run_oracle_command(ops=200_000, seed=1, ablate="all") == EQUAL
    assert "NOT" not in capsys.readouterr().out


def test_a_run_goes_on_where_another_ended(kernel: Kernel, rules: Rules) -> None:
    """Two batches and the two after them are the four of one run; the first two again are not."""
    make = maker(oracle_side, rules, host_limits())
    whole = judge(make, 4 * BATCH, 5, "mixed", kernel)
    begun, ended = (judge(make, 2 * BATCH, 5, "mixed", kernel, first=first) for first in (0, 2))
    assert whole.ops == begun.ops + ended.ops == 4 * BATCH
    assert whole.areas == begun.areas + ended.areas
    assert whole.errnos == begun.errnos + ended.errnos != begun.errnos + begun.errnos


@pytest.mark.parametrize("name", PROBES)
def test_each_probe_can_tell(name: str) -> None:
    """The oracle answers a probe's program differently with the switch on and off; else probing would be blind."""
    told = [
        rehearse(maker(oracle_side, replace(Rules(), **{name: value}), host_limits()), PROBES[name])
        for value in (True, False)
    ]
    assert (told[0].results, told[0].layouts, told[0].flags) != (told[1].results, told[1].layouts, told[1].flags)


def test_probing_knows_this_kernel(kernel: Kernel) -> None:
    """No probe is answered in a way that the oracle cannot give."""
    assert probe(kernel, host_limits()).unclear == []


class Forgetful(Oracle):
    """A judged side with a bug: it forgets the last area."""

    def layout(self) -> list[Row]:
        """All but one."""
        return super().layout()[:-1]

    def layout_flags(self) -> list[str]:
        """No flags."""
        return []


def test_any_side_can_be_judged(kernel: Kernel) -> None:
    """A side is any object with the calls; a wrong list of areas is caught at the first mapping."""
    outcome = judge(Forgetful, 1000, 3, "merge", kernel)
    assert len(outcome.mismatches) == 1
    small = shrink(Forgetful, outcome.mismatches[0], kernel)
    assert len(small.ops) == 1
    assert "areas differ" in report(small)


def test_generators_are_seeded() -> None:
    """The same seed and areas give the same operations; another seed gives others."""

    def draw(seed: str) -> list[Op]:
        source = generator("mixed", seed)
        return [source.next([]) for _ in range(50)]

    assert draw("a") == draw("a")
    assert draw("a") != draw("b")
    with pytest.raises(ValueError, match="mixed, merge, huge, brk"):
        generator("mixd", "a")


@pytest.mark.parametrize(
    "op",
    [
        Op(child.MMAP, 0x400000, 4096, 3, 0x32, child.MASK, 0),
        Op(child.MUNMAP, AT, 1 << 40),
        Op(child.MADVISE, AT, 1 << 40, 4),
        Op(child.MREMAP, AT, 4096, 4096, 3, 0x400000),
        Op(child.MREMAP, AT, (1 << 47), 4096, 1),
        Op(child.MREMAP, AT, 1 << 46, 4096, 1),
        Op(child.MPROTECT, AT, 1 << 46, 0x01000001),
        Op(child.MPROTECT, 0x7F0000000000, 4096, 0),
        Op(child.TOUCH, 0x400000, 2),
        Op(child.BRK, child.ARENA_END + 1),
    ],
    ids=str,
)
def test_operations_that_could_do_damage_are_refused(op: Op, kernel: Kernel) -> None:
    """Nothing that could reach outside the arena is ever sent."""
    assert not child.harmless(op)
    with pytest.raises(ValueError, match="outside the arena"):
        kernel.send([op])


def test_growth_beyond_the_arena_is_not_asked() -> None:
    """With five levels of page tables 2^47 bytes are no refused length: what lies above the arena would decide."""
    grows = Op(child.MREMAP, child.ARENA, child.PAGE, 1 << 47, 1)
    assert child.harmless(grows, child.TASK_SIZE)
    assert not child.harmless(grows, child.TASK_SIZE_5)


def test_a_judging_process_that_ends_is_reported() -> None:
    """No hang and no traceback from deep inside: one error that says what happened."""
    with Kernel() as process:
        process.process.kill()
        process.process.wait()
        with pytest.raises(JudgeError, match=r"gone|died"):
            process.run([Op(child.FORK)])


DYING = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("child", {file!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
perform = child.Worker.perform
def mortal(worker, op):
    return os.kill(os.getpid(), 11) if op[0] == child.MUNMAP else perform(worker, op)
child.Worker.perform = mortal
child.main()
"""


@pytest.mark.parametrize("before", [[], [Op(child.FORK), Op(child.FORK)]], ids=["worker", "grandchild"])
def test_what_killed_the_judging_process_is_named(
    before: list[Op], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal and the operation, also when a child of the worker dies. (Once a system call that the kernel
    understood otherwise unmapped the process's own code.)"""
    script = tmp_path / "dying.py"
    script.write_text(DYING.format(file=child.__file__))
    monkeypatch.setattr(child, "__file__", str(script))
    ops = [*before, Op(child.MMAP, AT, 8192, 3, 0x32, child.MASK, 0), Op(child.MUNMAP, AT, 4096), Op(child.FORK)]
    wanted = f"killed by SIGSEGV in operation {len(before) + 1} of the batch: munmap({AT:#x}, 0x1000)"
    with Kernel() as process, pytest.raises(JudgeError, match=re.escape(wanted)):
        process.run(ops)


def test_a_batch_that_takes_too_long_is_ended() -> None:
    """The timeout kills the judging process."""
    with Kernel() as process:
        process.timeout = 0.0
        with pytest.raises(JudgeError, match="no answer"):
            process.run([Op(child.FORK)] * 200)
        assert process.process.poll() is not None


def a_program(kernel: Kernel) -> tuple[list[Op], str]:
    """A program that uses every helper of the snippets, and the kernel's access letters for its areas."""
    ops = [
        Op(child.MMAP, AT, 8192, 3, 0x32, child.MASK, 0),
        Op(child.MMAP, AT + 65536, 4096, 1, 0x12, 2, 4096),
        Op(child.TOUCH, AT, 2),
        Op(child.FORK),
        Op(child.MPROTECT, AT, 4096, 1),
        Op(child.TOUCH, AT, 1),
        Op(child.BRK, child.BRK_BASE + 10),
        Op(child.MUNMAP, AT + 4096, 4096),
    ]
    return ops, f"{AT:x}-{AT + 4096:x} r--p"


def test_the_python_reproducer_runs(kernel: Kernel, tmp_path: Path) -> None:
    """It performs the same calls and prints the areas the kernel made."""
    ops, line = a_program(kernel)
    script = tmp_path / "case.py"
    script.write_text(as_python(ops, "example"))
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
    assert f"brk {child.BRK_BASE + 10:#x} = {child.BRK_BASE + 10:#x}" in done.stdout


@pytest.mark.needs_debian("cc")
def test_the_c_reproducer_compiles_and_runs(kernel: Kernel, tmp_path: Path) -> None:
    """Without a warning, and with the same result."""
    ops, line = a_program(kernel)
    (tmp_path / "case.c").write_text(as_c(ops, "example"))
    build = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "case"), str(tmp_path / "case.c")]
    subprocess.run(build, check=True, timeout=60)
    done = subprocess.run([tmp_path / "case"], capture_output=True, text=True, timeout=60, check=True)
    assert line in done.stdout


def test_the_command_saves_a_reproducer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mismatch: exit code 1, the program shrunk and printed, three files written."""
    save = tmp_path / "found"
    assert run_oracle_command(ops=20_000, generator="merge", ablate="merge_pgoff", save=save) == DIFFERENT
    printed = capsys.readouterr().out
    assert "shrunk to" in printed
    assert "import ctypes" in printed
    assert [(tmp_path / f"found{suffix}").stat().st_size > 100 for suffix in (".txt", ".py", ".c")] == [True] * 3


def test_the_command_agrees_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """No mismatch: exit code 0, and the number of operations is said."""
    assert run_oracle_command(ops=2000, generator="merge", seed=4) == EQUAL
    assert "0 mismatches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"generator": "merg"}, "no generator is called 'merg'; did you mean merge?"),
        ({"ablate": "merge_pgof"}, "no rule is called 'merge_pgof'; did you mean merge_pgoff?"),
        ({"ablate": "xyz"}, "no rule is called 'xyz'; choose one of merge_conditions, "),
    ],
)
def test_the_command_refuses_unknown_names(wrong: dict[str, str], says: str) -> None:
    """A misspelt generator or rule: exit code 2, one line with the nearest name or all."""
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        run_oracle_command(ops=10, **wrong)  # type: ignore[arg-type]
    assert caught.value.exit_code == USAGE
    assert "\n" not in str(caught.value)


def test_limits_of_this_process_are_sensible() -> None:
    """What is read from /proc and getrlimit can be a process's limits."""
    limits = host_limits()
    assert isinstance(limits, Limits)
    assert limits.max_map_count > 1000
    assert limits.overcommit_max > 1 << 24
