"""A probe of what a model could do before: general questions, with words only or about plain pictures.

The paper says that training keeps the base model's conversational proficiency (BiRD 4), and does not measure it. Here a
fixed set of questions that have nothing to do with boxes (`assets/probe/questions.yaml`) is asked of a checkpoint
before and after training. Beside the share of right answers, which a small model may not have, the likelihood of
reference answers is measured, which every model has.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image, ImageDraw

from ..atomic_writes import write_text
from ..data.phantoms import draw_phantom
from ..data.records import Modality, Task
from ..hub.grounding import read
from ..hub.pixels import rgb_image
from ..hub.processing_bird import TURN_END
from ..inference import GroundingModel, load
from ..markdown import table
from ..progress import progress_bar
from ..questions import Query
from .outcomes import Outcome, outcome_of
from .probe_checks import CHECKS, is_right

QUESTIONS = Path(__file__).parents[1] / "assets" / "probe" / "questions.yaml"
IMAGES = "images"  # the group of questions about pictures; all others are words only
SIDE = 256
MAX_NEW_TOKENS = 64
_PHANTOM_SEED = 5


@dataclass(frozen=True)
class Question:
    """A question, a reference answer, what a right answer fulfils, and how its picture is drawn."""

    group: str
    question: str
    answer: str
    checks: Mapping[str, Any]
    image: Mapping[str, Any] | None = None

    def picture(self) -> Image.Image | None:
        """The picture; None if the question has none."""
        if self.image is None:
            return None
        if "phantom" in self.image:
            pixels = draw_phantom(Modality(self.image["phantom"]), _PHANTOM_SEED, SIDE).pixels
            return rgb_image(Image.fromarray(pixels))
        return _draw(self.image["shapes"])


@dataclass(frozen=True)
class Probed:
    """What a model makes of a question.

    right: whether its answer fulfils the checks. boxes: how many it wrote, none of which was asked for. log_likelihood:
    of the reference answer with its end of turn, in nats, over `tokens` tokens.
    """

    group: str
    question: str
    reference: str
    answer: str
    right: bool
    unreadable: bool
    boxes: int
    log_likelihood: float
    tokens: int


def read_questions(path: Path = QUESTIONS) -> list[Question]:
    """The questions of a file. Raises ValueError if one has no check, or one that is not known."""
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    questions = []
    for group, entries in groups.items():
        for entry in entries:
            checks = {name: value for name, value in entry.items() if name in CHECKS}
            unknown = entry.keys() - checks.keys() - {"question", "answer", "image"}
            if unknown or not checks:
                raise ValueError(f"{path}, {entry['question']!r}: {unknown or 'no checks'}; use {CHECKS}")
            questions.append(Question(group, entry["question"], entry["answer"], checks, entry.get("image")))
    return questions


def probe(
    model: GroundingModel, questions: Sequence[Question] | None = None, batch_size: int = 16
) -> list[Probed]:
    """Ask a model all questions, greedily, and measure the likelihood of the reference answers."""
    asked = list(read_questions() if questions is None else questions)
    queries = [Query(each.question, each.picture()) for each in asked]
    answers = model.generate(queries, batch_size, MAX_NEW_TOKENS, progress=True)
    found = []
    pairs = zip(asked, queries, answers, strict=True)
    for question, query, raw in progress_bar(
        pairs, total=len(asked), desc="likelihood", unit="question", leave=False
    ):
        likelihood, tokens = reference_likelihood(model, query, question.answer)
        found.append(_probed(question, raw, likelihood, tokens))
    return found


def _probed(question: Question, raw: str, likelihood: float, tokens: int) -> Probed:
    answer = read(raw)
    unreadable = outcome_of(Task.IMAGE_ANALYSIS, raw) is Outcome.UNREADABLE
    right = is_right(answer.text, question.checks)
    return Probed(
        question.group,
        question.question,
        question.answer,
        raw,
        right,
        unreadable and not right,  # JSON, which a question asked for, is no other model's box
        len(answer.boxes),
        likelihood,
        tokens,
    )


@torch.inference_mode()
def reference_likelihood(model: GroundingModel, query: Query, answer: str) -> tuple[float, int]:
    """Log-likelihood in nats of an answer and the end of its turn, and the number of their tokens."""
    content: list[dict[str, Any]] = [{"type": "text", "text": query.question}]
    if query.image is not None:
        content.insert(0, {"type": "image", "image": query.image})
    inputs = model.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    ).to(model.model.device)
    ids = model.processor.tokenizer(answer + TURN_END, return_tensors="pt")["input_ids"].to(
        model.model.device
    )
    text = torch.cat([inputs["input_ids"], ids], dim=1)
    given = {"pixel_values": inputs["pixel_values"]} if "pixel_values" in inputs else {}
    logits = model.model(input_ids=text, logits_to_keep=ids.shape[1] + 1, **given).logits[:, :-1]
    chosen = logits.float().log_softmax(-1).gather(-1, ids[..., None])
    return chosen.sum().item(), ids.shape[1]


def probe_document(
    name: str, found: Sequence[Probed], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document of a probe: measures by group of questions; with `before`, also those of before and what changed.

    before: the document of the same questions asked of another model. Raises ValueError if it is of other questions.
    """
    groups = _groups(found)
    document: dict[str, Any] = {
        "model": name,
        "questions": _fingerprint(found),
        "groups": {group: _measures(rows) for group, rows in groups.items()},
        "answers": [asdict(each) for each in found],
    }
    if before is None:
        return document
    if before.get("questions") != document["questions"]:
        raise ValueError("the probe before is of other questions; ask that model again by this version")
    earlier = _groups([Probed(**each) for each in before["answers"]])
    for group, rows in groups.items():
        pairs = zip(rows, earlier[group], strict=True)
        changed = sum(new.answer.strip() != old.answer.strip() for new, old in pairs)
        document["groups"][group]["changed"] = changed / len(rows)
    document["before"] = {key: before[key] for key in ("model", "groups", "answers")}
    return document


