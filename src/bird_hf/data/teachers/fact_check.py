"""Check the statements of a reply against the meta information of the image.

A chat model gets the objects of an image as meta information, and may still state something else. The rules are strict
on purpose: a correct sentence that is refused costs one more request, a wrong one that passes becomes a wrong row. They
compare English words with lists, so they find wrong names, not wrong meanings.

The messages of `FaultyReplyError` are part of repeated requests, which the reply store finds by their hash: a changed
message means that replies in older stores are asked, and paid, for again.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ...hub.grounding import read
from ..records import Axis, ImageRecord, Instance, Modality
from .positions import place_of

LONGEST_NAME = 80  # characters of a label or id

_MODALITY_WORDS = {
    Modality.CT: r"ct|computed tomograph\w*|cat scans?",
    Modality.MR: r"mri?s?|magnetic[ -]resonance",
    Modality.X_RAY: r"x[ -]?rays?|radiograph\w*|mammogra\w*",
    Modality.PET: r"pet|positron",
    Modality.ENDOSCOPY: r"(?:endo|colono|gastro|broncho)scop\w*",
    Modality.DERMOSCOPY: r"derm(?:at)?oscop\w*",
    Modality.FUNDUS: r"fundus|fundoscop\w*|ophthalmoscop\w*",
    Modality.ULTRASOUND: r"ultraso\w+|sonogra\w*|echo(?:cardio)?gra\w*",
    None: r"oct|optical[ -]coherence|spect|scintigra\w*|histolog\w*|microscop\w*|angiogra\w*|fluoroscop\w*",
}
_MODALITY = {kind: re.compile(rf"\b(?:{words})\b") for kind, words in _MODALITY_WORDS.items()}
_PLANE = re.compile(r"\b(?:axial|coronal|sagittal)\b")
_DIRECTION = re.compile(
    r"\b(?:left|right|anterior|posterior|superior|inferior|medial|lateral|dorsal|ventral|cranial|caudal|upper|lower|top"
    r"|bottom)\b"
)
_CLOCK = re.compile(r"\b(\w+) o'clock")

# Organs, regions, findings and judgements that models tend to add: such a word must be in the meta information.
_THINGS = re.compile(
    r"\b(?:(?:kidney|liver|spleen|pancreas|stomach|bowel|intestine|colon|rectum|bladder|gallbladder|prostate|uterus"
    r"|ovar(?:y|ie)|heart|aorta|atrium|ventricle|lung|trachea|o?esophagus|thyroid|breast|brain|thalamus|cerebellum"
    r"|hippocampus|eye|retina|lens|spine|vertebra|rib|clavicle|femur|pelvis|tooth|teeth|skull|vein|arter(?:y|ie)"
    r"|lymph node|tumou?r|lesion|nodule|mass|cyst|polyp|metastas[ie]s|cancer|carcinoma|melanoma|glioma"
    r"|malignanc(?:y|ie)|fracture|ha?emorrhage|ha?ematoma|infarct|stroke|o?edema|effusion|pneumothorax|pneumonia"
    r"|covid|stone|calculus|calculi|aneurysm|abscess|fat|nerve)(?:e?s)?|calcifications?|opacit(?:y|ies)"
    r"|abnormalit(?:y|ies)|patholog(?:y|ies)|diseases?|instruments?|catheters?|implants?"
    r"|chest|thorax|abdomen|head|neck|skin|knee|hand|foot|adrenal|gallstones?|normal|abnormal|healthy|benign|malignant"
    r"|\w{3,}(?:itis|osis|omas?|pathy|plasia|trophy))\b"
)
_DENIAL = re.compile(
    r"\b(?:no|not(?! only)|none|never|neither|nor|nothing|without|absent|absence|cannot|lacks?|missing|free of)\b|n't\b"
)
_SENTENCE = re.compile(r"[.;!?]+")
_CLAUSE = re.compile(r"[.;:!?,]+|\b(?:but|while|whereas|however|although|though|yet)\b")
_COUNTING = re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b")
_NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
_NUMBERS |= {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15}
_NUMBERS |= {
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
}
_NUMBERS |= {"fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS |= {"hundred": 100, "thousand": 1000, "both": 2, "pair": 2, "couple": 2, "dozen": 12, "single": 1}
_NOTHING = {"no", "none"}  # numbers only if the question asks for a count
_MARKUP = set("<>[]{}|\\`*#_@^~=")
_GIVEAWAYS = re.compile(
    r"meta ?-?(?:information|data)|language model|\bas an ai\b|://|\bwww\b|instance id|placeholder"
    r"|\bignore\b|instructions?\b"
)
_FIRST_NAME_MARK = 0xE000  # a private-use character: not printable, so it cannot occur in a reply


class FaultyReplyError(ValueError):
    """A reply that cannot be used. The message is the reason, which is sent back to the model."""


def normalize(text: str) -> str:
    """Return text in the form that is compared: NFKC, case folded, straight apostrophes, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").casefold().split())


