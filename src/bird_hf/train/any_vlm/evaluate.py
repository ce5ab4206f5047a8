"""Answers of a model to held-out questions, read by its dialect and scored by the strict rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...asking.bird_text import bird_text
from ...dialects import Dialect
from ...eval.outcomes import Outcome
from ...eval.pairing import pair
from .encode import Encoder

RECALL = "vg_recall@0.5"


@torch.no_grad()
def answer(model: Any, encoder: Encoder, rows: Sequence[Mapping[str, Any]], max_new_tokens: int) -> list[str]:
    """What a model says to the questions of rows, greedily, in its own dialect."""
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in encoder.questions(rows).items()
    }
    made = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(encoder.stops),
        pad_token_id=encoder.tokenizer.pad_token_id,
    )
    return [encoder.said(ids) for ids in made[:, inputs["input_ids"].shape[1] :].tolist()]


def grounding_counts(
    rows: Sequence[Mapping[str, Any]], responses: Sequence[str], dialect: Dialect
) -> dict[str, int]:
    """Counts over answers to visual grounding questions: boxes asked for, found, false, and unreadable answers."""
    counts = dict.fromkeys(("questions", "boxes", "hits", "false_boxes", "unreadable"), 0)
    for row, response in zip(rows, responses, strict=True):
        view = dialect.view(tuple(row["image_wh"]))
        paired = pair(row["reference"], bird_text(dialect.read(response, view)))
        counts["questions"] += 1
        counts["boxes"] += len(paired.reference)
        counts["hits"] += paired.hits
        counts["false_boxes"] += paired.false_boxes
        counts["unreadable"] += paired.outcome is Outcome.UNREADABLE
    return counts


def scores_of(counts: Mapping[str, int], prefix: str) -> dict[str, float]:
    """Recall@0.5, false boxes per answer and the rate of unreadable answers, as metrics of the trainer."""
    questions = max(1, counts["questions"])
    return {
        f"{prefix}_{RECALL}": counts["hits"] / max(1, counts["boxes"]),
        f"{prefix}_vg_false_boxes": counts["false_boxes"] / questions,
        f"{prefix}_vg_unreadable_rate": counts["unreadable"] / questions,
        f"{prefix}_vg_questions": counts["questions"],
    }
