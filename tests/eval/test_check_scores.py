"""Scores of the checks: numbers by hand, and perfect answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bird_hf.data.embedded.cases import embedded_names
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality
from bird_hf.eval.check_scores import score_checks, table_of_checks
from bird_hf.eval.checks import CHECKS, Check, check_questions
from bird_hf.eval.predictions import Prediction, read_predictions, write_predictions

BOXED = "Here is the <ref>liver</ref><box>(100,100),(400,300)</box>."
ABSENT = "There is no liver in this image."


def answers(check, *rows, image="ct_a.png", synthetic=False):
    """Answers of (reference, response, facts)."""
    return [
        Prediction(
            number, image, "?", reference, response, CHECKS, synthetic, {"check": check.value, **facts}
        )
        for number, (reference, response, facts) in enumerate(rows)
    ]


def shown(rows, name, source="all"):
    return rows[name][source]["score"], rows[name][source]["n"]


def test_wordings_are_scored_over_boxes_by_source():
    found = [
        *answers(Check.VG_LOWER, (BOXED, BOXED, {}), (BOXED, ABSENT, {})),
        *answers(Check.VG_LOWER, (BOXED, BOXED, {}), synthetic=True),
    ]
    rows = score_checks(found)
    assert shown(rows, "VG, lower case") == (pytest.approx(2 / 3), 3)
    assert shown(rows, "VG, lower case", "real") == (0.5, 2)
    assert shown(rows, "VG, lower case", "phantom") == (1.0, 1)
    assert "| VG, lower case | 66.7 (3) | 50.0 (2) | 100.0 (1) |" in table_of_checks(rows)
    assert not any("CAPITALS" in name for name in rows)


def test_an_answer_about_a_missing_name_is_boxed_absent_or_about_another_thing():
    unicorn = {"name": "unicorn"}
    found = answers(
        Check.UNKNOWN,
        ("", "I do not know the name unicorn.", unicorn),
        ("", "There is no Unicorn in this image.", unicorn),
        ("", "There is no cerebellum in this image.", unicorn),
        ("", BOXED, unicorn),
        ("", "There is no unicorn, but <ref>this</ref><box>(1,1),(2,2)</box>.", unicorn),
    )
    rows = score_checks(found)
    assert shown(rows, "unknown words: boxed") == (0.4, 5)
    assert shown(rows, "unknown words: said absent or unknown") == (0.6, 5)
    assert shown(rows, "unknown words: answer about another thing") == (0.4, 5)


def test_always_no_has_a_balanced_accuracy_of_one_half():
    found = [
        *answers(Check.PRESENCE, *[("", "No.", {"present": False})] * 9, ("", "No.", {"present": True})),
        *answers(
            Check.PRESENCE,
            ("", "Yes, the brain is visible.", {"present": True}),
            ("", "No, there is no tumor.", {"present": False}),
            ("", "Hm.", {"present": False}),
            image="mr_a.png",
        ),
        *answers(Check.PRESENCE, ("", "Yes.", {"present": True}), image="pet_a.png"),
    ]
    rows = score_checks(found)
    assert shown(rows, "yes/no, balanced: ct") == (0.5, 10)
    assert shown(rows, "yes/no, balanced: mr") == (0.75, 3)
    assert "yes/no, balanced: pet" not in rows, "only one of the two answers is right there"
    assert shown(rows, "yes/no, balanced: mean of the modalities") == (0.625, 2)


def test_counts_are_exact_and_by_the_true_number():
    found = answers(
        Check.COUNT,
        ("", "There are none.", {"count": 0}),
        ("", "There is one.", {"count": 0}),
        ("", "There are two.", {"count": 2}),
        ("", "There are three.", {"count": 3}),
        ("", "There are four.", {"count": 5}),
    )
    rows = score_checks(found)
    assert shown(rows, "counts, exact") == (0.6, 5)
    assert shown(rows, "counts, exact: 0 in the image") == (0.5, 2)
    assert shown(rows, "counts, exact: 2 in the image") == (1.0, 1)
    assert shown(rows, "counts, exact: 3 or more in the image") == (0.5, 2)


def test_size_side_direction_and_clock_are_rows_of_those_that_have_them():
    slice_ = {"box": [0.1, 0.1, 0.3, 0.3], "area": 0.02, "axis": "axial"}
    flat = {"box": [0.7, 0.4, 0.9, 0.6], "area": 0.02, "axis": "2d"}
    found = answers(
        Check.DESCRIPTION,
        ("", "A small liver, anterior and on the patient's right.", slice_),
        ("", "A large liver, anterior and on the patient's left.", slice_),
        ("", "A small polyp, toward 3 o'clock.", flat),
        ("", "A small polyp, toward 4 o'clock.", flat),
    )
    rows = score_checks(found)
    assert shown(rows, "RC, size right") == (0.75, 4)
    assert shown(rows, "RC, side right") == (0.5, 2)
    assert shown(rows, "RC, direction right") == (1.0, 2)
    assert shown(rows, "RC, clock right") == (0.5, 2)


@pytest.mark.parametrize("rules", ["paper", "strict"])
def test_the_references_are_perfect_answers(rules):
    records = [
        record_of(draw_phantom(modality, seed, 96), 0.003) for modality in Modality for seed in range(2)
    ]
    asked = check_questions(records, embedded_names())
    rows = score_checks([replace(each, response=each.annotation) for each in asked], rules)
    bad = ("boxed", "another thing")
    assert {name: row["all"]["score"] for name, row in rows.items()} == {
        name: 0.0 if name.endswith(bad) else 1.0 for name in rows
    }


def test_facts_are_kept_in_files(tmp_path):
    found = answers(Check.COUNT, ("", "There are none.", {"count": 0}))
    write_predictions(tmp_path / "checks.jsonl", found)
    assert read_predictions(tmp_path / "checks.jsonl", CHECKS) == found


def test_answers_to_unknown_checks_are_refused():
    found = [Prediction(4, "ct_a.png", "?", "", "", CHECKS, False, {"check": "colours"})]
    with pytest.raises(ValueError, match="answer 4 is to no known check"):
        score_checks(found)
