"""The whole way of a box, for each family: rows, tokens, training, a saved folder, generate, dialect, score."""

from __future__ import annotations

import pytest
from transformers import AutoModelForImageTextToText, TrainerCallback

from bird_hf.dialects import read_dialect
from bird_hf.train.any_vlm.encode import Encoder
from bird_hf.train.any_vlm.evaluate import RECALL, answer, grounding_counts
from bird_hf.train.any_vlm.load import load_processor
from bird_hf.train.any_vlm.trainer import stops_of
from bird_hf.train.sft import save_for_use

from ...dialects.tiny_models import FAMILIES

pytestmark = pytest.mark.slow

BY_HEART = {
    "max_steps": 160,  # at most
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "freeze_vision": False,
    "eval_strategy": "steps",
    "eval_steps": 160,
    "max_new_tokens": 80,
    "logging_steps": 10,
}


class StopWhenLearnt(TrainerCallback):
    """Ends training once the answers are learnt, because more steps would show nothing."""

    def on_log(self, args, state, control, logs, **kwargs):
        if logs.get("loss", 1.0) < 0.01:
            control.should_evaluate = control.should_training_stop = True


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_boxes_are_learnt_and_read_back(any_vlm_trainer, tiny_folder, tmp_path, family):
    trainer = any_vlm_trainer(tiny_folder(family), dialect=FAMILIES[family].dialect, **BY_HEART)
    trainer.add_callback(StopWhenLearnt())
    rows = [trainer.eval_dataset[number] for number in range(8)]
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    found = next(entry for entry in trainer.state.log_history if f"eval_{RECALL}" in entry)
    assert losses[-1] < losses[0] / 10
    assert found[f"eval_{RECALL}"] == 1 and found["eval_vg_unreadable_rate"] == 0

    folder = save_for_use(trainer, tmp_path / "final")
    dialect, processor = read_dialect(folder), load_processor(str(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    encoder = Encoder(processor, stops_of(model, processor))
    responses = answer(model, encoder, rows, 80)
    counts = grounding_counts(rows, responses, dialect)
    assert dialect == trainer.dialect
    assert (counts["hits"], counts["boxes"], counts["unreadable"]) == (8, 8, 0), responses
