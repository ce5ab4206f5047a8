"""Rewards for grounded answers, from 0 to 1: what GRPO raises.

`grounding_reward` compares values (a read answer, the boxes and names asked for), so that it serves any model whose
answers can be read; `box_reward` reads texts first and has the signature of TRL's reward functions.

The reward is a product of parts that are each from 0 to 1, so that none makes up for another:

- overlap: boxes paired one to one with reference boxes; every box too many takes away what a perfect box gives;
- wording: whether the phrases name what was asked for;
- brevity: how much of the text an answer of the usual length needs.

An answer that cannot be read gets 0, and so does a denial if the object is there, or a box if it is not.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.records import Task
from ..eval.names import same_name
from ..eval.outcomes import Outcome, outcome_of_read
from ..eval.pairing import assigned_weights, may_pair
from ..eval.readings import is_about_another, says_absent
from ..hub.boxes import Box
from ..hub.grounding import GroundedText, read

IOU_SHARE = 0.75  # of the similarity of two boxes; the rest is their closeness
LOWEST_READABLE = 0.05  # overlap of a box that finds nothing, which is still better than no answer
UNNAMED = 0.5  # wording of an answer that does not name what was asked for
PLAIN_CHARS = 80  # of an answer of the usual length, without the names asked for
_LINE_FEED_AND_TAB = "\n\t"


@dataclass(frozen=True)
class Asked:
    """What a visual grounding question asks for.

    boxes: the reference boxes, each with its name; "" if the name is not known. Empty if the object is absent.
    absent: names asked for that the image does not show, as far as they are known.
    """

    boxes: tuple[tuple[str, Box], ...] = ()
    absent: tuple[str, ...] = ()

    @classmethod
    def from_reference(cls, reference: GroundedText, absent: Sequence[str] = ()) -> Asked:
        """The boxes and phrases of a reference answer."""
        return cls(_named_boxes(reference), tuple(absent))


@dataclass(frozen=True)
class RewardParts:
    """The parts of a reward, each from 0 to 1; all are 0 if the answer is unreadable or of the wrong kind."""

    overlap: float = 0.0
    wording: float = 0.0
    brevity: float = 0.0

    @property
    def reward(self) -> float:
        return self.overlap * self.wording * self.brevity


def grounding_reward(answer: GroundedText | None, asked: Asked) -> float:
    """The reward of an answer to a visual grounding question, from 0 to 1; None is an answer that cannot be read.

    One more box than the reference has never raises it.
    """
    return reward_parts(answer, asked).reward


def reward_parts(answer: GroundedText | None, asked: Asked) -> RewardParts:
    """The parts of `grounding_reward`."""
    if answer is None or has_hidden_characters(answer.text):
        return RewardParts()
    outcome = outcome_of_read(Task.VISUAL_GROUNDING, answer.text, answer)
    brevity = _brevity(answer.text, asked)
    if not asked.boxes:
        is_right = outcome is Outcome.SAID_ABSENT
        return RewardParts(1.0, _denial_wording(answer.text, asked), brevity) if is_right else RewardParts()
    if outcome is not Outcome.ANSWERED or (not asked.absent and says_absent(answer.text)):
        return RewardParts()
    given = _named_boxes(answer)
    return RewardParts(overlap(given, asked.boxes), _box_wording(given, asked), brevity)


def overlap(given: Sequence[tuple[str, Box]], wanted: Sequence[tuple[str, Box]]) -> float:
    """How well boxes with names match reference boxes with names, above 0 to 1.

    Boxes are paired one to one, so that the sum of their similarities is largest; a box with another name than the
    reference box has similarity 0. A missing box gives 0, and each box too many takes 1 away, so that no further box
    is worth writing on the chance that it fits.
    """
    similarities = np.zeros((len(wanted), len(given)))
    for row, (name, box) in enumerate(wanted):
        similarities[row] = [
            similarity(guess, box) if may_pair(name, phrase) else 0.0 for phrase, guess in given
        ]
    matched = float(assigned_weights(similarities).sum())
    return _bounded((matched - max(0, len(given) - len(wanted))) / len(wanted))


def similarity(guess: Box, reference: Box) -> float:
    """IoU and closeness of two boxes as one number from 0 to 1, which is 1 for equal boxes only.

    The closeness is 1 / (1 + d): d is the root mean square distance of the corners' coordinates in units of the
    reference's mean side. A box that moves away loses some even where the IoU is 0 or stays the same.
    """
    distances: NDArray[np.float64] = np.subtract(guess.xyxy, reference.xyxy)
    side = (reference.width + reference.height) / 2
    closeness = 1 / (1 + math.sqrt(float(np.mean(distances**2))) / side)
    return IOU_SHARE * guess.iou(reference) + (1 - IOU_SHARE) * closeness


def has_hidden_characters(text: str) -> bool:
    """Whether a text has characters that are not seen: controls, formats such as zero-width spaces, unassigned ones."""
    return any(unicodedata.category(each)[0] == "C" and each not in _LINE_FEED_AND_TAB for each in text)


def _bounded(value: float) -> float:
    """Maps numbers up to 1 to those above 0, keeping their order: 1 to 1, 0 to `LOWEST_READABLE`."""
    if value >= 0:
        return LOWEST_READABLE + (1 - LOWEST_READABLE) * value
    return LOWEST_READABLE / (1 - value)


def _box_wording(given: Sequence[tuple[str, Box]], asked: Asked) -> float:
    """1 if every phrase is one of the names of the reference boxes, or these have no names."""
    names = {name for name, _ in asked.boxes}
    if "" in names:
        return 1.0
    return 1.0 if all(any(same_name(name, phrase) for name in names) for phrase, _ in given) else UNNAMED


def _denial_wording(text: str, asked: Asked) -> float:
    """1 unless the answer says that something else is absent."""
    is_other = asked.absent and all(is_about_another(text, name) for name in asked.absent)
    return UNNAMED if is_other else 1.0


def _brevity(text: str, asked: Asked) -> float:
    names = [*(name for name, _ in asked.boxes), *asked.absent]
    allowed = PLAIN_CHARS + sum(map(len, names))
    return min(1.0, allowed / max(1, len(text)))


def _named_boxes(answer: GroundedText) -> tuple[tuple[str, Box], ...]:
    return tuple((span.phrase, box) for span in answer.spans for box in span.boxes)


def box_reward(
    completions: Sequence[str | Sequence[Mapping[str, Any]]],
    reference: Sequence[str],
    absent: Sequence[Sequence[str]],
    reader: Callable[[str], GroundedText | None] = read,
    denial: float = 1.0,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float]:
    """`grounding_reward` with the signature of TRL's reward functions.

    completions: texts, or conversations whose last message is the answer. reference (tagged text) and absent (names)
    are columns of the dataset. reader: reads a completion; None means that it cannot be read. denial: what the reward
    of a question about what is absent is multiplied by. The mean of each part is logged with `log_metric`, which TRL
    gives.
    """
    asked = [
        Asked.from_reference(read(answer), names) for answer, names in zip(reference, absent, strict=True)
    ]
    found = [
        reward_parts(reader(_text_of(completion)), each)
        for completion, each in zip(completions, asked, strict=True)
    ]
    if log_metric is not None and found:
        for part in fields(RewardParts):
            log_metric(f"reward/{part.name}", sum(getattr(each, part.name) for each in found) / len(found))
    return [parts.reward * (1.0 if each.boxes else denial) for parts, each in zip(found, asked, strict=True)]


def _text_of(completion: str | Sequence[Mapping[str, Any]]) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
