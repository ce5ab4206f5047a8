"""Boxes in the text of a turn, made on the stored pixels of an image -> the same on the upright image."""

from __future__ import annotations

import re

from ...hub.boxes import THOUSAND
from ..frames import Frame

# Boxes with and without tags, as `hub/grounding.py` reads them. Possessive, so that it is linear on hostile text.
_NUMBER = r"([-+]?+)0*+([0-9]*+)"
_CORNER = rf"\(\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+\)"
_BOX = re.compile(rf"{_CORNER}[\s,;]*+{_CORNER}")


def upright_text(text: str, frame: Frame) -> str:
    """The text with each box turned as the image is; everything else stays as it is.

    What is no box, such as corners in the wrong order, stays too; a malformed box between tags is refused before.
    """
    on_grid = Frame(frame.exif, (THOUSAND, THOUSAND))

    def turned(found: re.Match[str]) -> str:
        digits = found.groups()[1::2]
        if max(map(len, digits)) > len(str(THOUSAND)):
            return found.group()
        signs = found.groups()[0::2]
        x1, y1, x2, y2 = (int(sign + (number or "0")) for sign, number in zip(signs, digits, strict=True))
        if not (0 <= x1 < x2 <= THOUSAND and 0 <= y1 < y2 <= THOUSAND):
            return found.group()
        x1, y1, x2, y2 = map(int, on_grid.upright_box((x1, y1, x2, y2)))
        return f"({x1},{y1}),({x2},{y2})"

    return _BOX.sub(turned, text)
