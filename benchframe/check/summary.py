"""The table at the end of a check of several strategies: one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchframe.check.parts import Part, Result


def table(parts: Sequence[Part], results: Mapping[int, Result]) -> str:
    """Strategies in the order of ``parts``: alone, scenarios right in every interleaving, failures by known name."""
    names = list(dict.fromkeys(part.strategy.name for part in parts))
    rows: list[tuple[str, ...]] = [("strategy", "one task", "searched whole", "new", "known", "verdict")]
    rows += [
        _row(name, [(p, results.get(i)) for i, p in enumerate(parts) if p.strategy.name == name]) for name in names
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(name: str, mine: Sequence[tuple[Part, Result | None]]) -> tuple[str, ...]:
    alone = next((r for p, r in mine if p.scenario is None and p.saved is None), None)
    searched = [r for p, r in mine if p.scenario is not None and p.saved is None]
    findings = [finding for r in searched if r is not None for finding in r.findings]
    known = list(dict.fromkeys(finding.known for finding in findings if finding.known))
    new = sum(not finding.known for finding in findings)
    complete = sum(r is not None and r.complete for r in searched)
    return (
        name,
        "-" if alone is None else "WRONG" if alone.wrong else "right",
        f"{complete}/{len(searched)}",
        str(new) if new else "-",
        ", ".join(known) or "-",
        _verdict([r for _, r in mine if r is not None], new, complete == len(searched)),
    )


def _verdict(results: Sequence[Result], new: int, complete: bool) -> str:
    """The last column: is all right, is all that is wrong known, is anything open? ``new``: unknown findings."""
    wrong = [result for result in results if result.wrong]
    if wrong:
        return "WRONG" if new or any(not result.findings for result in wrong) else "wrong, as known"
    return "right" if complete else "not complete"
