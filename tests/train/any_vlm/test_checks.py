"""What is checked before the first step, and what is refused in one line."""

from __future__ import annotations

import logging

import pytest

from bird_hf.dialects import read_dialect
from bird_hf.train import run
from bird_hf.train.collate import IGNORED

from .conftest import ROOT

pytestmark = pytest.mark.slow  # imports trl


@pytest.fixture
def trainer_of_llava(any_vlm_trainer, tiny_folder):
    return lambda **fields: any_vlm_trainer(tiny_folder("llava"), **({"dialect": "llava-med"} | fields))


def test_a_processor_that_needs_a_package_names_it(any_vlm_trainer, load_script, tmp_path, monkeypatch):
    pytest.importorskip("torchvision")  # its video processor is loaded first
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    tiny = load_script(ROOT / "tests" / "dialects" / "tiny_models.py")
    folder = tiny.make_tiny("idefics3", tmp_path / "smolvlm")
    tiny.give_smolvlm_processor(folder)
    with pytest.raises(ValueError, match=r"^.*smolvlm: the processor needs .*; pip install num2words$"):
        any_vlm_trainer(folder, dialect="internvl")


def test_what_was_checked_is_said(trainer_of_llava, caplog):
    with caplog.at_level(logging.INFO):
        trainer = trainer_of_llava()
    (said,) = [record.message for record in caplog.records if "questions:" in record.message]
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(8)])
    learnt = int((batch["labels"] != IGNORED).sum())
    assert f"8 questions: {learnt} of {int(batch['attention_mask'].sum())} tokens are answers" in said
    assert f"the longest has {batch['input_ids'].shape[1]} tokens; 8 answers with boxes" in said
    assert "dialect llava-med" in said and "such as Here is the left kidney [" in said


def test_only_answers_are_learnt_and_each_has_an_end(trainer_of_llava):
    trainer = trainer_of_llava()
    row = trainer.train_dataset[0]
    labels = trainer.data_collator([row])["labels"][0]
    learnt = labels[labels != IGNORED].tolist()
    assert trainer.encoder.said(learnt) == row["answer"]
    assert (
        learnt[-1] == trainer.processing_class.tokenizer.eos_token_id
    )  # which the chat template does not write


def test_what_is_asked_in_training_is_what_generate_is_asked(trainer_of_llava):
    trainer = trainer_of_llava()
    rows = [trainer.train_dataset[number] for number in range(2)]
    asked, trained = trainer.encoder.questions(rows), trainer.data_collator(rows)
    for number in range(2):
        question = asked["input_ids"][number][asked["attention_mask"][number].bool()].tolist()
        ids, labels = trained["input_ids"][number], trained["labels"][number]
        assert ids[: len(question)].tolist() == question
        assert (labels[: len(question)] == IGNORED).all() and labels[len(question)] != IGNORED


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"max_length": 40},
            r"8 questions have more than 40 tokens, the longest \d+ \(row ct_\d\); raise max_length",
        ),
        ({"max_length": 40, "too_long": "drop"}, "8 of 8 questions have more than 40 tokens"),
        (
            {"dialect": None},
            r"llava: how this model writes boxes is not known .*; give --dialect, one of bird",
        ),
        ({"dialect": "qwen3vl"}, "there is no dialect 'qwen3vl'; the nearest is qwen3-vl"),
        ({"packing": True}, "cannot pack rows with images"),
        ({"eval_questions": 0}, "eval_questions and max_new_tokens must be at least 1"),
        ({"max_turns": 2}, "max_turns is not a field of a recipe"),  # of BiRD
        ({"chat_template_path": "no.jinja"}, "chat_template_path no.jinja is not a file"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(trainer_of_llava, fields, said):
    with pytest.raises(ValueError, match=said) as error:
        trainer_of_llava(**fields)
    assert "\n" not in str(error.value)


def test_a_template_that_does_not_continue_the_question_is_refused(trainer_of_llava, tmp_path):
    template = tmp_path / "thinking.jinja"
    template.write_text(
        "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: <think>{% endif %}"
    )
    with pytest.raises(ValueError, match="as templates of thinking models do"):
        trainer_of_llava(chat_template_path=str(template))


def test_a_model_that_is_not_there_is_refused(any_vlm_trainer, tmp_path):
    with pytest.raises(ValueError, match="neither a checkpoint folder nor a hub repository"):
        any_vlm_trainer(tmp_path / "nowhere")


def test_a_dialect_of_another_model_is_warned_about(any_vlm_trainer, tiny_folder, caplog):
    any_vlm_trainer(tiny_folder("paligemma"), dialect="internvl")
    assert "in the dialect internvl, but its configuration says paligemma" in caplog.text


def test_an_adapter_is_saved_with_processor_and_dialect(any_vlm_trainer, tiny_folder):
    lora = {"use_peft": True, "lora_r": 2, "lora_target_modules": r"(?!.*vision).*\.q_proj"}
    trainer = any_vlm_trainer(tiny_folder("paligemma"), **lora)
    folder = run.sft.train(trainer)
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert trained and all("language_model" in name and "lora" in name for name in trained)
    assert {path.name for path in folder.iterdir()} >= {"adapter_model.safetensors", "processor_config.json"}
    assert read_dialect(folder).name == "paligemma"  # that of the configuration
    assert not (folder / "training_args.bin").exists()


def test_a_plan_is_refused(run_bird, tmp_path):
    ran = run_bird("train", "--plan", "--config", "recipes/any_vlm.yaml", "--output_dir", tmp_path)
    assert ran.code == 2 and "method any_vlm trains other models" in ran.err and ran.err.count("\n") == 1
