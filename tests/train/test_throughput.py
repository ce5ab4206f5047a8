"""What the log says of a run's work: tokens, padding, supervised tokens, and FLOPs over the peak of a device."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bird_hf.hub.packed_attention import visibility
from bird_hf.train.collate import IGNORED
from bird_hf.train.flops import Part, Parts, Work, training_flops
from bird_hf.train.recipe import BirdSFTConfig
from bird_hf.train.throughput import counts_of, matmul_flops, parts_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]

PACKED = {"packing": True, "per_device_train_batch_size": 1, "max_length": 500, "global_batch_size": 4}


@pytest.mark.parametrize("fields", [{}, PACKED], ids=["a row a sequence", "packed"])
def test_the_log_counts_what_a_step_computes(trainer_of, tiny_checkpoint, fields):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), max_steps=2, logging_steps=1, log_peak_tflops=1e-3, **fields
    )
    compute, batches = trainer.compute_loss, []

    def recorded(model, inputs, *args, **kwargs):
        batches.append((trainer.state.global_step, dict(inputs)))
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = recorded
    trainer.train()
    for step, entry in enumerate(entry for entry in trainer.state.log_history if "loss" in entry):
        own = [batch for number, batch in batches if number == step]
        positions = sum(batch["input_ids"].numel() for batch in own)
        tokens = sum(int((batch["row_ids"] >= 0).sum()) for batch in own)
        assert entry["supervised_tokens"] == sum(int((batch["labels"] != IGNORED).sum()) for batch in own)
        assert entry["padding_share"] == pytest.approx(1 - tokens / positions, rel=1e-3)
        work = Work(
            sum(len(batch["pixel_values"]) for batch in own),
            positions,
            entry["supervised_tokens"],
            sum(int(attended(batch)) for batch in own),
        )
        flops = training_flops(trainer.model.config, work, Parts())
        seconds = tokens / entry["tokens_per_second"]
        assert 0 < seconds < 60
        assert entry["mfu"] == pytest.approx(flops / seconds / 1e9, rel=1e-2)


def attended(batch):
    """Pairs of positions that the mask lets through, without padding."""
    allowed = visibility(batch["turn_ids"], batch["row_ids"])
    return (allowed.squeeze(1) & (batch["row_ids"] >= 0)[:, :, None]).sum()


def test_counts_of_a_batch_are_those_of_its_mask(trainer_of, batch_of, tiny_checkpoint):
    batch = batch_of(trainer_of(model_name_or_path=str(tiny_checkpoint)))
    images, positions, supervised, pairs, tokens = counts_of(batch).tolist()
    assert images == 4 and positions == batch["input_ids"].numel() > tokens > supervised > 0
    assert pairs == attended(batch)
    assert counts_of({name: value for name, value in batch.items() if name != "pixel_values"})[0] == 0


def test_parts_of_a_model_are_read_from_what_it_trains(tiny_model):
    tiny_model.freeze_vision()
    assert parts_of(tiny_model) == Parts()  # the paper's
    layers = tiny_model.config.text_config.num_hidden_layers
    width, inner = tiny_model.config.text_config.hidden_size, tiny_model.config.text_config.intermediate_size
    adapted = get_peft_model(
        tiny_model, LoraConfig(r=2, target_modules=r".*language_model.*\.(o_proj|down_proj)")
    )
    count = layers * 2 * (2 * width + width + inner)
    nothing = Part()
    assert parts_of(adapted) == Parts(nothing, nothing, nothing, Part(adapter=count, adapts_last=True))


def test_measuring_a_device_draws_nothing_from_the_run():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert matmul_flops(torch.device("cpu"), torch.float32) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


def test_time_between_two_runs_is_not_counted(trainer_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), logging_steps=2, max_steps=3)
    trainer.train()
    assert trainer._counts is None and trainer._clock.seconds == 0  # of step 3, which no entry is about


@pytest.mark.parametrize("peak", [0.0, -1.0])
def test_a_peak_is_above_zero(tmp_path, peak):
    with pytest.raises(ValueError, match=r"log_peak_tflops is .*, but must be above 0"):
        BirdSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, log_peak_tflops=peak)
