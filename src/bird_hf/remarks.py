"""Remarks on an answer: it names another object than the question, or the question names one that is not known.

Names are compared as words, without regard to case, spacing, punctuation, plural and singular, British and American
spelling; the synonyms of varied questions count as the name. The time is linear in the length of question and answer,
and no text raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from .data.teachers.wordings import plural_of, synonyms_of
from .hub.grounding import GroundedText

_Words = tuple[str, ...]

MAX_UNKNOWN_WORDS = 4  # more are not a name that was left over, but a question of another kind
_SHOWN_CHARS = 60
_SUGGESTIONS = 3
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_WORD_OR_COMMA = re.compile(rf"{_WORD.pattern}|,")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of questions that are not part of a name. What is left of a question without them is the name asked for.
_FUNCTION_WORDS = _word_set(
    """
    a abnormal abnormalities abnormality about absent acquired add again all also am amount an
    anatomical anatomy and annotate answer any anything anywhere appear appearing appears are area areas
    aren't around as ask assign at attach axial bbox be been belong belongs body both bottom boundaries
    boundary bounded bounding box boxed boxes brief briefly but by call called can can't cant caption
    categorise categorize center centre characterise characterize check checking choose circle clarify
    class classification classify clear comment contain contained containing contains content coordinate
    coordinates corner corners coronal correct could could've count counted cover create ct decide
    define delineate depict depicted depicts dermoscopy describe described describing description
    details detect detected detection determine diagnosis did didn't display displayed do does doesn't
    doesnt don't dont down draw each either elaborate else enclose enclosed encloses enclosing endoscopy
    establish estimate ever every everything evidence exactly exist existing exists explain explained
    extent far figure find finding findings fits for frame from fundus get give given go got ground
    grounding guess had happening has have he healthy hello help her here hey hi highlight highlighted
    him his hold holds how human i i'd i'm i've id idea identify identity if im image imaged images
    imaging in include included indicate inside instance instances into is isn't it it's its just kind
    kindly know known label labeled labelled laterality let let's lets lie lies like list localisation
    localise localised localization localize localized locate located location locations look looking
    looks lying made main make man many mark marked marker may me mean means medical mention method
    might mine modality more mr mri must my name named need no normal not notice now number object
    objects observe of off ok okay on one only or organ organs our out outline output over overview own
    part parts pathology patient patient's people per person pet photo photograph pick picture pictures
    pinpoint place places plane please pls point position positions possible possibly predict presence
    present print propose provide put question quick quickly radiograph ray read really recognise
    recognize rectangle region regions report reported return right? roi sagittal said say scan scan's
    scanner scans search see seeing seen segment segmentation select sentence shall she short should
    show showing shown shows side sides sign signs sit site sits situated size slice slices so some
    something somewhere sonogram sort specify spot stands state structure structures subject such
    suggest summarise summarize summary supply tag taken talk technique tell test tested than thank
    thanks that that's thats the their them then there there's theres these they thing things think this
    those though tissue to too top total trace true try type ultrasound unusual up us use used using
    very view visible visualise visualised visualize visualized want was wasn't we well were what what's
    whats when where where's whereabouts wheres whether which while who whose why will with within
    without woman wonder wondering words work would write wrong x xray yes yet you you've your
    """
)
_MODIFIERS = _word_set(
    """
    left right upper lower anterior posterior superior inferior medial lateral
    """
)
_NOT_NAMES = _FUNCTION_WORDS | _MODIFIERS | {","}
_JOINING = frozenset(("of", "the"))  # inside a name: "head of the pancreas"
_LISTING = frozenset(("and", "or", "the", "a", "an", ","))  # between names: "the heart and the liver"
# The question is about something beside the object that it names, so that an answer rightly names another one.
_RELATIONS = _word_set(
    """
    above adjacent against attached behind below beneath beside besides between close closest near nearby
    nearest neighboring neighbouring next surround surrounding surrounds touch touches touching under
    """
)
_SAME_WORDS = {"centre": "center", "fibre": "fiber", "grey": "gray", "disk": "disc", "calibre": "caliber"}


class NameRemarks:
    """Compares the names in questions and answers.

    known_names: the names that a model was trained on (`BirdProcessor.known_names`); if there are none, no name is
    called unknown.
    """

    def __init__(self, known_names: Sequence[str]) -> None:
        self._names = {name_words(name): name for name in known_names if name_words(name)}
        self._spellings = {words: words for words in self._names}  # and synonyms -> words of the name
        for words, name in self._names.items():
            for other in (*synonyms_of(name), plural_of(name) or name):
                self._spellings.setdefault(name_words(other), words)
        self._longest = max(map(len, self._spellings), default=0)
        self._count = len(known_names)

    def remarks(self, question: GroundedText, answer: GroundedText) -> tuple[str, ...]:
        """Remarks in plain words, one sentence each; () if the question points at a box or names nothing."""
        words = _words_of(question.text)
        if question.boxes or not _RELATIONS.isdisjoint(word.lower() for word in words):
            return ()
        asked = self._known_in(words)
        unknown = {} if asked else _left_over(_WORD_OR_COMMA.findall(question.text))
        remarks = [*_another(asked or unknown, self._named_by(answer))]
        if self._names:
            remarks += [self._unknown(folded, shown) for folded, shown in unknown.items()]
        return tuple(remarks)

    def _known_in(self, words: Sequence[str]) -> dict[_Words, str]:
        """The known names in a text, as folded and as listed; of names that overlap the longest."""
        folded = [_fold(word) for word in words]
        found: dict[_Words, str] = {}
        start = 0
        while start < len(folded):
            for length in range(min(self._longest, len(folded) - start), 0, -1):
                name = self._spellings.get(tuple(folded[start : start + length]))
                if name is not None:
                    found[name] = self._names[name]
                    start += length
                    break
            else:
                start += 1
        return found

    def _named_by(self, answer: GroundedText) -> dict[_Words, str]:
        found = self._known_in(_words_of(answer.text))
        for span in answer.spans:
            folded = self._spellings.get(name_words(span.phrase), name_words(span.phrase))
            if folded and any(word not in _NOT_NAMES for word in folded):
                found.setdefault(folded, span.phrase)
        return found

    def _unknown(self, folded: _Words, shown: str) -> str:
        count = f"the {self._count} names" if self._count > 1 else "the names"
        sentence = f"'{_short(shown)}' is not among {count} this model was trained on"
        near = [name for words, name in self._names.items() if set(folded) <= set(words)][:_SUGGESTIONS]
        if not near:
            return sentence
        quoted = [f"'{name}'" for name in near]
        listed = quoted[0] if len(near) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
        return f"{sentence}; {listed} {'is' if len(near) == 1 else 'are'}"


def _another(asked: dict[_Words, str], named: dict[_Words, str]) -> Iterable[str]:
    """A remark if the answer names something, but nothing that is asked for, or a part of its name."""
    if not asked or not named:
        return
    if any(set(one) <= set(other) or set(other) <= set(one) for one in asked for other in named):
        return
    shown = (
        " and ".join(f"'{_short(name)}'" for name in [*names.values()][:_SUGGESTIONS])
        for names in (named, asked)
    )
    yield "the answer is about {}, not {}".format(*shown)


def _left_over(words: Sequence[str]) -> dict[_Words, str]:
    """What a question asks about if it names no known object: its words without the function words.

    Returns {} if more than `MAX_UNKNOWN_WORDS` are left, or if they are not one name or a list of names.
    """
    is_content = _content(words)
    places = [place for place, flag in enumerate(is_content) if flag]
    if not 0 < len(places) <= MAX_UNKNOWN_WORDS:
        return {}
    parts: list[list[str]] = []
    for content, run in groupby(range(places[0], places[-1] + 1), is_content.__getitem__):
        run_words = [words[place] for place in run]
        lower = {word.lower() for word in run_words}
        if content and parts and parts[-1][-1:] == [""]:
            parts[-1][-1:] = run_words
        elif content:
            parts.append(run_words)
        elif lower <= _JOINING and "of" in lower:
            parts[-1] += [*run_words, ""]  # the name goes on
        elif not lower <= _LISTING:
            return {}
    return {tuple(map(_fold, part)): " ".join(part) for part in parts}


def _content(words: Sequence[str]) -> list[bool]:
    """Which words can be part of a name; modifiers if they stand before one that can."""
    flags: list[bool] = []
    for word in reversed(words):
        lower = word.lower().replace("’", "'")
        flags.append(flags[-1] if lower in _MODIFIERS and flags else lower not in _NOT_NAMES)
    return flags[::-1]


def names_something(text: str) -> bool:
    """Whether a text has words beside function words: "There is no liver." but not "I do not know this name."."""
    return any(_content(_words_of(text)))


def _words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def name_words(name: str) -> _Words:
    """The words of a name as they are compared: lower case, singular, American spelling."""
    return tuple(_fold(word) for word in _words_of(name))


def _fold(word: str) -> str:
    """A word in lower case, singular and American spelling; the same for all its forms, but not always a real word."""
    word = word.casefold().replace("’", "'").removesuffix("'s")
    word = _singular(_SAME_WORDS.get(word, word))
    word = _SAME_WORDS.get(word, word)
    return word.replace("ae", "e").replace("oe", "e").replace("our", "or")


def _singular(word: str) -> str:
    if len(word) < 4:
        return word
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("ae", "a")):
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    if word.endswith(("sis", "ses")):
        return word[:-2]  # metastasis and metastases, diseases
    if word.endswith("se"):
        return word[:-1]
    if word.endswith("i"):
        return f"{word[:-1]}us"  # nuclei, gyri
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}..."
