"""Kernel source trees, and the libraries that are built of their own files: gcc, a driver of ours, nothing else.

A driver (``maple.c``, ``rbtree.c``, ``vma.c`` beside this file) includes the kernel's file; :mod:`benchframe.linux` has
the kernel around it. Headers that the kernel's files name are the tree's own where they are part of what is judged, and
empty otherwise.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchframe.linux.tree import SHIM, SourcesError, SourceTree, named_headers, put, read_source

HERE = Path(__file__).parent
_SECONDS = 300
"""For one run of gcc."""


@dataclass(frozen=True)
class Driver:
    """A C file of ours and the kernel's files that it is about."""

    name: str
    """The library's name; ``name.c`` is the driver."""
    files: tuple[str, ...]
    """Of the source tree, with their places below it; a header of ``include/`` is included as ``<linux/...>``."""


MAPLE = Driver("maple", ("lib/maple_tree.c", "include/linux/maple_tree.h"))
_RBTREE = ("include/linux/rbtree.h", "include/linux/rbtree_augmented.h", "include/linux/rbtree_types.h")
RBTREE = Driver("rbtree", ("lib/rbtree.c", *_RBTREE))
_LIST = ("include/linux/list.h", "include/linux/poison.h")
VMA = Driver("vma", ("mm/vma.c", "mm/vma.h", "tools/testing/vma/vma_internal.h", *MAPLE.files, *_RBTREE, *_LIST))


def build(tree: SourceTree, driver: Driver, folder: Path) -> ctypes.CDLL:
    """Compile the driver with the tree's files in ``folder``, and load it. A few seconds.

    Raises SourcesError without a compiler, and with the compiler's first error where the tree's files ask for what the
    shim does not have (drivers are tried with 6.1 and 6.12).
    """
    own = folder / f"{driver.name}-{tree.name}"
    texts = [(file, read_source(tree.path / file)) for file in driver.files]
    for file, text in texts:
        put(own / _place(file), text)
    for name in {name for _, text in texts for name in named_headers(text)}:
        if not (own / name).exists():
            put(own / name, "")
    library = own / f"{driver.name}.so"
    command = [
        "gcc",
        "-O1",
        "-std=gnu11",
        "-fPIC",
        "-shared",
        "-w",
        "-Werror=implicit",
        "-Wl,-z,defs",
        "-fno-strict-aliasing",
        "-include",
    ]
    command += [str(SHIM), *_named(texts), f"-I{own}", f"-I{HERE}"]
    _compile([*command, "-o", str(library), str(HERE / f"{driver.name}.c")], tree, driver)
    return ctypes.CDLL(str(library))


def _place(file: str) -> str:
    """Where a kernel's file goes, below the folder that gcc searches."""
    if file.startswith("include/"):
        return file.removeprefix("include/")
    return Path(file).name if file.startswith("tools/") else file


def _named(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Options that say how lib/maple_tree.c sets a node's parent (mas_set_parent, in 6.1 mte_set_parent), and how it
    copies a tree (__mt_dup; not before 6.8)."""
    text = next((text for file, text in texts if file == "lib/maple_tree.c"), "")
    yield f"-DSET_PARENT={'mas_set_parent' if 'mas_set_parent(' in text else 'mte_set_parent_of'}"
    yield f"-DMT_DUP(from,to,gfp)={'__mt_dup(from,to,gfp)' if '__mt_dup(' in text else '-1'}"


def _compile(command: Sequence[str], tree: SourceTree, driver: Driver) -> None:
    if shutil.which("gcc") is None:
        raise SourcesError("gcc is not installed", hint="install gcc and libc6-dev")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise SourcesError(f"gcc took longer than {_SECONDS} s", where=tree.path) from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise SourcesError(
            f"{driver.name}.c does not compile with Linux {tree.name}'s files: {first}",
            where=tree.path,
            hint="Debian's linux-source-6.1 and linux-source-6.12 do",
        )
