"""The source of each strategy of a run, kept in ``sources.json``.

A report shows the text that was measured, though the plugin may be edited or gone by then. Texts are shown, never run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchframe.files import Fields, read_object, write_json

if TYPE_CHECKING:
    from benchframe.strategy import Strategy

SOURCES = "sources.json"
MAX_SOURCE = 1 << 18
"""Characters of one source that are kept (256 KiB; the longest built-in one has 35)."""
MAX_SOURCES = 4096


@dataclass(frozen=True)
class Source:
    """One plugin's text: ``module`` is where it is imported from, ``text`` its file, or those of its package,
    ``summary`` the strategy's line, ``digest`` sha256 (hex) of ``text``."""

    module: str
    summary: str
    text: str
    digest: str


def sources_of(strategies: Iterable[Strategy]) -> dict[str, Source]:
    """The text of each strategy that can be read, by the strategy's name: its file; of a package all files, each under
    a line with its name. O(bytes)."""
    found = {}
    for strategy in strategies:
        with suppress(OSError, UnicodeDecodeError, AttributeError):
            path = Path(strategy.file)
            if path.name == "__init__.py":
                files = sorted(path.parent.glob("*.py"))
                text = "\n\n".join(
                    f"# ==== {file.parent.name}/{file.name} ====\n\n{file.read_text('utf-8')}" for file in files
                )
            else:
                text = path.read_text(encoding="utf-8")
            text = text[:MAX_SOURCE]
            digest = hashlib.sha256(text.encode()).hexdigest()
            found[strategy.name] = Source(strategy.module, strategy.summary, text, digest)
    return found


def write_sources(folder: Path, sources: Mapping[str, Source]) -> None:
    """Write ``sources.json``, each text once (strategies often share a file); raises ResultsError."""
    texts = {source.digest: source.text for source in sources.values()}
    entries = {}
    for name, source in sources.items():
        entries[name] = {key: value for key, value in asdict(source).items() if key != "text"}
    write_json(folder / SOURCES, {"version": 1, "strategies": entries, "texts": texts})


def read_sources(folder: Path) -> dict[str, Source]:
    """What :func:`write_sources` wrote; empty for a run without the file. Raises ResultsError."""
    path = folder / SOURCES
    if not path.exists():
        return {}
    data = Fields(path, read_object(path))
    texts = data.data.get("texts", {})
    entries = data.object("strategies")
    if not isinstance(texts, dict) or len(texts) > MAX_SOURCES or len(entries.data) > MAX_SOURCES:
        raise data.wrong("texts", "is not an object of a sane size")
    found = {}
    for name in entries.data:
        entry = entries.object(name)
        digest = entry.text("digest", pattern="[0-9a-f]{64}")
        text = texts.get(digest)
        if not isinstance(text, str) or len(text) > MAX_SOURCE:
            raise data.wrong(f"texts.{digest}", "is not a text")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise data.wrong(f"texts.{digest}", "has another digest: it was edited")
        found[name] = Source(entry.text("module"), entry.text("summary"), text, digest)
    return found
