"""Kernel source trees, and the libraries that are built of their own files: gcc, a driver of ours, nothing else.

A driver (``maple.c``, ``rbtree.c``, ``vma.c`` beside this file) includes the kernel's file; ``shim.h`` is the kernel
around it. Headers that the kernel's files name are the tree's own where they are part of what is judged, and empty
otherwise.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchframe.errors import ENVIRONMENT, BenchframeError

HERE = Path(__file__).parent
_INCLUDE = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)
_LARGEST = 4 << 20
_SECONDS = 300
"""For one run of gcc."""


class SourcesError(BenchframeError):
    """A source tree that cannot be used, or no compiler; one line."""

    exit_code = ENVIRONMENT


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


@dataclass(frozen=True)
class SourceTree:
    """A kernel's source tree; ``version`` is (6, 12), for example."""

    path: Path
    version: tuple[int, ...]

    @property
    def name(self) -> str:
        """``6.12``."""
        return ".".join(map(str, self.version))

    def lacks(self, driver: Driver) -> list[str]:
        """The files that the driver is about and that the tree has not."""
        return [file for file in driver.files if not (self.path / file).is_file()]


def _version(path: Path) -> tuple[int, ...]:
    """From the Makefile's first lines, or from the folder's name. Raises SourcesError if neither says it."""
    makefile = path / "Makefile"
    text = makefile.read_text(encoding="utf-8", errors="replace")[:4096] if makefile.is_file() else ""
    found = [re.search(rf"^{word}\s*=\s*(\d+)", text, re.MULTILINE) for word in ("VERSION", "PATCHLEVEL")]
    if found[0] and found[1]:
        return int(found[0].group(1)), int(found[1].group(1))
    named = re.search(r"(\d+)\.(\d+)", path.resolve().name)
    if named:
        return int(named.group(1)), int(named.group(2))
    raise SourcesError(
        "the kernel's version is unknown", where=path, hint="keep its Makefile, or call the folder linux-6.12"
    )


def find_trees(folders: Sequence[Path]) -> list[SourceTree]:
    """The source trees that the folders are or contain, oldest first. Raises SourcesError if one has none."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise SourcesError("no such folder", where=folder, hint="name a kernel source tree, or a folder of them")
        own = [p for p in (folder, *sorted(folder.iterdir())) if any((p / f).is_file() for f in _MARKS)]
        if not own:
            raise SourcesError(
                f"no kernel sources: neither {' nor '.join(_MARKS)} is in it or one level below",
                where=folder,
                hint="unpack Debian's linux-source-6.12, or run `make kernel-judge`, which does it",
            )
        found += [SourceTree(path, _version(path)) for path in own]
    return sorted(found, key=lambda tree: (tree.version, str(tree.path)))


_MARKS = ("lib/maple_tree.c", "lib/rbtree.c")


def build(tree: SourceTree, driver: Driver, folder: Path) -> ctypes.CDLL:
    """Compile the driver with the tree's files in ``folder``, and load it. A few seconds.

    Raises SourcesError without a compiler, and with the compiler's first error where the tree's files ask for what the
    shim does not have (drivers are tried with 6.1 and 6.12).
    """
    own = folder / f"{driver.name}-{tree.name}"
    texts = [(file, _read(tree.path / file)) for file in driver.files]
    for file, text in texts:
        _put(own / _place(file), text)
    for name in {name for _, text in texts for name in _INCLUDE.findall(text)}:
        if "/" in name and not (own / name).exists():
            _put(own / name, "")
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
    command += [str(HERE / "shim.h"), f"-DSET_PARENT={_set_parent(texts)}", f"-I{own}", f"-I{HERE}"]
    _compile([*command, "-o", str(library), str(HERE / f"{driver.name}.c")], tree, driver)
    return ctypes.CDLL(str(library))


def _place(file: str) -> str:
    """Where a kernel's file goes, below the folder that gcc searches."""
    if file.startswith("include/"):
        return file.removeprefix("include/")
    return Path(file).name if file.startswith("tools/") else file


def _set_parent(texts: Iterable[tuple[str, str]]) -> str:
    """How lib/maple_tree.c sets a node's parent: mas_set_parent, or (6.1) mte_set_parent."""
    new = any(file == "lib/maple_tree.c" and "mas_set_parent(" in text for file, text in texts)
    return "mas_set_parent" if new else "mte_set_parent_of"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SourcesError(f"larger than {_LARGEST >> 20} MiB", where=path, hint="is this a kernel's source file?")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourcesError(f"cannot be read ({error.strerror or error})", where=path, hint="unpack it whole") from None


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
