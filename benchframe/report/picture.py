"""An SVG picture as part of a page: only known elements and attributes pass, and its marks can be pointed at.

vl-convert escapes the text of names. What arrives here is parsed and written anew from a list of what is allowed all
the same, so that a page's safety does not rest on that.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping

_ELEMENTS = {"svg", "g", "path", "rect", "line", "text", "tspan", "circle"}
_ATTRIBUTES = {
    *("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "viewBox", "dx", "dy", "r", "cx", "cy"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "stroke-opacity"),
    *("text-anchor", "font-size", "font-weight"),
}
_DEFAULTS = {("opacity", "1"), ("fill-opacity", "1"), ("stroke-opacity", "1")}
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_SAFE = re.compile(r"(?!.*url)[\w\s.,#%()+-]*", re.IGNORECASE | re.DOTALL)


def inline(svg: str, strategies: Mapping[str, int], title: str, others: Collection[str] = ()) -> str:
    """``svg`` for a page; ``title`` is what a screen reader calls it. O(size).

    A mark whose text begins with a name of ``strategies`` gets that strategy's number as ``data-s``; one that says
    more gets the class ``m`` and its text as label: these are the marks that show a tooltip. So do marks whose text
    begins with one of ``others``, which belong to no strategy. Raises ValueError if
    ``svg`` is not an SVG document.
    """
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise ValueError(f"not an SVG document: {error}") from None
    clean = _element(root, strategies, others)
    if clean is None or clean.tag != "svg":
        raise ValueError("not an SVG document: the root is no svg element")
    clean.attrib = {"role": "group", "aria-label": title, **clean.attrib}
    return ET.tostring(clean, encoding="unicode")


def _element(node: ET.Element, strategies: Mapping[str, int], others: Collection[str]) -> ET.Element | None:
    tag = node.tag.rpartition("}")[2]
    if tag not in _ELEMENTS or node.get("display") == "none":
        return None
    clean = ET.Element(tag)
    for name, value in node.attrib.items():
        if name in _ATTRIBUTES and (name, value) not in _DEFAULTS and _SAFE.fullmatch(value):
            clean.set(name, value if "opacity" in name else _NUMBER.sub(_shorter, value))
    if tag != "svg":
        _say(node, clean, strategies, others)
    if tag in ("text", "tspan"):
        clean.text = node.text
    for child in node:
        inner = _element(child, strategies, others)
        if inner is not None:
            clean.append(inner)
            if tag == "text":
                inner.tail = child.tail
    if tag == "g" and len(clean) == 0:
        return None
    if tag == "path" and node.get("class") in ("background", "foreground") and "fill" not in clean.attrib:
        return None
    return clean


def _say(node: ET.Element, clean: ET.Element, strategies: Mapping[str, int], others: Collection[str]) -> None:
    """Move a mark's description to where a page and a screen reader look for it."""
    label = node.get("aria-label", "")
    if node.get("aria-hidden") == "true":
        clean.set("aria-hidden", "true")
    if not label or node.tag.endswith("}g"):
        return
    if label in strategies:
        clean.set("data-s", str(strategies[label]))
        clean.set("aria-hidden", "true")
        return
    ends = [i for i in range(len(label)) if label.startswith(": ", i)]
    name = next((label[:i] for i in ends if label[:i] in strategies or label[:i] in others), None)
    if name is not None:
        if name in strategies:
            clean.set("data-s", str(strategies[name]))
        clean.set("class", "m")
        clean.set("role", "img")
        clean.set("aria-label", label)


def _shorter(match: re.Match[str]) -> str:
    """Less than a tenth of a pixel is not seen."""
    text = f"{float(match[0]):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
