"""The imports of benchframe, drawn: which module uses which, circles, and arrows that point up.

    python tools/imports.py              counts, and every circle or upward arrow by name (exit code 1 if there is one)
    python tools/imports.py --svg FILE   the packages as a picture, lowest layer at the bottom

All imports count: those inside functions and those for type checkers as well.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    {"errors", "files", "events", "linux"},
    {"dialect", "oracle", "stats"},
    {"mm", "trace"},
    {"scenario", "strategy", "cstrategy", "stream", "workload"},
    {"guest", "registry", "runner", "units", "verify"},
    {"engine", "check", "judge", "record"},
    {"results", "testing"},
    {"report"},
    {"study", "simulator", "host"},
    {"cli", "python"},
    {"__main__"},
)
"""Parts of ``benchframe/``, lowest first. A module may import its own part, its layer and all below."""
APART = ("engine", "check", "judge", "record")
"""Parts of one layer that do not import each other: each answers a question of its own."""
DOORS = {"api", "kernel", "workloads"}
"""What plugins import. The core never does."""


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of each import in a file; a name imported from a module counts as below it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name to file, for every module of ``benchframe``."""
    found = {}
    for path in sorted((root / "benchframe").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Each module and the modules of ``benchframe`` that it imports. O(source text), some seconds."""
    known = modules(root)
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        package = path.relative_to(root).parts[:-1]
        for _, target in imports(path, package):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target not in ("", name, "benchframe"):
                arrows[name].add(target)
    return arrows


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of two modules or more (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []
    for root in arrows:
        work = [(root, iter(sorted(arrows[root])))] if root not in index else []
        if work:
            index[root] = low[root] = len(index)
            stack.append(root)
        while work:
            node, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    work.append((target, iter(sorted(arrows[target]))))
                    break
                if target in stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    if len(stack) - at > 1:
                        found.append(sorted(stack[at:]))
                    del stack[at:]
    return found


def part(module: str) -> str:
    """``engine`` for ``benchframe.engine.cost.sums``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


def rank(name: str) -> int:
    """The layer of a part. Raises KeyError for a part that is in none."""
    for number, layer in enumerate(LAYERS):
        if name in layer:
            return number
    raise KeyError(f"benchframe/{name} is in no layer: add it to LAYERS in tools/imports.py")


def upward(arrows: Mapping[str, set[str]]) -> list[str]:
    """Imports of a higher layer, of a part that stands apart, or of a door, as text."""
    found = []
    for module, targets in sorted(arrows.items()):
        here = part(module)
        for target in sorted(targets) if here not in DOORS | {""} else ():
            there = part(target)
            apart = here != there and here in APART and there in APART
            if there in DOORS or apart or rank(there) > rank(here):
                found.append(f"{module} -> {target}")
    return found


def svg(arrows: Mapping[str, set[str]]) -> str:
    """The parts as boxes, a row for each layer; a line is thicker the more imports it stands for."""
    width, height, gap = 1100, 86, 34
    members: dict[str, int] = {}
    between: dict[tuple[str, str], int] = {}
    for module, targets in arrows.items():
        here = part(module)
        if here:
            members[here] = members.get(here, 0) + 1
        for target in targets:
            if here and part(target) and here != part(target):
                between[here, part(target)] = between.get((here, part(target)), 0) + 1
    rows = [*({name for name in layer if name in members} for layer in LAYERS), DOORS & set(members)]
    place = {}
    for number, row in enumerate(rows):
        for at, name in enumerate(sorted(row)):
            place[name] = (width * (at + 0.5) / len(row), height * (len(rows) - number - 0.5) + gap)
    lines = [
        f'<line x1="{place[a][0]:.0f}" y1="{place[a][1]:.0f}" x2="{place[b][0]:.0f}" y2="{place[b][1]:.0f}" '
        f'stroke="#8aa" stroke-width="{min(6, 0.4 + count / 8):.1f}" opacity="0.55"/>'
        for (a, b), count in sorted(between.items())
    ]
    boxes = [
        f'<rect x="{x - 58:.0f}" y="{y - 17:.0f}" width="116" height="34" rx="5" fill="#fff" stroke="#366"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(name)} ({members[name]})</text>'
        for name, (x, y) in sorted(place.items())
    ]
    size = f'width="{width}" height="{height * len(rows) + 2 * gap}"'
    style = "<style>text{font:14px sans-serif}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(lines)}{"".join(boxes)}</svg>\n'


def main() -> int:
    """Print the counts; 1 if there is a circle or an upward arrow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, help="write the picture here")
    options = parser.parse_args()
    arrows = graph()
    if options.svg:
        options.svg.write_text(svg(arrows), encoding="utf-8")
    round_trips, up = circles(arrows), upward(arrows)
    print(f"{len(arrows)} modules, {sum(map(len, arrows.values()))} imports between them")
    print(f"circles: {len(round_trips)}", *(f"  {' <-> '.join(found)}" for found in round_trips), sep="\n")
    print(f"arrows up: {len(up)}", *(f"  {text}" for text in up), sep="\n")
    return 1 if round_trips or up else 0


if __name__ == "__main__":
    sys.exit(main())
