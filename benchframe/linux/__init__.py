"""The kernel's own files in user space: a source tree, what a C compiler needs to take its files, and ``shim.h``.
The drivers ``maple.c``, ``rbtree.c`` and ``vma.c`` include a kernel's file each; :mod:`benchframe.judge.trees` builds
them.

``shim.h``, beside this file, is the kernel around the kernel's files. Of the headers that those name, the ones in
:data:`OWN` are the tree's; the others are empty, since ``shim.h`` has what is needed of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchframe.errors import ENVIRONMENT, BenchframeError

SHIM = Path(__file__).parent / "shim.h"
OWN = ("linux/maple_tree.h", "linux/rbtree.h", "linux/rbtree_augmented.h", "linux/rbtree_types.h")
"""Headers, below include/, that are the tree's own."""
MARKS = ("lib/maple_tree.c", "lib/rbtree.c")
"""A folder with one of these is a source tree."""
_NAMED = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)
_QUOTED = re.compile(r'^\s*#\s*include\s*"([^"\n]+)"', re.MULTILINE)
_LARGEST = 4 << 20


class SourcesError(BenchframeError):
    """A source tree that cannot be used, or no compiler; one line."""

    exit_code = ENVIRONMENT


@dataclass(frozen=True)
class SourceTree:
    """A kernel's source tree; ``version`` is (6, 12), for example."""

    path: Path
    version: tuple[int, ...]

    @property
    def name(self) -> str:
        """``6.12``."""
        return ".".join(map(str, self.version))

    def lacks(self, files: Iterable[str]) -> list[str]:
        """Those of ``files``, with their places below the tree, that are not there."""
        return [file for file in files if not (self.path / file).is_file()]


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
        own = [p for p in (folder, *sorted(folder.iterdir())) if any((p / f).is_file() for f in MARKS)]
        if not own:
            raise SourcesError(
                f"no kernel sources: neither {' nor '.join(MARKS)} is in it or one level below",
                where=folder,
                hint="unpack Debian's linux-source-6.12, or run `make kernel-judge`, which does it",
            )
        found += [SourceTree(path, _version(path)) for path in own]
    return sorted(found, key=lambda tree: (tree.version, str(tree.path)))


def one_tree(folder: Path) -> SourceTree:
    """The source tree that the folder is. Raises SourcesError if it is none, or contains several."""
    trees = find_trees([folder])
    if len(trees) > 1:
        raise SourcesError(f"it contains {len(trees)} source trees", where=folder, hint=f"name one: {trees[-1].path}")
    return trees[0]


def read_source(path: Path) -> str:
    """A source file's text. Raises SourcesError if it cannot be read, or is too large to be one."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SourcesError(f"larger than {_LARGEST >> 20} MiB", where=path, hint="is this a kernel's source file?")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourcesError(f"cannot be read ({error.strerror or error})", where=path, hint="unpack it whole") from None


def named_headers(text: str) -> list[str]:
    """What a C text includes in angle brackets, from a folder: ``linux/types.h``."""
    return [name for name in _NAMED.findall(text) if "/" in name]


def put(path: Path, text: str) -> None:
    """Write a file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def included(tree: Path, text: str) -> list[Path]:
    """The files of the tree that a C text includes with quotes, and all that those include of the tree. O(text).

    Raises SourcesError for one that cannot be read.
    """
    found = [path for name in _QUOTED.findall(text) if (path := tree / name).is_file()]
    for path in found:
        text = read_source(path)
        named = [tree / "include" / name for name in _NAMED.findall(text) if name in OWN]
        for other in (*named, *(path.parent / name for name in _QUOTED.findall(text))):
            if other not in found:
                found.append(other)
    return found


def options(tree: Path, text: str, folder: Path) -> list[str]:
    """The compiler's options for a C text that includes files of the tree with quotes: they are read where they lie,
    and the headers that shim.h stands for are empty files in ``folder``. Raises SourcesError."""
    for path in included(tree, text):
        for name in named_headers(read_source(path)):
            if name not in OWN:
                put(folder / name, "")
    return ["-I", str(SHIM.parent), "-I", str(folder), "-I", str(tree), "-I", str(tree / "include")]
