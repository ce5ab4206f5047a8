"""Held-out questions are answered and scored while a model trains; the best checkpoint is kept, and a run may stop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from datasets import Image as ImageCells
from PIL import Image
from safetensors.torch import load_file

from bird_hf.data.records import Task
from bird_hf.eval.score import score_recall
from bird_hf.inference import GroundingModel
from bird_hf.train import run
from bird_hf.train.held_out import HeldOutQuestions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]

EVALUATED = {
    "dataset_test_split": "train",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "eval_questions": 2,
    "per_device_eval_batch_size": 2,
}
BEST = EVALUATED | {
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "vg_recall",
}


@pytest.fixture
def fast_answers(monkeypatch):
    """Two tokens in an answer: an untrained model never ends one."""
    generate = GroundingModel.generate
    monkeypatch.setattr(
        GroundingModel, "generate", lambda self, queries, size: generate(self, queries, size, 2)
    )


# --- which turns are asked ------------------------------------------------------------------------------------

BOX = "<box>(10,10),(500,500)</box>"


def row(messages, **fields):
    return {"image_id": "ct_00--a--b--2d_none", "messages": messages, "task": "vg", **fields}


def turn(number):
    return [
        {"role": "user", "content": f"Where is {number}?"},
        {"role": "assistant", "content": f"<ref>{number}</ref>{BOX}"},
    ]


def with_images(rows, image=b"png"):
    """A dataset of rows that have an image, which is not decoded."""
    cells = [given | {"image": {"bytes": image, "path": None}} for given in rows]
    return Dataset.from_list(cells).cast_column("image", ImageCells(decode=False))


def test_only_turns_that_stand_alone_are_asked():
    rows = with_images(
        [
            row(turn(1) + turn(2), independent=True),
            row(turn(3) + turn(4), independent=False),  # the second needs the first
            row([{"role": "system", "content": "Be brief."}, *turn(5)], independent=False),
        ]
    )
    held_out = HeldOutQuestions.choose(rows, 10)
    assert [asked.text for asked in held_out.questions[Task.VISUAL_GROUNDING]] == [
        "Where is 1?",
        "Where is 2?",
        "Where is 3?",
    ]
    assert held_out.names == ["vg_recall", "vg_recall_paper"]


def test_the_same_questions_are_drawn_each_time_and_no_more_than_wanted(four_phantoms):
    rows = load_dataset(four_phantoms, "chat", split="train")
    one, other = (HeldOutQuestions.choose(rows, 3) for _ in range(2))
    assert one.questions == other.questions
    assert {task: len(asked) for task, asked in one.questions.items()} == {
        Task.VISUAL_GROUNDING: 3,
        Task.REFERRING_CLASSIFICATION: 3,
    }
    streamed = HeldOutQuestions.choose(load_dataset(four_phantoms, "chat", split="train", streaming=True), 3)
    assert streamed.questions == one.questions


def test_scores_are_those_of_bird_score(four_phantoms):
    held_out = HeldOutQuestions.choose(load_dataset(four_phantoms, "chat", split="train"), 100)
    every = [asked for questions in held_out.questions.values() for asked in questions]
    answers = [asked.reference if number % 2 else "no idea" for number, asked in enumerate(every)]
    found = held_out.scores(answers)
    start = 0
    for task, questions in held_out.questions.items():
        own = answers[start : start + len(questions)]
        start += len(questions)
        references = [asked.reference for asked in questions]
        for rules, name in (("strict", f"{task}_recall"), ("paper", f"{task}_recall_paper")):
            assert found[name] == score_recall(task, own, references, rules)["recall"]
    assert 0 < found["vg_recall"] < 1 and 0 < found["roc_recall"] < 1


def test_processes_share_the_questions(four_phantoms):
    held_out = HeldOutQuestions.choose(load_dataset(four_phantoms, "chat", split="train"), 5)
    every = sum(len(questions) for questions in held_out.questions.values())
    shares = [
        [number for numbers, queries in held_out.queries(process, 3, 2) for number in numbers]
        for process in range(3)
    ]
    assert sorted(number for share in shares for number in share) == list(range(every))
    (_, queries), *_ = held_out.queries(0, 1, every)
    assert all(isinstance(query.image, Image.Image) for query in queries)


def test_rows_without_a_question_to_score_are_refused():
    talk = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    for rows in (
        with_images([row(talk, task="chat")]),
        Dataset.from_list([row(turn(1))]),  # about no image
        Dataset.from_list([row(turn(1), images=[b"1", b"2"])]),  # about two
    ):
        with pytest.raises(ValueError, match="no VG or ROC question about one image; set dataset_config"):
            HeldOutQuestions.choose(rows, 3)


# --- in a run -------------------------------------------------------------------------------------------------


def test_scores_are_in_the_log_and_training_goes_on(trainer_of, tiny_checkpoint, fast_answers):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), max_steps=2, logging_steps=1, **EVALUATED)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in entries] == [1, 2]
    for entry in entries:
        for name in ("vg_recall", "vg_recall_paper", "roc_recall", "roc_recall_paper"):
            assert 0 <= entry[f"eval_{name}"] <= 1


@pytest.mark.parametrize("fields", [{"use_peft": True, "lora_dropout": 0.5}, {"max_turns": 1}])
def test_an_evaluation_changes_no_weight(trainer_of, tiny_checkpoint, fast_answers, fields):
    """Dropout and the turns that are drawn come from the same generator as what an evaluation might draw."""
    after = []
    lora = {"lora_target_modules": r".*language_model.*\.(q|v)_proj"} if "use_peft" in fields else {}
    for evaluated in ({}, EVALUATED):
        trainer = trainer_of(
            model_name_or_path=str(tiny_checkpoint),
            max_steps=3,
            learning_rate=1e-2,
            **fields,
            **lora,
            **evaluated,
        )
        trainer.train()
        after.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
    torch.testing.assert_close(after[1], after[0], atol=0, rtol=0)


def scores_in_turn(monkeypatch, values):
    """Held-out scores that are the next of some values."""
    left = iter(values)
    monkeypatch.setattr(HeldOutQuestions, "scores", lambda self, texts: {"vg_recall": next(left)})


def test_the_best_checkpoint_is_kept_and_is_the_result(
    write_recipe, tmp_path, tiny_checkpoint, fast_answers, monkeypatch
):
    scores_in_turn(monkeypatch, [0.1, 0.9, 0.2, 0.3])
    path = write_recipe(
        tmp_path, model_name_or_path=str(tiny_checkpoint), max_steps=4, learning_rate=1e-3, **BEST
    )
    final = run.main(["--config", str(path)])
    (kept,) = (tmp_path / "run").glob("checkpoint-*")  # at the end, transformers keeps the best alone
    assert kept.name == "checkpoint-2"
    best, result = (load_file(folder / "model.safetensors") for folder in (kept, final))
    for name, value in best.items():
        assert torch.equal(result[name], value.to(torch.bfloat16)), name


@pytest.mark.parametrize("stopped", [False, True], ids=["unbroken", "stopped and resumed"])
def test_a_run_stops_after_evaluations_without_a_gain(
    write_recipe, trainer_of, tmp_path, tiny_checkpoint, fast_answers, monkeypatch, stopped
):
    fields = {
        "model_name_or_path": str(tiny_checkpoint),
        "max_steps": 9,
        "early_stopping_patience": 2,
        **BEST,
    }
    values = [0.1, 0.5, 0.4, 0.5, 0.6]  # an equal score is no gain
    if stopped:
        scores_in_turn(monkeypatch, values[:3])
        trainer = trainer_of(**fields)
        on_save = trainer._save_checkpoint

        def killed_after_the_third(*args):
            on_save(*args)
            if trainer.state.global_step == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(trainer, "_save_checkpoint", killed_after_the_third)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        values = values[3:]
    scores_in_turn(monkeypatch, values)
    path = write_recipe(tmp_path, **fields)
    run.main(["--config", str(path)])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished_at"] == 4
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eval_questions": 2}, "eval_questions needs evaluations; set eval_strategy"),
        ({"early_stopping_patience": 2}, "early_stopping_patience needs evaluations"),
        ({"eval_strategy": "steps", "early_stopping_patience": 2}, "needs load_best_model_at_end: true"),
        ({"early_stopping_patience": 0}, "early_stopping_patience is 0, but must be at least 1"),
        ({"eval_questions": -1}, "eval_questions is -1, but must be at least 0"),
        (BEST | {"metric_for_best_model": "vg_recal"}, r"vg_recal is not computed; did you mean vg_recall"),
        (
            BEST | {"eval_questions": 0},
            "metric_for_best_model vg_recall is not computed; .*scores need eval_questions",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_first_step(trainer_of, tiny_checkpoint, fields, said):
    with pytest.raises(ValueError, match=said) as error:
        trainer_of(model_name_or_path=str(tiny_checkpoint), **fields)
    assert "\n" not in str(error.value)


def test_all_turns_of_a_held_out_row_are_evaluated(trainer_of, tiny_checkpoint):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), max_turns=1, **EVALUATED | {"eval_questions": 0}
    )
    (batch, *_) = trainer.get_eval_dataloader()
    assert batch["turn_ids"].max() > 1 and np.unique(batch["row_ids"]).size <= 2
    assert trainer.data_collator.max_turns == 1
