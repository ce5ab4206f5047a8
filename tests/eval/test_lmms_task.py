"""The functions of an exported lmms-eval task: answers are read in the export's dialect and scored by our rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bird_hf.dialects import get, write_dialect
from bird_hf.eval.lmms_task import LmmsTask, mean, mean_over_modalities

KIDNEY = "<ref>left kidney</ref><box>(250,150),(625,550)</box>"
RIGHT = '[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]'


def doc(reference: str = f"Here is the {KIDNEY}.", modality: str = "ct") -> dict[str, Any]:
    return {
        "image": "images/a b%20.png",
        "question": "Locate the left kidney.",
        "answer": RIGHT,
        "reference": reference,
        "modality": modality,
        "image_wh": [800, 600],
    }


@pytest.fixture
def task(tmp_path: Path) -> LmmsTask:
    write_dialect(get("qwen3-vl"), tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "a b%20.png")
    return LmmsTask(tmp_path)


def test_a_row_is_shown_asked_and_answered_as_it_was_exported(task: LmmsTask) -> None:
    [picture] = task.doc_to_visual(doc())
    assert (picture.mode, picture.size) == ("RGB", (8, 8))
    assert task.doc_to_text(doc(), {"pre_prompt": ""}) == "Locate the left kidney."
    assert task.doc_to_target(doc()) == RIGHT


@pytest.mark.parametrize("path", ["../a.png", "images/../../a.png", "/etc/passwd", "images/a/b.png"])
def test_no_other_file_is_opened(task: LmmsTask, path: str) -> None:
    with pytest.raises(ValueError, match="is no picture of"):
        task.doc_to_visual(doc() | {"image": path})


@pytest.mark.parametrize(
    ("answer", "paper", "strict", "unreadable", "iou"),
    [
        (RIGHT, (1, 1), (1, 1), 0.0, 1.0),
        (f"```json\n{RIGHT}\n```", (1, 1), (1, 1), 0.0, 1.0),
        # Half of the box exactly: an IoU of 0.5 is no hit of the paper, and one of lmms-eval.
        ('[{"bbox_2d": [250, 150, 625, 350], "label": "left kidney"}]', (0, 1), (0, 2), 0.0, 0.5),
        # A false box more costs nothing under paper rules.
        (
            RIGHT[:-1] + ', {"bbox_2d": [0, 0, 9, 9], "label": "left kidney"}]', (1, 1), (1, 2), 0.0, 1.0,
        ),
        # Fractions and pixels are not the dialect's numbers; no scale is guessed.
        ('[{"bbox_2d": [0.25, 0.15, 0.625, 0.55], "label": "left kidney"}]', (0, 1), (0, 1), 1.0, 0.0),
        ("[]", (0, 1), (0, 1), 0.0, 0.0),
        ("", (0, 1), (0, 1), 1.0, 0.0),
        ("I cannot help with that.", (0, 1), (0, 1), 1.0, 0.0),
        (KIDNEY, (0, 1), (0, 1), 1.0, 0.0),  # another model's way
    ],
)  # fmt: skip
def test_visual_grounding(
    task: LmmsTask, answer: str, paper: tuple, strict: tuple, unreadable: float, iou: float
) -> None:
    found = task.process_vg(doc(), [answer])
    assert (found["recall@0.5_paper"]["hits"], found["recall@0.5_paper"]["total"]) == paper
    assert (found["recall@0.5_strict"]["hits"], found["recall@0.5_strict"]["total"]) == strict
    assert found["unreadable_rate"] == unreadable and found["IoU"] == pytest.approx(iou)
    assert found["ACC@0.5"] == (found["IoU"] >= 0.5) and found["Center_ACC"] == (iou > 0)


@pytest.mark.parametrize(
    ("answer", "hits"), [("[]", 1), ("There is no spleen in this image.", 1), (RIGHT, 0), ("", 0)]
)
def test_an_absent_object_counts_under_strict_rules_only(task: LmmsTask, answer: str, hits: int) -> None:
    found = task.process_vg(doc("There is no spleen in this image."), [answer])
    assert found["recall@0.5_paper"]["total"] == 0
    assert found["recall@0.5_strict"] == {"hits": hits, "total": 1, "modality": "ct"}
    assert found["IoU"] is None and found["ACC@0.9"] is None


def test_classification(task: LmmsTask) -> None:
    row = doc("left kidney", "mr")
    right, wrong, silent = (task.process_roc(row, [text]) for text in ("The left kidney.", "The liver.", ""))
    assert [each["name_recall_strict"]["hits"] for each in (right, wrong, silent)] == [1, 0, 0]
    assert [each["name_recall_paper"]["hits"] for each in (right, wrong, silent)] == [1, 0, 0]
    assert [each["unreadable_rate"] for each in (right, wrong, silent)] == [0.0, 0.0, 1.0]


def test_no_answer_at_all_is_unreadable(task: LmmsTask) -> None:
    assert task.process_vg(doc(), [])["unreadable_rate"] == 1.0


def test_the_average_is_that_of_the_paper() -> None:
    values = [
        {"hits": 1, "total": 1, "modality": "ct"},
        {"hits": 0, "total": 3, "modality": "ct"},
        {"hits": 1, "total": 1, "modality": "mr"},
        {"hits": 0, "total": 0, "modality": "pet"},
    ]
    assert mean_over_modalities(values) == pytest.approx((1 / 4 + 1) / 2)
    assert math.isnan(mean_over_modalities(values[3:]))
    assert mean([1.0, None, 0.0]) == 0.5 and math.isnan(mean([None]))
