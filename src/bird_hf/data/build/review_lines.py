"""The lines of a review: every class name of a build, and a sample of the turns that were written.

Lines with a decision or comment are kept, even if the name or turn is no longer in the build; others are made anew.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...hub.grounding import Span, read
from ..draws import draw_of
from ..records import SINGLE_TASKS, hash_of
from .review import hash_of_name
from .review_files import Line
from .state import BuildState


@dataclass(frozen=True, order=True)
class WrittenTurn:
    """A question and its answer about an image, with tags."""

    modality: str
    task: str
    image_id: str
    question: str
    answer: str

    @property
    def key(self) -> str:
        return hash_of(self.image_id, self.task, self.question, self.answer)

    @property
    def spans(self) -> tuple[Span, ...]:
        return read(self.question).spans + read(self.answer).spans

    def line(self) -> Line:
        """Return the turn as a line of the table, without a decision."""
        return {
            "key": self.key,
            "image_id": self.image_id,
            "modality": self.modality,
            "task": self.task,
            "question": readable(self.question),
            "answer": readable(self.answer),
            "decision": "",
            "comment": "",
        }


def label_lines(state: BuildState, earlier: Iterable[Line]) -> list[Line]:
    """Return one line per class name of each dataset; lines of `earlier` with a decision are kept as they are."""
    decided = {line["key"]: line for line in earlier if _is_decided(line)}
    images: Counter[tuple[str, str]] = Counter()
    objects: Counter[tuple[str, str]] = Counter()
    modalities: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for dataset, modality, name, count in state.label_counts():
        images[dataset, name] += count
        modalities[dataset, name].add(modality)
    for dataset, modality, name, count in state.object_counts():
        objects[dataset, name] += count
        modalities[dataset, name].add(modality)
    spellings: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for dataset, name, spelling in state.label_spellings():
        spellings[dataset, name].add(" ".join(spelling.split()))
    lines = {}
    for pair in sorted({*spellings, *modalities}):
        key = hash_of_name(*pair)
        lines[key] = {
            "key": key,
            "dataset": pair[0],
            "modality": ", ".join(sorted(modalities[pair])),
            "written_as": " | ".join(sorted(spellings[pair])),
            "name": pair[1],
            "images": str(images[pair]),
            "objects": str(objects[pair]),
            **dict.fromkeys(("decision", "new_name", "comment"), ""),
        }
    # Kept with their old numbers: the build no longer counts rejected names.
    return [*(lines | decided).values()]


def sample_turns(state: BuildState, seed: int, each: int) -> list[WrittenTurn]:
    """Return up to `each` turns per modality and task; the seed decides which."""
    drawn: defaultdict[tuple[str, str], list[tuple[int, WrittenTurn]]] = defaultdict(list)
    for turn in _turns(state):
        stratum = drawn[turn.modality, turn.task]
        heapq.heappush(stratum, (-draw_of(seed, turn.key), turn))
        if len(stratum) > each:
            heapq.heappop(stratum)
    return sorted({turn for stratum in drawn.values() for _, turn in stratum})


def reply_lines(turns: Iterable[WrittenTurn], earlier: Iterable[Line]) -> list[Line]:
    """Return one line per turn, and the lines of `earlier` with a decision."""
    lines = {turn.key: turn.line() for turn in turns}
    lines |= {line["key"]: line for line in earlier if _is_decided(line)}
    return sorted(
        lines.values(), key=lambda line: (line["modality"], line["task"], line["image_id"], line["key"])
    )


def readable(tagged: str) -> str:
    """Return tagged text with its boxes in per cent of the image: "the liver [across 10-30 %, down 20-60 %]"."""
    said = read(tagged)
    pieces, done = [], 0
    for span in said.spans:
        boxes = "; ".join(
            f"across {box.x1:.0%}-{box.x2:.0%}, down {box.y1:.0%}-{box.y2:.0%}".replace("%-", "-")
            for box in span.boxes
        )
        pieces += [said.text[done : span.end], f" [{boxes}]" if boxes else ""]
        done = span.end
    return "".join([*pieces, said.text[done:]])


def _is_decided(line: Line) -> bool:
    return any(line.get(column) for column in ("decision", "new_name", "comment"))


def _turns(state: BuildState) -> Iterator[WrittenTurn]:
    for by_task in state.dialogues():
        for task in SINGLE_TASKS:
            for row in by_task.get(task.value, ()):
                question, answer = (message["content"] for message in row["messages"])
                yield WrittenTurn(row["modality"], task.value, row["image_id"], question, answer)
