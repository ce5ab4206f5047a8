"""Left and right in names.

The side in a name is the patient's side, and comes from the label, never from the position of an object. In a
mirrored image the left kidney becomes the right one. The left ventricle of the heart does not: there "left" names a
chamber, not a side of the body.
"""

from __future__ import annotations

import re

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)

# Names with "left" or "right" that are not one of a pair: parts of the heart and its vessels, of the liver and of
# unpaired abdominal organs; and the middle lobe, which only the right lung has.
_UNPAIRED = re.compile(
    r"\b(?:heart|cardiac|atri(?:um|a|al)|auric(?:le|ular)|coronary|hepatic|liver|portal|colic|colon"
    r"|gastric|gastroepiploic|gastro-omental|anterior descending|circumflex|marginal|middle lobe)\b"
    # "left ventricle" is a chamber; "left lateral ventricle" is in the brain and one of two. The crura of the
    # diaphragm differ from each other; those of the cerebellum are a pair.
    r"|\b(?:left|right)[\s-]+(?:ventric|crus\b)|\bventric\w+[\s-]+(?:left|right)\b",
    re.IGNORECASE,
)
_OTHER = {"left": "right", "right": "left"}


def other_side(name: str) -> str:
    """The name of the same structure on the other side; names without a paired side are returned unchanged."""
    if _UNPAIRED.search(name):
        return name
    return _SIDE.sub(lambda match: _in_case_of(match.group(), _OTHER[match.group().lower()]), name)


def _in_case_of(example: str, word: str) -> str:
    """`word` in the letter case of `example`."""
    if example.isupper():
        return word.upper()
    return word.capitalize() if example[0].isupper() else word
