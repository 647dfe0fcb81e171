"""What mkdocs needs besides docs/: a hook, named in mkdocs.yml. ``make docs`` builds the site into dist/site.

The start page is README; CONTRIBUTING, CHANGELOG and SECURITY become pages too. Each plugin module becomes a page from
its docstrings, and the command reference is each command's own help. Links between documents are turned to where the
pages are, and links to other files lead to the repository.
"""

from __future__ import annotations

import inspect
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/benchframe/benchframe/tree/main/"
"""Where a link to a file that is not a page leads."""
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Documents outside docs/ to pages. README replaces docs/index.md, whose list the navigation is here."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
MAIL = re.compile(r"(?<![\w<])[\w.+-]{12,}@(?:[\w-]+\.)+[a-z]{2,}\b")
"""A Message-ID (RFC 5322, 3.6.4) without its angle brackets."""
ARCHIVE = "https://lore.kernel.org/r/"
"""Where the archive shows the mail of a Message-ID."""
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Every document (from the root) to its page (from the site's root)."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return {**{str(path.relative_to(ROOT)): str(path.relative_to(ROOT / "docs")) for path in found}, **PAGES}


def relinked(text: str, document: str, known: dict[str, str]) -> str:
    """The text with each relative link turned to the page, the picture, or the file in the repository."""
    folder = posixpath.dirname(known.get(document, document))

    def turn(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or not target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
        if path in known:
            new = posixpath.relpath(known[path], folder or ".") + (f"#{anchor}" if anchor else "")
        elif path.startswith("docs/") and path.endswith((".svg", ".png")):
            new = posixpath.relpath(path.removeprefix("docs/"), folder or ".")
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
            part = MAIL.sub(lambda mail: f"[{mail[0]}]({ARCHIVE}{mail[0]})", part.replace("<", "&lt;"))
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


def generated() -> dict[str, str]:
    """Page to text, of every page that is not a file below docs/."""
    known = pages()
    made = {
        page: spaced(relinked((ROOT / document).read_text(encoding="utf-8"), document, known))
        for document, page in PAGES.items()
    }
    made.update({page: text for page, _, text in strategy_pages()})
    made["reference/cli.md"] = command_page()
    return made


def on_config(config: Any) -> Any:
    """Put the strategies' pages into the navigation, under Strategies."""
    (entries,) = (item["Strategies"] for item in config["nav"] if "Strategies" in item)
    entries.extend({title: page} for page, title, _ in strategy_pages())
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that are generated; README takes the place of docs/index.md."""
    from mkdocs.structure.files import File

    files.remove(files.get_file_from_path("index.md"))
    for page, text in generated().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A document of docs/ with its links turned."""
    if page.file.generated_by is not None:
        return markdown
    return spaced(relinked(markdown, f"docs/{page.file.src_uri}", pages()))