def check_names(record: ImageRecord) -> None:
    """Raises FaultyReplyError if a label or an id is not a plain name: not printable, too long, or like markup."""
    for item in record.instances:
        for name in (item.label, item.instance_id.replace("_", " ")):
            bad = not name.strip() or len(name) > LONGEST_NAME or not name.isprintable()
            if bad or _MARKUP & {*name} or read(name).issues:
                raise FaultyReplyError(
                    f"{shortened(name)!r} is not a plain name of up to {LONGEST_NAME} characters; clean the labels"
                )


def shortened(text: str) -> str:
    """Return the beginning of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:37]}..."


class Facts:
    """A record, prepared for checking texts.

    `check` raises FaultyReplyError for the first statement that the record does not support; `labels_in` finds labels
    in a text.
    """

    def __init__(self, record: ImageRecord) -> None:
        self.record = record
        self.by_id = {item.instance_id: item for item in record.instances}
        self.labels = list(dict.fromkeys(normalize(item.label) for item in record.instances))
        self.counts = Counter(normalize(item.label) for item in record.present)
        names = "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))
        # The longest first: "left kidney", then "kidney".
        self._label_pattern = re.compile(rf"(?<!\w)({names})(?:e?s)?(?!\w)")
        info = record.info
        self._present = " ".join([*self.counts, normalize(info.region), normalize(info.modality_detail)])
        self._absent = " ".join(label for label in self.labels if label not in self.counts)
        # "t1", "l5": words that may have digits.
        self._codes = {*re.split(r"\W+", f"{self._present} {self._absent}")}

    def instances(self, labels: Iterable[str]) -> list[Instance]:
        """Return the instances with these normalized labels, present or absent."""
        wanted = {*labels}
        return [item for item in self.record.instances if normalize(item.label) in wanted]

    def labels_in(self, text: str) -> list[str]:
        """Return the labels that a text names, normalized, each once."""
        return self._marked_labels(self._mark(text))

    def check(self, answer: str, question: str = "", ids: Sequence[str] = ()) -> None:
        """Raises FaultyReplyError for the first false statement in a question and its answer.

        ids: the instances that they point at. A caption is an answer without a question.
        """
        question, answer = self._mark(question), self._mark(answer)
        turn = self._about([*self._marked_labels(question), *self._marked_labels(answer)], ids)
        for marked in (question, answer):
            self._check_form(marked)
            self._check_kind(marked)
            self._check_things(marked)
            for sentence in _SENTENCE.split(marked):
                named = self._about(self._marked_labels(sentence), ids)
                self._check_sentence(sentence, named or turn)
        self._check_presence(question, answer)
        self._check_counts(question, answer, ids)

    def is_about_image(self, text: str) -> bool:
        """Whether a text names an object, the modality, the region or the plane of the image."""
        info, words = self.record.info, normalize(text)
        known = (
            (normalize(info.region) in words)
            or _PLANE.search(words)
            or _MODALITY[info.modality].search(words)
        )
        return bool(known or self.labels_in(text) or _THINGS.search(words))

    def _about(self, labels: Sequence[str], ids: Sequence[str]) -> list[Instance]:
        """Return the objects that a text is about: those with a pointer, and all present ones of other named labels."""
        pointed = [self.by_id[name] for name in ids]
        done = {normalize(item.label) for item in pointed}
        named = [item for item in pointed if not labels or normalize(item.label) in labels]
        return named + [item for item in self.instances({*labels} - done) if item.present]

    def _mark(self, text: str) -> str:
        """Return the normalized text with one private character per label, so that words in a label are not checked."""
        return self._label_pattern.sub(
            lambda match: chr(_FIRST_NAME_MARK + self.labels.index(match[1])), normalize(text)
        )

    def _marked_labels(self, marked: str) -> list[str]:
        places = [ord(letter) - _FIRST_NAME_MARK for letter in dict.fromkeys(marked)]
        return [self.labels[place] for place in places if 0 <= place < len(self.labels)]

    def _check_form(self, marked: str) -> None:
        for letter in marked:  # a word with a Cyrillic "a" would match no list
            if letter.isalpha() and not unicodedata.name(letter, "").startswith(("LATIN", "GREEK")):
                raise FaultyReplyError(f"{letter!r} is no Latin letter; write English")
        if found := _MARKUP & {*marked}:
            raise FaultyReplyError(f"the character {min(found)!r} is markup; write plain text")
        if giveaway := _GIVEAWAYS.search(marked):
            raise FaultyReplyError(f"{giveaway[0]!r} does not belong in words about an image")

    def _check_kind(self, marked: str) -> None:
        info = self.record.info
        for kind, words in _MODALITY.items():
            found = kind is not info.modality and words.search(marked)
            if found and found[0] not in normalize(info.region):
                raise FaultyReplyError(
                    f"{found[0]!r} is not the modality of this image, which is {info.modality.value}"
                )
        for plane in _PLANE.findall(marked):
            if plane != info.axis.value:
                shown = "no slice" if info.axis is Axis.PLANAR else info.axis.value
                raise FaultyReplyError(f"{plane!r} is not the orientation of this image, which is {shown}")

    def _check_things(self, marked: str) -> None:
        for thing in _THINGS.findall(marked):
            if not _contains(f"{self._present} {self._absent}", thing):
                raise FaultyReplyError(f"{thing!r} is not in the meta information")

    def _check_sentence(self, sentence: str, about: Sequence[Instance]) -> None:
        """Check numbers, clock hours and directions of one sentence about these instances."""
        places = [place_of(item.box, self.record.info.axis) for item in about if item.box]
        for hour in _CLOCK.findall(sentence):
            if any(f"{_NUMBERS.get(hour, hour)} o'clock" not in place for place in places) or not places:
                raise FaultyReplyError(f'"{shortened(hour)} o\'clock" is not where the object lies')
        sentence = _CLOCK.sub("", sentence)
        for word in re.split(r"\W+", sentence):
            if any(letter.isnumeric() for letter in word) and word not in self._codes:
                raise FaultyReplyError(
                    f"{shortened(word)!r} is a number in digits; write no coordinates, and counts as words"
                )
        if side := re.search(rf"\b(left|right)\W+[{chr(_FIRST_NAME_MARK)}-\uf8ff]", sentence):
            raise FaultyReplyError(f"{side[1]!r} stands before a name that has no such side: wrong side")
        known = [
            {*_DIRECTION.findall(f"{normalize(item.label)} {place}")}
            for item, place in zip(about, places, strict=True)
        ]
        for direction in _DIRECTION.findall(sentence):
            if not known or any(direction not in words for words in known):
                raise FaultyReplyError(
                    f"{direction!r} does not hold for every object of its sentence: wrong side"
                )

    def _check_presence(self, question: str, answer: str) -> None:
        """Check that absent objects are denied, and present ones are not."""
        fallback = self._marked_labels(question) or self._marked_labels(answer)  # of a bare "No"
        for clause in _CLAUSE.split(answer):
            labels = self._marked_labels(clause)
            missing = [label for label in labels if label not in self.counts] + self._missing_things(clause)
            if not _DENIAL.search(clause):
                if missing:
                    raise FaultyReplyError(f"{missing[0]!r} is said to be there and is not in this image")
                continue
            subject = labels or ([] if missing else fallback)
            if present := [label for label in subject if label in self.counts]:
                raise FaultyReplyError(f"{present[0]!r} is denied and is in this image")
            if not subject and not missing:
                raise FaultyReplyError("something is denied that is not in not_in_the_image")
        absent = [label for label in self._marked_labels(question) if label not in self.counts]
        absent += self._missing_things(question)
        if absent and (not _DENIAL.search(answer) or re.match(r"yes\b", answer)):
            raise FaultyReplyError(f"{absent[0]!r} is asked for and not denied, and is not in this image")

    def _missing_things(self, marked: str) -> list[str]:
        """Return the words of `_THINGS` in a text that are not in the meta information, apart from absent labels."""
        return [thing for thing in _THINGS.findall(marked) if not _contains(self._present, thing)]

    def _check_counts(self, question: str, answer: str, ids: Sequence[str]) -> None:
        """Check the numbers of an answer to a counting question, and all number words."""
        labels = {*self._marked_labels(question), *self._marked_labels(answer)}
        answer_words = re.findall(r"[^\W_]+", answer)
        if _COUNTING.search(question):
            counted = self._marked_labels(question)
            if len(counted) != 1:
                raise FaultyReplyError("a question that counts names exactly one kind of object")
            numbers = {
                0 if word in _NOTHING else _NUMBERS[word]
                for word in answer_words
                if word in _NOTHING | {*_NUMBERS}
            }
            if numbers != {self.counts[counted[0]]}:
                raise FaultyReplyError(f"wrong count of {counted[0]!r}: there are {self.counts[counted[0]]}")
        right = {self.counts[label] for label in labels} | {
            len({*ids}),
            sum(self.counts[label] for label in labels),
        }
        for word in [*answer_words, *re.findall(r"[^\W_]+", question)]:
            if word != "one" and word in _NUMBERS and _NUMBERS[word] not in right:
                raise FaultyReplyError(f"{word!r} is a wrong count")


def _contains(words: str, thing: str) -> bool:
    """Whether one of the words is `thing`, in singular or plural."""
    stem = re.sub(r"(?:ies|y|es|s)$", "", thing)
    return bool(re.search(rf"\b{re.escape(stem)}", words))
