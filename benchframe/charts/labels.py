"""Where the names of marks go, so that they cover neither each other nor the marks."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
CHARACTER, LINE = 6.2, 12.0
"""Width of a character and height of a line at 10 px, with room for fonts that are wider than Arial."""


def place(
    wanted: Sequence[tuple[float, float, str]],
    marks: Sequence[tuple[float, float, float]],
    width: float,
    height: float,
    lines: Sequence[Box] = (),
) -> list[tuple[float, float] | None]:
    """Left end and middle (pixels) of each text at or near its mark (x, y, text); None where there is no room.

    ``marks`` are (x, y, radius) of everything drawn, ``lines`` boxes of what else is; a text may stand out on the
    right, where a picture grows. Greedy: earlier texts choose first among right, left, above and below, near and a line
    farther. O(n^2).
    """
    taken: list[Box] = [*lines, *((x - r, y - r, x + r, y + r) for x, y, r in marks)]
    radii = {(x, y): r for x, y, r in marks}
    found: list[tuple[float, float] | None] = []
    for x, y, text in wanted:
        size = CHARACTER * len(text)
        off = radii.get((x, y), 6.0) + 3
        choices = [
            (x + off if side > 0 else x - off - size if side < 0 else x - size / 2, y + up)
            for up in (0, -11, 11, -off - 6, off + 6, -24, 24)
            for side in ((1, -1) if abs(up) < 12 else (0, 1, -1))
        ]
        spot = next((c for c in choices if _free(c, size, taken, width, height)), None)
        found.append(spot)
        if spot is not None:
            taken.append(_box(spot, size))
    return found


def _box(spot: tuple[float, float], size: float) -> Box:
    return (spot[0], spot[1] - LINE / 2, spot[0] + size, spot[1] + LINE / 2)


def _free(spot: tuple[float, float], size: float, taken: Sequence[Box], width: float, height: float) -> bool:
    left, top, right, bottom = _box(spot, size)
    if left < 2 or top < -8 or bottom > height or right > width + 60:
        return False
    return all(left >= r or right <= a or top >= b or bottom <= t for a, t, r, b in taken)
