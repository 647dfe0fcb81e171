"""Outcomes of claims as a table."""

from __future__ import annotations

from collections.abc import Sequence

from benchframe.claims.measure import Outcome
from benchframe.claims.published import TimeClaim
from benchframe.tables import Table


def claims_table(outcomes: Sequence[Outcome]) -> Table:
    """Published beside measured, a row per figure; sources and reasons are notes."""
    heads = ("claim", "what", "published", "measured", "verdict")
    rows: list[tuple[str, ...]] = []
    for outcome in outcomes:
        lines = outcome.lines or ((outcome.claim.says, _published(outcome), "-"),)
        for number, (what, published, measured) in enumerate(lines):
            rows.append((outcome.claim.name, what, published, measured, "" if number else outcome.verdict))
    notes = [f"{o.claim.name}: {o.claim.says}. {o.claim.source}." for o in outcomes]
    notes += [f"{o.claim.name}, {o.verdict}: {o.why}." for o in outcomes if o.why]
    notes.append(
        "reproduced: same direction and order of magnitude; direction only: same direction, another size; published "
        "figures are from other machines and loads."
    )
    return Table(
        "published claims",
        heads,
        tuple(rows),
        (False, False, True, True, False),
        tuple(dict(zip(heads, row, strict=True)) for row in rows),
        tuple(notes),
    )


def _published(outcome: Outcome) -> str:
    claim = outcome.claim
    return f"{claim.ratio:.3g} on {claim.cpus} CPUs" if isinstance(claim, TimeClaim) else ""
