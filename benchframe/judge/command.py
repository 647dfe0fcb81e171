"""``benchframe oracle``: compare an address-space model with the running kernel, and report the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.errors import UsageError, did_you_mean
from benchframe.judge.child import harmless
from benchframe.judge.judge import (
    BATCH,
    Accept,
    JudgeResult,
    Mismatch,
    Side,
    host_limits,
    judge,
    maker,
    oracle_side,
    probe,
    readable_only,
    shrink,
)
from benchframe.judge.kernel import JudgeError, Kernel
from benchframe.judge.programs import ZONES, Make
from benchframe.judge.reproducer import as_c, as_python, report
from benchframe.oracle import RULE_NAMES, Limits, Rules, flip
from benchframe.verify import MODEL_RULES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

DEFAULT_OPS = 100_000
TURN = 8 * BATCH
"""Operations of one generator before the next one's turn, when a rule is switched off."""
EQUAL, DIFFERENT, CANNOT = 0, 1, 2
"""Exit codes: no mismatch; at least one (or a rule not caught); the kernel cannot be asked."""


def run_oracle_command(
    ops: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    generator: str = "all",
    judged: Side = oracle_side,
    ablate: str | None = None,
    save: Path = Path("oracle-mismatch"),
    accept: Accept = harmless,
) -> int:
    """Run the differential test and print the result.

    Args:
        ops: how many operations, over all generators; 100 000 if neither this nor ``minutes`` is given.
        minutes: stop after this long.
        seed: batch n of a generator depends on the seed, its name and n only.
        generator: ``mixed``, ``merge``, ``huge``, ``brk``, or ``all``.
        judged: makes the judged side.
        ablate: a rule to switch off (see :class:`~benchframe.oracle.Rules`), or ``all``: each in turn, and say
            whether it was caught.
        accept: which operations the judged side speaks (``judge.model.speaks`` for the compiled model).
        save: a mismatch is written to this path with ``.txt``, ``.py`` and ``.c`` appended.

    Returns:
        0: no mismatch; 1: a mismatch, or with ``ablate="all"`` a rule that was not caught; 2: cannot judge here.

    Raises:
        UsageError: no such generator or rule.
    """
    from rich.console import Console

    console = Console(highlight=False)
    names = list(ZONES) if generator == "all" else [generator]
    unknown = [name for name in names if name not in ZONES]
    if unknown:
        raise _unknown("generator", unknown[0], ZONES)
    if ablate is not None and ablate not in ("all", *RULE_NAMES):
        raise _unknown("rule", ablate, RULE_NAMES)
    if ops is None:
        ops = DEFAULT_OPS if minutes is None else 1 << 62
    try:
        with Kernel() as kernel:
            limits = host_limits()
            found = probe(kernel, limits)
            console.print(f"kernel {kernel_name()}; {_about(kernel)}")
            if found.changed:
                console.print(f"rules that differ from the defaults: {', '.join(found.changed)}")
            if found.unclear:
                console.print(f"rules unknown to the oracle: {', '.join(found.unclear)}")
            if not kernel.has_brk and "brk" in names:
                console.print("generator brk omitted: this kernel cannot move the break (CONFIG_CHECKPOINT_RESTORE)")
                names.remove("brk")
            if found.rules.execute_only and accept is not harmless:
                console.print("the model has no protection keys: operations with PROT_EXEC alone are left out")
                accept = readable_only(accept)
            lacking = [name for name in found.changed if name not in MODEL_RULES]
            if lacking and judged is not oracle_side:
                console.print(f"the model keeps to Linux 6.18 in: {', '.join(lacking)}; a mismatch may come from there")
            run = Request(kernel, ops, minutes, seed, names, save, accept)
            if ablate == "all":
                return _ablate_all(console, judged, found.rules, limits, run)
            rules = flip(found.rules, ablate) if ablate else found.rules
            return _judge_all(console, maker(judged, rules, limits), run)
    except JudgeError as error:
        console.print(f"cannot judge: {error}")
        return CANNOT
    except KeyboardInterrupt:
        console.print("stopped; no mismatch so far")
        return 130


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the nearest known one, or all."""
    return UsageError(f"no {kind} is called {name!r}", hint=did_you_mean(name, known, "choose one of {}, or all"))


def kernel_name() -> str:
    """The running kernel's version number, without its builder's suffix."""
    import platform

    match = re.match(r"[\d.]+", platform.release())
    return match.group().rstrip(".") if match else "of unknown version"


def _about(kernel: Kernel) -> str:
    return "areas read through PROCMAP_QUERY" if kernel.has_query else "areas read from /proc/PID/maps"


@dataclass
class Request:
    """The parameters of a command; see :func:`run_oracle_command`."""

    kernel: Kernel
    ops: int
    minutes: float | None
    seed: int
    names: list[str]
    save: Path
    accept: Accept


def _judge_all(console: Console, make: Make, run: Request) -> int:
    """Run each generator for its share; ends at the first mismatch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = JudgeResult()
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for at, name in enumerate(run.names):
        share = -(-(run.ops - total.ops) // (len(run.names) - at))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(name, total=share if share < 1 << 50 else None)
            time_left = run.minutes / len(run.names) if run.minutes else None
            tick = _ticker(progress, task)
            outcome = judge(make, share, run.seed, name, run.kernel, time_left, 1, tick, run.accept)
        total.add(outcome)
        console.print(
            f"{name:>6}: {outcome.ops:>9,} operations, {outcome.rate:>7,.0f}/s, "
            f"{outcome.areas / max(1, outcome.ops):.0f} areas on average, {outcome.forks} forks, "
            f"{outcome.flag_checks} flag checks, "
            f"{len(outcome.mismatches)} mismatches",
            soft_wrap=True,
        )
        if outcome.mismatches:
            _explain(console, make, outcome.mismatches[0], run.kernel, run.save)
            return DIFFERENT
    refused = sum(total.errnos.values())
    console.print(
        f"{total.ops:,} operations, {total.rate:,.0f} a second, {refused:,} refused with the same errno: 0 mismatches",
        soft_wrap=True,
    )
    return EQUAL


def _ticker(progress: Progress, task: TaskID) -> Callable[[JudgeResult], None]:
    """The callback that advances the bar after each batch."""
    return lambda done: progress.update(task, completed=done.ops)


def _explain(console: Console, make: Make, mismatch: Mismatch, kernel: Kernel, save: Path) -> None:
    """Shrink a mismatch, print it, and save it as text, Python and C."""
    small = shrink(make, mismatch, kernel)
    text = report(small)
    console.print(f"\nmismatch, {len(mismatch.ops)} operations shrunk to {len(small.ops)}:", markup=False)
    console.print(text, markup=False, soft_wrap=True)
    python = as_python(small.ops, small.what)
    console.print("\nto run it on the kernel: \n\n" + python, markup=False, soft_wrap=True)
    for suffix, content in ((".txt", text + "\n"), (".py", python), (".c", as_c(small.ops, small.what))):
        path = save.with_name(save.name + suffix)
        try:
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            console.print(f"not saved: {path}: {error.strerror}", markup=False)
            return
    console.print(f"saved as {save}.txt, {save}.py and {save}.c", markup=False)


def _ablate_all(console: Console, judged: Side, rules: Rules, limits: Limits, run: Request) -> int:
    """Negate each rule in turn: does some generator notice within its share of ``ops``?"""
    missed = []
    for rule in RULE_NAMES:
        seen, name = _caught(maker(judged, flip(rules, rule), limits), run)
        if name:
            console.print(f"{rule:>30}: noticed after {seen:>7,} operations by {name}", markup=False)
        else:
            missed.append(rule)
            console.print(f"{rule:>30}: NOT noticed in {seen:,} operations", markup=False)
    console.print(f"{len(RULE_NAMES) - len(missed)} of {len(RULE_NAMES)} rules noticed")
    return DIFFERENT if missed else EQUAL


def _caught(make: Make, run: Request) -> tuple[int, str]:
    """(operations so far, the generator that found a mismatch, empty if none did). The generators take turns: most
    rules show soon, but some only to certain generators."""
    share, seen = run.ops // len(run.names), 0
    for done in range(0, share, TURN):
        for name in run.names:
            ops = min(TURN, share - done)
            outcome = judge(make, ops, run.seed, name, run.kernel, accept=run.accept, first=done // BATCH)
            seen += outcome.ops
            if outcome.mismatches:
                return seen, name
    return seen, ""
