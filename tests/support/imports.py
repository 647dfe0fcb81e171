"""The imports of a source file, read with ast."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import in a file; names imported from a package count as its submodules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
