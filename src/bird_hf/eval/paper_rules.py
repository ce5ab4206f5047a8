"""The scoring rules of the paper's own scripts, repeated exactly so that numbers can be compared.

They are lenient: extra boxes cost nothing, one box may match two references, boxes for absent objects are not counted,
and "rib" is found in "tribal". `tests/golden/scores/official.json` holds the output of the original scripts.
"""

from __future__ import annotations

import re

from ..hub.grounding import BOX_CLOSE, BOX_OPEN
from .recall import IOU_THRESHOLD, Recall

_NUMBER = re.compile(r"\d+")
_UNTAGGED = re.compile(r"\(\d+,\d+\),\(\d+,\d+\)")
_DIGITS = 300  # int() refuses very long numbers; one cut to this many is still beyond every box

# Four numbers in thousandths, in the order in which they were written.
_Corners = tuple[int, int, int, int]


def clean_response(response: str) -> str:
    """The part of a response that the original scripts score; generation may continue after the answer."""
    if ".<|im_end|>" in response:
        response = response.split(".<|im_end|>")[0] + "."
    response = response.replace("<|im_end|>\n", "")
    if response.count("\n") >= 2:
        response = response.split("\n")[1]
    return response.replace("<|endoftext|>", "").strip()


def grounding_recall(reference: str, response: str) -> Recall:
    """VG: how many reference boxes have an IoU above 0.5 with any box of the response, in thousandths.

    If a response has no tagged box, its boxes without tags count. A reference without boxes adds nothing to the total.
    """
    wanted = _tagged_boxes(reference)
    found = _tagged_boxes(response)
    if not found:
        found = [_corners(match) for match in _UNTAGGED.findall(response)]
    hits = sum(any(_iou(box, guess) > IOU_THRESHOLD for guess in found) for box in wanted)
    return Recall(hits, len(wanted))


def name_recall(reference: str, response: str) -> Recall:
    """ROC: a hit if every space-separated word of the reference is a substring of the response."""
    answer = response.lower()
    return Recall(int(all(word in answer for word in reference.lower().split(" "))), 1)


def _tagged_boxes(text: str) -> list[_Corners | None]:
    """The content of each <box>, up to the first </box> on the same line; linear in the length of the text.

    A tag that does not hold four numbers is None.
    """
    found = []
    for line in text.split("\n"):
        start = line.find(BOX_OPEN)
        while start >= 0 and (end := line.find(BOX_CLOSE, start)) >= 0:
            found.append(_corners(line[start + len(BOX_OPEN) : end]))
            start = line.find(BOX_OPEN, end)
    return found


def _corners(text: str) -> _Corners | None:
    numbers = [int(number.lstrip("0")[:_DIGITS] or "0") for number in _NUMBER.findall(text)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _iou(box: _Corners | None, other: _Corners | None) -> float:
    """As the original computes it: corners are not checked, so an inverted box has the area that its numbers give."""
    if box is None or other is None:
        return 0.0
    width = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    shared = width * height
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return shared / (areas - shared) if areas != shared else 0.0
