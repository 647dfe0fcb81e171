"""Do the tests notice? One-line mutations of model, strategies and engine, each of which some test must fail.

    python benchmarks/mutants.py [--only TEXT] [--jobs N]

Each mutant is made in a copy of the tree in a temporary folder, and the tests that are responsible run there (by the
interpreter, so that nothing is compiled; those of the engine itself run compiled code from the cache). Prints a table;
exit code 1 if a mutant survived, 2 if the tests fail without any mutation or a mutation no longer fits the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("benchframe", "plugins", "workloads", "tests", "tools", "pyproject.toml")
MODEL = ("mm/test_merge.py", "mm/test_memory.py", "mm/test_space.py", "mm/test_random_calls.py")
TREES = ("mm/test_strategy_rbtree.py", "mm/test_merge.py")
CACHES = ("mm/test_strategy_caches.py",)
ENGINE = ("engine/test_session.py",)
"""Runs compiled code: the units come from the cache, since these mutations do not touch them."""


@dataclass(frozen=True)
class Mutant:
    """``old``, which occurs once in ``file`` after ``after``, becomes ``new``."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    after: str = ""

    def apply(self, tree: Path) -> None:
        """Change the file in ``tree``. Raises ValueError if the text is not there."""
        path = tree / self.file
        head, found, tail = path.read_text().partition(self.after) if self.after else ("", "", path.read_text())
        if self.after and not found:
            raise ValueError(f"{self.what}: {self.file} has no {self.after!r}")
        if self.old not in tail:
            raise ValueError(f"{self.what}: {self.file} has no {self.old!r} after {self.after!r}")
        path.write_text(head + found + tail.replace(self.old, self.new, 1))


def _merge(what: str, after: str, old: str, new: str) -> Mutant:
    return Mutant(f"merge {what}", "benchframe/mm/vma.py", old, new, MODEL, after)


def _rb(what: str, after: str, old: str, new: str, file: str = "rbtree.py") -> Mutant:
    return Mutant(f"rb-tree {what}", f"plugins/benchframe_plugins/{file}", old, new, TREES, f"def {after}(")


def _mmap_cache(what: str, after: str, old: str, new: str) -> Mutant:
    return Mutant(f"mmap_cache {what}", "plugins/benchframe_plugins/mmap_cache.py", old, new, CACHES, after)


def _pmd(what: str, after: str, old: str, new: str) -> Mutant:
    return Mutant(f"pmdcache {what}", "plugins/benchframe_plugins/pmdcache.py", old, new, CACHES, after)


def _model(what: str, file: str, after: str, old: str, new: str) -> Mutant:
    return Mutant(what, f"benchframe/mm/{file}", old, new, MODEL, after)


def _engine(what: str, old: str, new: str) -> Mutant:
    return Mutant(f"engine: {what}", "benchframe/engine/session.py", old, new, ENGINE, "def _verify(")


def _verify(what: str, old: str, new: str) -> Mutant:
    return Mutant(f"verify: {what}", "benchframe/verify.py", old, new, ENGINE, "def wrong_answers(")


