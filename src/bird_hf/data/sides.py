"""Left and right in names.

The side in a name is the patient's, and comes from the label, never from where a thing lies. In a mirrored
picture the left kidney has become the right one; the left ventricle of the heart has not: there the word
names a chamber, not a side of the body.
"""

from __future__ import annotations

import re

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)

# Names that hold "left" or "right" for another reason than being one of a pair: parts of the heart and its
# vessels, of the liver, and of what is unpaired in the belly; and the middle lobe, which only the right lung has.
_UNPAIRED = re.compile(
    r"\b(?:heart|cardiac|atri(?:um|a|al)|auric(?:le|ular)|coronary|hepatic|liver|portal|colic|colon"
    r"|gastric|gastroepiploic|gastro-omental|anterior descending|circumflex|marginal|middle lobe)\b"
    # "left ventricle" is a chamber; "left lateral ventricle" lies in the brain, and there are two. The crura of
    # the diaphragm differ; those of the cerebellum are a pair.
    r"|\b(?:left|right)[\s-]+(?:ventric|crus\b)|\bventric\w+[\s-]+(?:left|right)\b",
    re.IGNORECASE,
)
_OTHER = {"left": "right", "right": "left"}


def other_side(name: str) -> str:
    """The name of the same structure on the other side; a name without a paired side comes back unchanged."""
    if _UNPAIRED.search(name):
        return name
    return _SIDE.sub(lambda match: _like(match.group(), _OTHER[match.group().lower()]), name)


def _like(model: str, word: str) -> str:
    """`word` in the letter case of `model`."""
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
