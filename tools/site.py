"""The documentation site's pages, from the documents and from the code: ``python tools/site.py [--build]``.

docs/*.md, README, CONTRIBUTING and CHANGELOG are copied with their links turned to where the pages lie; each plugin
module becomes a page from its docstrings; the command reference is each command's own help. Then ``--build`` runs
mkdocs with warnings as errors. A document that mkdocs.yml's nav does not name goes under "More".
"""

from __future__ import annotations

import argparse
import inspect
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "site"
CONFIG = ROOT / "build" / "mkdocs.yml"
SOURCE = "https://github.com/benchframe/benchframe/tree/main/"
"""Where a link to a file that is no page leads."""
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents outside docs/ to pages; docs/index.md, a list of documents, is what the nav is here."""
DROPPED = {"docs/index.md": "index.md"}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Every document (from the root) to its page (from the site's root)."""
    found = {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    return {**found, **DROPPED, **PAGES}


def relinked(text: str, document: str, known: dict[str, str]) -> str:
    """The text with each relative link turned to the page, a copied picture, or the file in the repository."""

    def turn(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or not target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        if path in known:
            new = known[path] + (f"#{anchor}" if anchor else "")
        elif path.startswith("docs/") and path.endswith((".svg", ".png")):
            new = path.removeprefix("docs/")
        else:
            new = SOURCE + path
        return match[1] + new + match[3]

    return LINK.sub(turn, text)


def spaced(text: str) -> str:
    """Markdown as the site's parser wants it: a blank line before a list or table that follows a paragraph."""
    lines: list[str] = []
    fenced = False
    starts = re.compile(r"(?:[-*] |\d+\. |\|)")
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        before = lines[-1] if lines else ""
        if (
            not fenced
            and starts.match(line)
            and before.strip()
            and not starts.match(before)
            and before[0] not in " -*|"
        ):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def document_pages() -> Iterator[tuple[str, str]]:
    """(page, text) of every document."""
    known = pages()
    for document, page in known.items():
        if document not in DROPPED:
            yield page, spaced(relinked((ROOT / document).read_text(encoding="utf-8"), document, known))


# ---- strategies -----------------------------------------------------------------------------------------------------


def docstring(text: str) -> str:
    """A docstring as Markdown: numbered lines are a list, `name:` at the start of a paragraph stands out."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", inspect.cleandoc(text)).replace("``", "`")
    text = re.sub(r"`(`+)", r"\1`", text) if "````" in text else text
    parts = re.split(f"({FENCE.pattern})", re.sub(r"^`{2}$", "```", text, flags=re.MULTILINE), flags=FENCE.flags)
    shown = []
    for part in parts:
        if not part.startswith("```"):
            part = re.sub(r"^(\s+)(\d+)[.:]? ", r"\2. ", part, flags=re.MULTILINE)
            part = re.sub(r"\n*^([A-Z][a-z]+):(?= |$)", r"\n\n**\1:**", part, flags=re.MULTILINE)
            part = part.replace("<", "&lt;")
        else:
            part = f"\n{part}\n"
        shown.append(part)
    return spaced("".join(shown))


def strategy_pages() -> Iterator[tuple[str, str, str]]:
    """(page, title, text) for each module that brings strategies, those of benchframe itself only."""
    from benchframe.registry import load

    known = load()
    modules: dict[str, list[Any]] = {}
    for name, strategy in known.strategies.items():
        if known.origins[("strategy", name)].distribution == "benchframe":
            modules.setdefault(strategy.module, []).append(strategy)
    for module, strategies in modules.items():
        title = module.rpartition(".")[2]
        yield f"strategies/{title}.md", title, strategy_page(title, module, strategies)


def strategy_page(title: str, module: str, strategies: list[Any]) -> str:
    """Docstring with its drawing, a table of what the module brings, the hooks it fills, its functions."""
    lines = [f"# {title}", "", docstring(sys.modules[module].__doc__ or strategies[0].doc), ""]
    lines += ["## What it brings", "", "| strategy | what it is | index | cache | protocol | memory of its own |"]
    lines.append("|---|---|---|---|---|---|")
    for strategy in strategies:
        parts = [_hooks(getattr(strategy, part)) for part in ("index", "cache", "protocol")]
        slabs = ", ".join(
            f"{s.name}: {s.struct.size} bytes x ({s.per_vma} per VMA + {s.fixed})" for s in strategy.slabs
        )
        lines.append(f"| `{strategy.name}` | {_cell(strategy.summary)} | {' | '.join(parts)} | {slabs or 'none'} |")
    functions = {
        f: None
        for strategy in strategies
        for f in strategy.functions()
        if f.__module__ == module or f.__module__.startswith(f"{module}.")
    }
    if functions:
        lines += ["", "## Its functions", ""]
    for function in functions:
        code = function.__code__
        lines += [f"### `{function.__name__}({', '.join(code.co_varnames[: code.co_argcount])})`", ""]
        lines += [docstring(function.__doc__ or ""), ""]
    lines += ["", f"Source: `benchframe show {strategies[0].name} --source`."]
    return "\n".join(lines) + "\n"


def _hooks(part: Any) -> str:
    if part is None:
        return "default"
    return ", ".join(f"`{name}`" for name in part.binding) or "default"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ---- commands -------------------------------------------------------------------------------------------------------


def command_page() -> str:
    """Every command's help, as it prints it."""
    from typer.main import get_command

    from benchframe.cli import app

    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "100"
    lines = ["# Command reference", "", "Made from the commands themselves: what `--help` prints.", ""]

    def walk(command: Any, words: list[str], parent: Any) -> None:
        context = command.context_class(command, info_name=words[-1], parent=parent)
        lines.extend([f"{'#' * min(len(words) + 1, 4)} {' '.join(words)}", "", "```text"])
        lines.extend([command.get_help(context).rstrip(), "```", ""])
        for name in sorted(getattr(command, "commands", {})):
            walk(command.commands[name], [*words, name], context)

    walk(get_command(app), ["benchframe"], None)
    return "\n".join(lines)


# ---- the site -------------------------------------------------------------------------------------------------------


def write(out: Path = OUT) -> list[str]:
    """Write every page below ``out`` (emptied first); the pages' names."""
    shutil.rmtree(out, ignore_errors=True)
    made: dict[str, str] = dict(document_pages())
    strategies = list(strategy_pages())
    made.update({page: text for page, _, text in strategies})
    made["reference/cli.md"] = command_page()
    for page, text in made.items():
        path = out / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for picture in (*(ROOT / "docs").glob("*.svg"), *(ROOT / "docs").glob("*.png")):
        shutil.copy(picture, out)
    return list(made)


def configure(names: list[str], out: Path, target: Path) -> None:
    """mkdocs.yml with the strategies' pages in its nav, and documents that it does not name under More."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = text.replace("docs_dir: build/site", f"docs_dir: {out}").replace(
        "site_dir: dist/site", f"site_dir: {target}"
    )
    listed = "".join(f"      - {Path(n).stem}: {n}\n" for n in names if n.startswith("strategies/"))
    text = text.replace("      # tools/site.py adds a page per plugin module here\n", listed)
    more = [name for name in names if f": {name}\n" not in text]
    if more:
        text += "  - More:\n" + "".join(f"      - {Path(name).stem}: {name}\n" for name in more)
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(text, encoding="utf-8")


def main() -> int:
    """Write the pages; with --build, the site too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", action="store_true", help="run mkdocs --strict")
    parser.add_argument("--target", type=Path, default=ROOT / "dist" / "site", help="where the site goes")
    args = parser.parse_args()
    names = write()
    configure(names, OUT, args.target.resolve())
    print(f"{len(names)} pages in {OUT.relative_to(ROOT)}")
    if not args.build:
        return 0
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(CONFIG)]
    return subprocess.run(command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
