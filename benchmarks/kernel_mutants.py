"""Whether `make kernel-judge` notices a wrong line: ``python benchmarks/kernel_mutants.py SOURCES``.

Changes one line at a time in a copy of the maple tree, of the model's merges and of the oracle's, and runs
``benchframe oracle --sources`` with it; SOURCES is Debian's linux-source-6.12, or a tree like it
(docs/kernel-sources.md). Prints for each change how many comparisons differ. Exit code 1: a change was not noticed, or
the unchanged text is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = "plugins/benchframe_plugins/maple/store.py"
MERGE, SPACE = "benchframe/mm/vma.py", "benchframe/oracle/space.py"


@dataclass(frozen=True)
class Mutant:
    """``old``, once in ``file``, becomes ``new``; what is rare takes ``times`` as many operations."""

    what: str
    file: str
    old: str
    new: str
    times: int = 1

    @property
    def part(self) -> str:
        """The comparison that has to notice it."""
        return "maple" if self.file == STORE else "vma"

    def text(self, root: Path = ROOT) -> str:
        """The changed file. Raises SystemExit if the line is not there any more."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            sys.exit(f"kernel_mutants: {self.file} has not once {self.old!r}: adapt this list")
        return text.replace(self.old, self.new)


MUTANTS = (
    Mutant(
        "split: the smaller half first", STORE,
        "size = share\n    if size == 0:\n        size = (rest + nodes - 1) // nodes",
        "size = share\n    if size == 0:\n        size = rest // nodes",
    ),
    Mutant("split: a third rounded up", STORE, "third = (count - 1) // 3", "third = count // 3", times=5),
    Mutant("split: three nodes from 31 entries on", STORE, "if count > 2 * full or", "if count > 2 * full - 2 or"),
    Mutant(
        "split: one entry more stays in bulk mode", STORE,
        "return count - LEAF_REST - int(", "return count - LEAF_REST + 1 - int(",
    ),
    Mutant("push: one entry less has room", STORE, "room = 2 * LEAF_LAST - 1", "room = 2 * LEAF_LAST - 2"),
    Mutant("push: the left sibling is filled to the last slot", STORE, "share = full - 1", "share = full"),
    Mutant(
        "rebalance: the neighbour before counts first", STORE,
        "        if (after >> 3) & 31 < WORD(mm, mt_base(after) + INNER_META).word:\n            return 1\n"
        "        if (before >> 3) & 31 > 0:\n            return -1\n",
        "        if (before >> 3) & 31 > 0:\n            return -1\n"
        "        if (after >> 3) & 31 < WORD(mm, mt_base(after) + INNER_META).word:\n            return 1\n",
    ),
    Mutant(
        "store: a hole at a leaf's end spans no leaves", STORE,
        "need = min(last + 1, MT_MAX)", "need = last",
    ),
    Mutant(
        "merge: only the one before may lack an anon_vma", MERGE,
        "return p == n or p == 0 or n == 0", "return p == n or p == 0",
    ),
    Mutant("merge: only the one after may", MERGE, "return p == n or p == 0 or n == 0", "return p == n or n == 0"),
    Mutant(
        "merge, case 6: the sides' anon_vmas do not count", MERGE,
        "if left and right and not sides_compatible(mm, prev, following):", "if left and right and 0:",
    ),
    Mutant(
        "merge, case 6: the anon_vma is always the middle one's", MERGE,
        "if VMA(mm, following).anon_vma != 0:", "if 0 * VMA(mm, following).anon_vma != 0:",
    ),
    Mutant(
        "merge, case 1: frees a VMA with vm_ops->close", MERGE,
        "(not sides_compatible(mm, prev, following) or has_close(mm, following))",
        "not sides_compatible(mm, prev, following)",
    ),
    Mutant(
        "merge: a changed VMA with vm_ops->close is freed", MERGE,
        "if at_left and at_right and has_close(mm, vma):", "if at_left and at_right and 0:",
    ),
    Mutant(
        "the oracle's case 6: the anon_vma is always the middle one's", SPACE,
        "_hand_on(prev, nxt if nxt.anon_vma else area)", "_hand_on(prev, area)",
    ),
)  # fmt: skip


def judged(folder: Path, sources: Path, part: str, ops: int, limit: float) -> tuple[int, list[str]]:
    """How many comparisons differ in a copy of the packages, and in which rows. Wrong code may make a tree in which a
    walk crashes or does not end, at the latest where a difference is made smaller: then the last row says that."""
    paths = os.pathsep.join(str(folder / name) for name in ("", "plugins", "workloads"))
    command = [sys.executable, "-m", "benchframe", "oracle", "--sources", str(sources), "--generator", part]
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    ended = []
    with subprocess.Popen(
        [*command, "--ops", str(ops)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=env
    ) as process:
        try:
            out, error = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            out, error = process.communicate()
            ended = [f"no end within {limit:g} s"]
    if not ended and process.returncode < 0:
        ended = [f"killed by {signal.Signals(-process.returncode).name}"]
    if not ended and process.returncode not in (0, 1):
        sys.exit(f"kernel_mutants: exit code {process.returncode}: {error.strip() or out[-300:]}")
    rows = re.findall(r"^(\S.*?) +\d+\.\d+ +[\d,]+ \w+ +([\d,]+) differ ", out, re.MULTILINE)
    return sum(int(count.replace(",", "")) for _, count in rows), [what for what, _ in rows] + ended


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", type=Path, help="a kernel source tree")
    parser.add_argument("--ops", type=int, default=1000, help="random stores and calls of each comparison")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each change")
    parser.add_argument("--only", default="", help="changes whose words contain this")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.what]
    missed = []
    with tempfile.TemporaryDirectory(prefix="benchframe-mutants-") as name:
        folder = Path(name)
        for part in ("benchframe", "plugins", "workloads"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        sources = options.sources.resolve()
        for part in sorted({mutant.part for mutant in chosen}):
            if judged(folder, sources, part, options.ops, options.limit)[1]:
                sys.exit(f"kernel_mutants: the unchanged text differs, too: --generator {part} of the sources command")
        print(f"{'changed':<62} {'differ':>7}  first of the rows", flush=True)
        for mutant in chosen:
            (folder / mutant.file).write_text(mutant.text(), encoding="utf-8")
            count, rows = judged(folder, sources, mutant.part, options.ops * mutant.times, options.limit)
            (folder / mutant.file).write_text((ROOT / mutant.file).read_text(encoding="utf-8"), encoding="utf-8")
            print(f"{mutant.what:<62} {count:>7,}  {rows[0] if rows else 'not noticed'}", flush=True)
            missed += [] if rows else [mutant.what]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} noticed")
    sys.exit(1 if missed or not chosen else 0)


if __name__ == "__main__":
    main()