MUTANTS = (
    # the eight merge cases
    _merge("case 1 keeps N's anon_vma out", "def vma_merge_new", "        anon_vma_dup(mm, prev, following)\n", ""),
    _merge("case 1 leaves N", "# case 1", "        vma_remove_merged(mm, following)\n", ""),
    _merge("case 2 not seen", "just_expand):", "left = can_merge_after(", "left = 0 * can_merge_after("),
    _merge("case 3 grows to the wrong start", "# case 3", "following, start,", "following, end,"),
    _merge(
        "case 4 leaves C long",
        "# case 4",
        "vma_resize(mm, vma, c.vm_start, start)",
        "vma_resize(mm, vma, c.vm_start, end)",
    ),
    _merge(
        "case 5 leaves C long", "# case 5", "vma_resize(mm, vma, end, c.vm_end)", "vma_resize(mm, vma, start, c.vm_end)"
    ),
    _merge("case 6 leaves N", "# case 6", "        vma_remove_merged(mm, following)\n", ""),
    _merge("case 6 takes the wrong anon_vma", "# case 6", "anon_vma_dup(mm, prev, vma)", "anon_vma_dup(mm, vma, prev)"),
    _merge("case 7 leaves C", "# case 6", "if at_right:  # case 7", "if 0:  # case 7"),
    _merge("case 8 leaves C", "# case 5", "if at_left:  # case 8", "if 0:  # case 8"),
    _merge("offsets not compared", "def can_merge_after", "!= pgoff", "!= pgoff and 0"),
    _merge("files not compared", "def can_merge(", "return o.vm_file == vm_file", "return 1"),
    _merge("anon_vmas of both sides not compared", "def sides_compatible", "p == n or p == 0", "p == p or p == 0"),
    # splits and limits
    _model("split at the limit", "vma.py", "def split_vma(", ">= mm.max_map_count", "> mm.max_map_count"),
    _model("munmap's hole at the limit", "mmap.py", "def do_munmap", ">= mm.max_map_count", "> mm.max_map_count"),
    _model("mmap above the limit", "mmap.py", "def do_mmap", "mm.map_count > mm", "mm.map_count >= mm"),
    _model(
        "split forgets the offset",
        "vma.py",
        "def split_vma_unchecked",
        " + ((low - start) >> PAGE_SHIFT)",
        "",
    ),
    _model(
        "NOREPLACE looks at one byte",
        "mmap.py",
        "MAP_FIXED_NOREPLACE:\n        vma",
        "end = addr + length",
        "end = addr",
    ),
    # stack growth, page tables, faults
    _model(
        "stack limit off by one page", "vma.py", "anon_vma_prepare(mm, 0, vma)", "> mm.stack_limit", ">= mm.stack_limit"
    ),
    _model("guard gap ignored", "vma.py", "def expand_stack", "< mm.stack_guard_gap", "< 0"),
    _model(
        "guard gap reaches over a VMA",
        "defaults.py",
        "def list_gap_below",
        "top = min(high, start_gap(mm, prev))",
        "top = min(top, start_gap(mm, prev))",
    ),
    _model("hole in a guard gap unnoticed", "vma.py", "def vma_link", "note_hole(mm, vma)", "pass"),
    _model("hole given up unnoticed", "mmap.py", "def detach_range", "    note_hole(mm, following)\n", ""),
    _model("floor ignored", "pagetable.py", "def inside", "start >= floor and ", ""),
    _model("ceiling ignored", "pagetable.py", "def inside", "start + size <= ceiling", "start + size > 0"),
    _model("floor not told", "mmap.py", "def detach_range", "floor = VMA(mm, prev).vm_end", "floor = 0"),
    _model("copy-on-write reuses a shared frame", "memory.py", "def fill_wp", "mapcount == 1", "mapcount >= 1"),
    _model(
        "fork leaves the parent writable",
        "fork.py",
        "def copy_table",
        "PTE(mm, source * PTRS_PER_TABLE + index).entry = entry",
        "pass",
    ),
    # the trees
    _rb("left rotation loses the middle", "rb_rotate_left", "n.rb_right = r.rb_left", "n.rb_right = NULL"),
    _rb("left rotation forgets a parent", "rb_rotate_left", "rb_set_parent(mm, right, parent)", "pass"),
    _rb("right rotation loses the middle", "rb_rotate_right", "n.rb_left = l.rb_right", "n.rb_left = NULL"),
    _rb("right rotation forgets a parent", "rb_rotate_right", "rb_set_parent(mm, left, parent)", "pass"),
    _rb("rotation forgets the gap", "rb_rotate_left", "    rb_changed(mm, node)\n", ""),
    _rb("no inner rotation on insert, left", "rb_insert_color", "parent = rb_rotate_left(mm, parent)", "pass"),
    _rb("no inner rotation on insert, right", "rb_insert_color", "parent = rb_rotate_right(mm, parent)", "pass"),
    _rb("wrong colour on insert", "rb_insert_color", "rb_set_color(mm, uncle, BLACK)", "pass"),
    _rb("no inner rotation on erase", "rb_erase_color", "other = rb_rotate_right(mm, other)", "pass"),
    _rb("red sibling kept", "rb_erase_color", "rb_set_color(mm, other, BLACK)\n", "pass\n"),
    _rb("far nephew keeps its colour", "rb_erase_color", "rb_set_color(mm, VMA(mm, other).rb_right, BLACK)", "pass"),
    _rb(
        "erase forgets the successor's colour",
        "rb_erase",
        "s.rb_parent_color = v.rb_parent_color",
        "pass",
        "rbtree.py",
    ),
    _rb(
        "gap search takes any hole",
        "gap_below",
        "if top - floor >= length:",
        "if top - floor >= 0:",
        "rbtree.py",
    ),
    # where the caches are invalidated
    _mmap_cache("kept over munmap", "def detached", "mm.mmap_cache = NULL", "pass"),
    _mmap_cache("kept over a merge", "def unlinked", "mm.mmap_cache = prev", "pass"),
    _mmap_cache("cleared by any merge", "def unlinked", "mm.mmap_cache == vma", "mm.mmap_cache != 0"),
    _mmap_cache("kept at exit", "def mm_exit", "mm.mmap_cache = NULL", "pass"),
    _mmap_cache("hit in the hole below", "def find_cached", "VMA(mm, vma).vm_start <= addr and ", ""),
    _pmd("kept over a merge", "def before_merge", "    invalidate_vma_cache_range(mm, start, end)\n", ""),
    _pmd("kept over munmap", "def before_munmap", "    invalidate_vma_cache_range(mm, start, end)\n", ""),
    _pmd("kept over brk", "Cache(", "        brk=invalidate_vma_cache_range,\n", ""),
    _pmd("kept in a recycled table", "def prep_new_page", "PAGE(mm, table).cache = NULL", "pass"),
    _pmd("holders not reset on link", "Cache(", "        linked=reset_holders,\n", ""),
    _pmd("holders not reset on copy", "Cache(", "        copied=reset_holders,\n", ""),
    _pmd(
        "one PTE page too few",
        "def invalidate_vma_cache_range",
        "while address < end",
        "while address + PMD_SIZE < end",
    ),
    _pmd("version not raised", "def mm_write_lock", "mm.version += 1", "pass"),
    _pmd("version not checked", "def mm_version_check", "t.mm_version == mm.version", "t.mm == mm.id"),
    _pmd("never released", "def put", "return vma_release(mm, vma)", "return 0"),
    _pmd("reserved bit not read", "def lookup_vma_cache", "page.flags & PG_RESERVED", "0 & PG_RESERVED"),
    # the comparison with the oracle
    _verify("starts not compared", '(ours["vm_start"] != vm_start) | ', ""),
    _verify("ends not compared", ' | (ours["vm_end"] != vm_end)', ""),
    _verify("results not compared", "(~np.isin(kind, LIFE) & (ours", "(np.isin(kind, LIFE) & (ours"),
    _verify("results of calls not compared", "(~np.isin(kind, LIFE) & (ours", "(is_lookup(kind) & (ours"),
    _engine("wrong answers pass", "if wrong.any():", "if False:"),
    _engine("final layout not compared", "        if difference:", "        if False:"),
    _engine("no validation", "self.runner.validate(self.machine)", "pass"),
)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """(passed, the first failure's name) of ``tests`` in ``tree``."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--timeout", "120", "-p", "no:cacheprovider"]
    command += [f"tests/{name}" for name in tests]
    if tests is not ENGINE:
        command += ["-k", "not native and not long_programs"]
    places = os.pathsep.join(str(tree / part) for part in ("", "plugins", "workloads"))
    environment = os.environ | {"PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    failed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    name = failed.partition("::")[2].partition(" ")[0] or (done.stdout + done.stderr)[-200:].strip()
    return done.returncode == 0, name


def copy_tree() -> Path:
    """A copy of what the tests need, in a new temporary folder."""
    tree = Path(tempfile.mkdtemp(prefix="benchframe-mutant-"))
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / part)
    return tree


def judge(mutant: Mutant) -> tuple[Mutant, bool, str, float]:
    """(mutant, survived, the test that noticed, seconds)."""
    tree = copy_tree()
    began = time.perf_counter()
    try:
        mutant.apply(tree)
        passed, name = run_tests(tree, mutant.tests)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return mutant, passed, name, time.perf_counter() - began


def unfit(mutants: Iterable[Mutant], tree: Path) -> str:
    """What is wrong with the first mutation that no longer fits the source in ``tree``; empty if all fit."""
    for mutant in mutants:
        path = tree / mutant.file
        text = path.read_text()
        try:
            mutant.apply(tree)
        except ValueError as error:
            return str(error)
        path.write_text(text)
    return ""


def sound(mutants: list[Mutant]) -> bool:
    """Whether the mutations fit the source and the tests pass without them; says what does not."""
    tree = copy_tree()
    try:
        if problem := unfit(mutants, tree):
            print(f"the mutation no longer fits: {problem}", file=sys.stderr)
            return False
        for tests in dict.fromkeys(mutant.tests for mutant in mutants):
            passed, name = run_tests(tree, tests)
            if not passed:
                print(f"fails without any mutation: {name}", file=sys.stderr)
                return False
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return True


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose description contains this")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.what]
    if not chosen or not sound(chosen):
        return 2
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, survived, name, seconds in pool.map(judge, chosen):
            survivors += survived
            print(f"{'SURVIVED' if survived else 'killed':9}{mutant.what:45}{seconds:5.1f} s  {name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