def probe_checkpoint(
    name: Path, before: Path | None = None, out: Path | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """The document of a checkpoint, also written to `out`; `before` is a checkpoint or such a file.

    Raises ValueError if a checkpoint or the file cannot be used.
    """
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    earlier = None if before is None else _document_before(before, dtype)
    document = probe_document(str(name), probe(load(name, dtype=dtype)), earlier)
    if out is not None:
        write_text(out, json.dumps(document, indent=1) + "\n")
    return document


def _document_before(before: Path, dtype: str | None) -> dict[str, Any]:
    if not before.is_file():
        return probe_document(str(before), probe(load(before, dtype=dtype)))
    try:
        document = json.loads(before.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{before} is not a file of `bird probe --out` ({error})") from error
    if not isinstance(document, dict) or not {"model", "questions", "groups", "answers"} <= document.keys():
        raise ValueError(f"{before} is not a file of `bird probe --out`; give one, or a checkpoint folder")
    return document


def table_of_probe(document: Mapping[str, Any]) -> str:
    """The measures of a probe as a Markdown table, with those of before if they are there."""
    header = ["questions", "number", "right", "unreadable", "with boxes", "perplexity"]
    before = document.get("before")
    header += ["answers changed"] if before else []
    rows = []
    for group, measures in document["groups"].items():
        if before:
            rows.append([f"{group}, before", *_cells(before["groups"][group]), "-"])
        row = [f"{group}, after" if before else group, *_cells(measures)]
        rows.append(row + ([f"{measures['changed']:.2f}"] if before else []))
    return table(header, rows)


def _cells(measures: Mapping[str, Any]) -> list[Any]:
    shares = (measures[name] for name in ("right", "unreadable", "with_boxes"))
    return [measures["number"], *(f"{share:.2f}" for share in shares), f"{measures['perplexity']:.3g}"]


def _groups(found: Sequence[Probed]) -> dict[str, list[Probed]]:
    """Answers by group, and those to questions of words only together, before the pictures'."""
    groups: dict[str, list[Probed]] = {}
    for each in found:
        groups.setdefault(each.group, []).append(each)
    words = [each for each in found if each.group != IMAGES]
    pictures = groups.pop(IMAGES, [])
    return groups | ({"words only": words} if words else {}) | ({IMAGES: pictures} if pictures else {})


def _measures(rows: Sequence[Probed]) -> dict[str, Any]:
    number, tokens = len(rows), sum(each.tokens for each in rows)
    likelihood = sum(each.log_likelihood for each in rows)
    return {
        "number": number,
        "right": sum(each.right for each in rows) / number,
        "unreadable": sum(each.unreadable for each in rows) / number,
        "with_boxes": sum(each.boxes > 0 for each in rows) / number,
        "log_likelihood_per_token": likelihood / tokens,
        "perplexity": math.exp(min(700.0, -likelihood / tokens)),
        "reference_tokens": tokens,
    }


def _fingerprint(found: Sequence[Probed]) -> str:
    """Of the questions and reference answers, so that only like is compared with like."""
    text = "\0".join(part for each in found for part in (each.group, each.question, each.reference))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _draw(shapes: Sequence[Sequence[Any]]) -> Image.Image:
    """Shapes [kind, colour, x, y, radius], in thousandths of the side, on white."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(picture)
    for kind, colour, *numbers in shapes:
        x, y, radius = (number * SIDE / 1000 for number in numbers)
        draw = {"circle": pen.ellipse, "square": pen.rectangle}[kind]
        draw((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture
