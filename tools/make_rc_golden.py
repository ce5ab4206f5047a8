"""Writes tests/golden/scores/rc.jsonl: referring captions of all modalities, and what the original SPICE gives them.

    python tools/make_rc_golden.py [--tuples TUPLES.json]

References are in the words of the templates (sizes, labels and places of the package) or in sentences as a person
writes them; responses differ from them by one rule each. Needs Java and CoreNLP (`bird setup spice`). --tuples also
writes the tuples of the program, to compare parsers with.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bird_hf.atomic_writes import write_text
from bird_hf.data.phantoms import PHANTOM_LABELS
from bird_hf.data.records import Axis, Modality
from bird_hf.data.teachers.analysis import capital
from bird_hf.data.teachers.positions import place_of, size_of
from bird_hf.data.teachers.wordings.names import with_article
from bird_hf.eval.spice import run_spice
from bird_hf.hub.boxes import Box

SCORES = Path(__file__).parents[1] / "tests" / "golden" / "scores"
LABELS_PER_MODALITY = 4
AREAS = (0.005, 0.02, 0.1, 0.3)
CORNERS = ((0.1, 0.1), (0.6, 0.1), (0.1, 0.6), (0.6, 0.6), (0.4, 0.4))
SLICES = {Modality.CT: Axis.AXIAL, Modality.MR: Axis.CORONAL, Modality.PET: Axis.CORONAL}
ADJECTIVES = ("round", "oval", "bright", "dark", "irregular", "smooth", "blurred", "sharp")


@dataclass(frozen=True)
class Subject:
    """What a pair of captions is about: a label of a modality, another one, sizes, places and adjectives."""

    label: str
    other: str
    size: str
    other_size: str
    place: str
    other_place: str
    adjective: str
    other_adjective: str


Rule = Callable[[Subject], tuple[str, str]]


def template(subject: Subject, label: str = "", size: str = "", place: str = "") -> str:
    """The caption as the templates of the package write it."""
    words = with_article(f"{size or subject.size} {label or subject.label}")
    return f"{capital(words)}, {place or subject.place}."


def sentence(subject: Subject, label: str = "", adjective: str = "") -> str:
    """The caption as a person may write it."""
    words = f"{subject.size} {adjective or subject.adjective} {label or subject.label}"
    return f"The image shows {with_article(words)} beside the {subject.other}."


def plural(label: str) -> str:
    if label.endswith("y") and label[-2] not in "aeiou":
        return f"{label[:-1]}ies"
    return {"vertebra": "vertebrae", "lumen": "lumina"}.get(label, f"{label}s")


def swapped(text: str) -> str:
    """Left for right and right for left."""
    sides = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda found: sides[found[0]], text)


RULES: dict[str, Rule] = {
    "same": lambda s: (template(s), template(s)),
    "word order": lambda s: (template(s), f"{capital(s.place)} lies {with_article(f'{s.size} {s.label}')}."),
    "synonyms": lambda s: (
        f"A large {s.label} is visible in the upper part of the picture.",
        f"A big {s.label} is seen in the top portion of the image.",
    ),
    "plural": lambda s: (sentence(s), f"The image shows two {s.size} {s.adjective} {plural(s.label)}."),
    "side": lambda s: (
        f"The {s.label} lies on the left of the {s.other}.",
        swapped(f"The {s.label} lies on the left of the {s.other}."),
    ),
    "negation": lambda s: (sentence(s), f"There is no {s.label} beside the {s.other}."),
    "size": lambda s: (template(s), template(s, size=s.other_size)),
    "attribute": lambda s: (sentence(s), sentence(s, adjective=s.other_adjective)),
    "place": lambda s: (template(s), template(s, place=s.other_place)),
    "label": lambda s: (template(s), template(s, label=s.other)),
    "sentences": lambda s: (
        f"This is {with_article(s.label)}. It is {s.size} and {s.adjective}. It touches the {s.other}.",
        f"The {s.label} is {s.size}. The {s.label} touches the {s.other}, which is {s.other_adjective}.",
    ),
    "style": lambda s: (template(s), sentence(s)),
    "surface": lambda s: (sentence(s), sentence(s).lower().rstrip(".")),
    "conjunction": lambda s: (
        f"The {s.label} and the {s.other} are {s.adjective}.",
        f"The {s.adjective} {s.other} and the {s.label} lie in the middle of the image.",
    ),
    "verb": lambda s: (
        f"The arrow points to the {s.label}, which is surrounded by the {s.other}.",
        f"The {s.other} surrounds the {s.adjective} {s.label}.",
    ),
    "count": lambda s: (
        f"There are three {s.adjective} {plural(s.label)} near the edge of the image.",
        f"Two {plural(s.label)} with {s.adjective} borders lie near the edge.",
    ),
}
# Once per modality: answers without words, without a sentence, and about nothing.
WHOLE: dict[str, Rule] = {
    "empty": lambda s: (template(s), ""),
    "punctuation": lambda s: (template(s), "..."),
    "one word": lambda s: (template(s), s.label.split()[-1]),
    "refusal": lambda s: (sentence(s), "I am sorry, but I cannot help with that."),
}


def subjects(modality: Modality) -> list[Subject]:
    """The first labels of a modality, each with what varies between captions."""
    labels = PHANTOM_LABELS[modality]
    axis = SLICES.get(modality, Axis.PLANAR)
    places = [place_of(Box(x, y, x + 0.2, y + 0.2), axis) for x, y in CORNERS]
    sizes = [size_of(area) for area in AREAS]
    start = list(Modality).index(modality)
    return [
        Subject(
            label=label,
            other=labels[(place + 1) % len(labels)],
            size=sizes[(place + start) % len(sizes)],
            other_size=sizes[(place + start + 1) % len(sizes)],
            place=places[(place + start) % len(places)],
            other_place=places[(place + start + 2) % len(places)],
            adjective=ADJECTIVES[(place + start) % len(ADJECTIVES)],
            other_adjective=ADJECTIVES[(place + start + 3) % len(ADJECTIVES)],
        )
        for place, label in enumerate(labels[:LABELS_PER_MODALITY])
    ]


def make_rows() -> list[dict[str, object]]:
    """The pairs as lines of a prediction file, with the rule of each as `kind`."""
    rows: list[dict[str, object]] = []
    numbers = count()
    for modality in Modality:
        chosen = subjects(modality)
        made = [(kind, rule(subject)) for subject in chosen for kind, rule in RULES.items()]
        made += [(kind, rule(chosen[0])) for kind, rule in WHOLE.items()]
        for kind, (reference, response) in made:
            number = next(numbers)
            rows.append(
                {
                    "id": number,
                    "task": "rc",
                    "image": f"{modality.value}_00--golden--case{number}--x_0001.png",
                    "question": "Describe this region.",
                    "annotation": reference,
                    "response": response,
                    "kind": kind,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuples", type=Path, help="file for the program's own output, with its tuples")
    arguments = parser.parse_args()
    rows = make_rows()
    pairs = [(str(row["annotation"]), str(row["response"])) for row in rows]
    found = run_spice(pairs, options=("-detailed",))
    for row, result in zip(rows, found, strict=True):
        row["spice"] = result["scores"]["All"]["f"]
    write_text(SCORES / "rc.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if arguments.tuples:
        write_text(arguments.tuples, json.dumps(found))
    print(f"{len(rows)} pairs of {len(Modality)} modalities")


if __name__ == "__main__":
    main()
