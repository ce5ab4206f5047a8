"""scene_graph_f1: SPICE's measure without Java, from its published definition (Anderson et al., ECCV 2016).

A text becomes a graph of objects, their attributes and their relations (propositions.py parses it with spaCy). The
score is the F1 of the tuples (object), (object, attribute) and (object, relation, object) of the answer against those
of the reference. Two words are the same if they are equal or share a synset of WordNet (wordnet.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .propositions import Proposition, Word, propositions
from .spice import cut_text
from .wordnet import synsets_of


@dataclass
class Concept:
    """Words that mean the same in a text, their synsets, and the marks of strict scores (sides, "no")."""

    words: set[str]
    synsets: set[int]
    marks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, word: Word) -> Concept:
        return cls({word.lemma}, set(synsets_of(word.lemma)), word.marks)

    def is_like(self, other: Concept) -> bool:
        """Whether they have the same marks, and share a word or a synset."""
        return self.marks == other.marks and not (
            self.words.isdisjoint(other.words) and self.synsets.isdisjoint(other.synsets)
        )

    def likeness(self, other: Concept) -> float:
        """1 if a word is shared, else the shared part of all synsets; 0 if the marks differ."""
        if self.marks != other.marks:
            return 0.0
        if not self.words.isdisjoint(other.words):
            return 1.0
        return len(self.synsets & other.synsets) / max(1, len(self.synsets | other.synsets))

    def merge(self, other: Concept) -> None:
        self.words |= other.words
        self.synsets |= other.synsets


@dataclass
class _Node:
    concept: Concept
    attributes: list[Concept] = field(default_factory=list)


class SceneGraph:
    """Objects with attributes, and relations between them; what means the same is one object, or one attribute."""

    def __init__(self, found: Iterable[Proposition] = ()) -> None:
        self._nodes: list[_Node] = []
        self._relations: list[tuple[_Node, Concept, _Node]] = []
        for proposition in found:
            self.add(proposition)

    def add(self, proposition: Proposition) -> None:
        """Adds (object), (object, attribute) or (object, relation, object)."""
        source = self._node(proposition[0])
        if len(proposition) == 2:
            _merge_into(source.attributes, Concept.of(proposition[1]))
        elif len(proposition) == 3:
            self._relate(source, Concept.of(proposition[1]), self._node(proposition[2]))

    def tuples(self) -> Iterator[tuple[Concept, ...]]:
        """The tuples that are compared."""
        for node in self._nodes:
            yield (node.concept,)
            for attribute in node.attributes:
                yield node.concept, attribute
        for source, relation, target in self._relations:
            yield source.concept, relation, target.concept

    def _node(self, word: Word) -> _Node:
        concept = Concept.of(word)
        best = max(self._nodes, key=lambda node: node.concept.likeness(concept), default=None)
        if best is None or not best.concept.likeness(concept):
            self._nodes.append(_Node(concept))
            return self._nodes[-1]
        best.concept.merge(concept)
        return best

    def _relate(self, source: _Node, relation: Concept, target: _Node) -> None:
        between = [each for first, each, second in self._relations if first is source and second is target]
        if not any(each.is_like(relation) for each in between):
            self._relations.append((source, relation, target))
        else:
            _merge_into(between, relation)


def _merge_into(concepts: list[Concept], new: Concept) -> None:
    """Merges into the first concept that is alike, else appends."""
    for concept in concepts:
        if concept.is_like(new):
            concept.merge(new)
            return
    concepts.append(new)


def scene_graph_scores(pairs: Sequence[tuple[str, str]], strict: bool = False) -> list[float]:
    """The F1 of each (reference, response) pair, 0 to 1; 0 if either text has no tuple.

    strict: an object or an attribute of the other side ("left" for "right"), or one that is denied ("no nodule"), is
    another one. Texts are cut as SPICE's are (`spice.cut_text`).
    Raises ValueError if spaCy, its English model or the toolkit that contains WordNet is not installed.
    """
    texts = dict.fromkeys(cut_text(text) for pair in pairs for text in pair)
    graphs = {
        text: list(SceneGraph(found).tuples())
        for text, found in zip(texts, propositions(list(texts), strict), strict=True)
    }
    return [_f1(graphs[cut_text(reference)], graphs[cut_text(response)]) for reference, response in pairs]


def _f1(wanted: Sequence[tuple[Concept, ...]], given: Sequence[tuple[Concept, ...]]) -> float:
    hits = sum(any(_alike(one, other) for other in wanted) for one in given)
    if not hits:
        return 0.0
    precision, recall = hits / len(given), min(1.0, hits / len(wanted))
    return 2 * precision * recall / (precision + recall)


def _alike(one: Sequence[Concept], other: Sequence[Concept]) -> bool:
    return len(one) == len(other) and all(a.is_like(b) for a, b in zip(one, other, strict=True))
