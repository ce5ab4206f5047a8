"""The scoring rules of the paper's own scripts, repeated to the letter so that numbers can be compared.

They are lenient: extra boxes cost nothing, one box may serve two references, an object that is not there may be
boxed for free, and "rib" is found in "tribal". `tests/golden/paper_scores.json` holds what the original scripts say.
"""

from __future__ import annotations

import re

from ..hub.grounding import BOX_CLOSE, BOX_OPEN
from .scores import IOU_THRESHOLD, Recall

_NUMBER = re.compile(r"\d+")
_UNTAGGED = re.compile(r"\(\d+,\d+\),\(\d+,\d+\)")
_DIGITS = 300  # int() refuses very long numbers; one cut to this many is still beyond every box

# Four numbers in thousandths, in the order they were written, or None for a tag that holds anything else.
_Corners = tuple[int, int, int, int]


def clean_response(response: str) -> str:
    """What the original scripts keep of a response, whose generation runs on behind the answer."""
    if ".<|im_end|>" in response:
        response = response.split(".<|im_end|>")[0] + "."
    response = response.replace("<|im_end|>\n", "")
    if response.count("\n") >= 2:
        response = response.split("\n")[1]
    return response.replace("<|endoftext|>", "").strip()


def grounding_recall(reference: str, response: str) -> Recall:
    """VG: how many boxes of the reference any box of the response overlaps, in thousandths, IoU above 0.5.

    Boxes without tags count in a response that has no tagged one. A reference without boxes counts for nothing.
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
    """What stands between a tag and the first closer behind it, on one line; in linear time on any text."""
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
    """As the original computes it: no corner is checked, so an inverted box has what area its numbers give."""
    if box is None or other is None:
        return 0.0
    width = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    height = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    shared = width * height
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return shared / (areas - shared) if areas != shared else 0.0
