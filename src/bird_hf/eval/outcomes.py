"""The outcome of an answer: answered, said absent, or unreadable.

An answer is unreadable if it is silent, refuses, has no box where one was asked for, writes boxes in another model's
way, or breaks a tag. Strict rules never count it as right. Paper rules do not use outcomes; the rate of unreadable
answers is printed beside their scores.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from ..data.records import Task
from ..hub.grounding import GroundedText, Issue, read
from .hallucination import Missing
from .paper_rules import clean_response
from .predictions import Prediction

MAX_BOXES = 1000  # more are not an answer; the time of pairing grows with their number
_READ_CHARS = 2000  # a refusal or a denial stands at the beginning of an answer

# An answer with one of these has a box that breaks the grammar; a box without a phrase is well formed.
MALFORMED = frozenset(Issue) - {Issue.ORPHAN_BOX}

# How other models mark boxes: special tokens, tags, JSON, lists of four numbers.
_FOREIGN = re.compile(
    r"<\|[^|<>\s]{1,40}\|>"
    r"|</?(?:loc_?\d{1,5}|loc|bbox|coord|det|grounding|obj|object|phrase|p|point|points|poly|seg|delimiter_of_multi_objects"
    r"|patch_index_\d{1,5}|[xy]\d{1,4}|\d{1,4})\s*/?>"
    r"|[\"'](?:bbox|box|boxes|bounding_box|point)(?:_2d)?[\"']\s{0,3}:"
    r"|```json"
    r"|\[\s*+-?[\d.]++\s*+(?:[,\s]\s*+-?[\d.]++\s*+){3}\]",
    re.IGNORECASE,
)
_NOT = r"(?:\s+not|n['’]t)"
_SEEN = (
    r"(?:visible|seen|present|found|identified|detected|shown|depicted|displayed|included|visuali[sz]ed|apparent|evident"
    r"|located|part\s+of|in\s+(?:this|the)|here|there)"
)
_NO = r"no\b(?!\s+(?:doubt|problem|question|issue|worr|need))"
_ABSENT = re.compile(
    rf"\bthere\s+(?:is|are|was|were)(?:\s+\w+)?\s+(?:{_NO}|not\b|none\b|nothing\b)"
    r"|\bthere\s+(?:is|are|was|were)n['’]t\b"
    rf"|\b(?:is|are|was|were){_NOT}(?:\s+\w+){{0,2}}\s+{_SEEN}\b"
    rf"|\bnot\s+(?:\w+\s+)?{_SEEN}\b"
    r"|\babsent\b|\babsence\s+of\b|\black(?:s|ing)?\b|\bdevoid\s+of\b"
    rf"|\b(?:do|does|did){_NOT}\s+(?:show|contain|include|depict|display|have|appear|exist|exhibit)\b"
    rf"|\b(?:do|does|did){_NOT}\s+know\s+(?:(?:the|this|that|any)\s+)?(?:name|word|term)\b"
    rf"|^\W*(?:{_NO}|none\b|nothing\b|nowhere\b)",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"(?:\b(?:cannot|can\s+not|could\s+not|unable\s+to|not\s+able\s+to|do\s+not|did\s+not|failed\s+to)"
    r"|\b(?:ca|could|do|did)n['’]t|\bcan['’]t)\s+(?:be\s+)?(?:\w+\s+)?"
    r"(?:see|seen|find|found|identify|identified|detect|detected|locate|located|observe|observed|recogni[sz]e|visuali[sz]e)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:\b(?:cannot|can\s+not|could\s+not|unable\s+to|not\s+able\s+to|will\s+not|must\s+not|not\s+allowed\s+to)"
    r"|\b(?:ca|could|wo)n['’]t|\bcan['’]t)\s+(?:\w+\s+){0,2}?"
    r"(?:help|assist|answer|provide|comply|process|diagnos\w{1,5}|analy[sz]e|interpret|view|give|offer|fulfil+|respond|open"
    r"|access|do\s+that|(?:see|read)\s+(?:(?:the|any|this)\s+)?(?:image|picture|photo)s?)\b"
    r"|\bas\s+an?\s+(?:ai|(?:large\s+)?language\s+model)\b|^\W*(?:(?:i\s+am|i['’]m)\s+)?(?:very\s+)?sorry\W*$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")


class Outcome(StrEnum):
    """What an answer is, before it is compared with the reference."""

    ANSWERED = "answered"
    SAID_ABSENT = "said_absent"
    UNREADABLE = "unreadable"


def asks_for_box(kind: str) -> bool:
    """Whether questions of a kind (a task, `absent` or `foreign`) ask for a box."""
    return kind == Task.VISUAL_GROUNDING or kind in tuple(Missing)


def outcome_of(kind: str, response: str) -> Outcome:
    """The outcome of a response to a question of a kind: a task, `absent` or `foreign`."""
    cleaned = clean_response(response)
    return outcome_of_read(kind, cleaned, read(cleaned))


def outcome_of_read(kind: str, cleaned: str, answer: GroundedText) -> Outcome:
    """The same for a response that was cleaned and read."""
    if not MALFORMED.isdisjoint(answer.issues) or _is_foreign(cleaned, answer):
        return Outcome.UNREADABLE
    if asks_for_box(kind) and answer.boxes:
        return Outcome.ANSWERED if len(answer.boxes) <= MAX_BOXES else Outcome.UNREADABLE
    text = answer.text[:_READ_CHARS].strip()
    if not any(map(str.isalnum, text)):
        return Outcome.UNREADABLE
    refuses = bool(_REFUSAL.search(text))
    if asks_for_box(kind):
        absent = _ABSENT.search(text) or (_NOT_FOUND.search(text) and not refuses)
        return Outcome.SAID_ABSENT if absent else Outcome.UNREADABLE
    first = _SENTENCE_END.split(text, maxsplit=1)[0]  # "The left lung. There is no nodule." names something
    if _ABSENT.search(first):
        return Outcome.SAID_ABSENT
    return Outcome.UNREADABLE if refuses else Outcome.ANSWERED


def outcomes(kind: str, predictions: Sequence[Prediction]) -> list[Outcome]:
    """The outcome of each answer, in order."""
    return [outcome_of(kind, each.response) for each in predictions]


def outcome_counts(found: Iterable[Outcome]) -> dict[str, int]:
    """How many answers have each outcome; all three are listed."""
    counts = Counter(found)
    return {outcome.value: counts[outcome] for outcome in Outcome}


def _is_foreign(cleaned: str, answer: GroundedText) -> bool:
    """Another model's markup is what is left of it after known tags are removed, and ```json``` as it stands."""
    return bool(_FOREIGN.search(answer.text)) or "```json" in cleaned.lower()
