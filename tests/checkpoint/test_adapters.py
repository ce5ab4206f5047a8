"""`bird export --merge` writes a checkpoint that computes what base model and adapter compute together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image

from bird_hf.checkpoint.export import export_checkpoint, export_merged
from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.processing_bird import BirdProcessor

TARGETS = r".*language_model.*\.(q|k|v|o)_proj"


def save_adapter(base: Path, folder: Path, **options) -> Path:
    """An adapter of `base` with weights that change the answers, as `bird train` with use_peft saves it."""
    model = BirdForConditionalGeneration.from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | options
    model = get_peft_model(model, LoraConfig(**settings))
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draw))
            assert "vision_tower" not in name
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return save_adapter(tiny_checkpoint, tmp_path / "adapter")


@pytest.fixture
def inputs(tiny_processor: BirdProcessor):
    content = [
        {"type": "image", "image": Image.radial_gradient("L")},
        {"type": "text", "text": "Where is the left kidney?"},
    ]
    return tiny_processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )


@torch.no_grad()
def logits(model: torch.nn.Module, inputs) -> torch.Tensor:
    return model.eval()(**inputs).logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"modules_to_save": ["projector"]}], ids=["lora", "and a whole module"]
)
def test_merged_logits_are_those_of_base_and_adapter(tiny_checkpoint, tmp_path, inputs, options):
    adapter = save_adapter(tiny_checkpoint, tmp_path / "adapter", **options)
    # In float64: in float32 two orders of the same sums differ by as much as the tolerance.
    base = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float64)
    before = logits(base, inputs)
    expected = logits(PeftModel.from_pretrained(base, adapter).double(), inputs)
    assert (expected - before).abs().max() > 0.1
    export_merged(adapter, tmp_path / "merged")
    model, processor = load_checkpoint(tmp_path / "merged", dtype=torch.float64)
    torch.testing.assert_close(logits(model, inputs), expected, rtol=1e-5, atol=1e-5)
    assert type(model) is BirdForConditionalGeneration
    assert processor.num_queries == 4


def test_a_merged_folder_is_an_ordinary_checkpoint(tiny_checkpoint, adapter, tmp_path):
    files = export_merged(adapter, tmp_path / "merged", origin="med-grit")
    names = {path.name for path in files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_bird.py", "README.md"} <= names
    assert not [name for name in names if "adapter" in name]
    assert "SA-Med2D-20M" in (tmp_path / "merged" / "README.md").read_text()
    assert sorted(tmp_path.iterdir()) == [adapter, tmp_path / "merged"]
    assert export_checkpoint(tmp_path / "merged", tmp_path / "again")


def test_weights_keep_the_base_models_dtype_and_licence(tiny_checkpoint, tmp_path):
    base = tmp_path / "base"
    model = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(base)
    BirdProcessor.from_pretrained(tiny_checkpoint).save_pretrained(base)
    (base / "LICENSE").write_text("of the base")
    (base / "README.md").write_text("results of the base")
    export_merged(save_adapter(base, tmp_path / "adapter"), tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "merged" / "LICENSE").read_text() == "of the base"
    assert "results of the base" not in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.slow
def test_the_processor_is_the_adapters_if_it_has_one(tiny_checkpoint, adapter, tmp_path):
    export_merged(adapter, tmp_path / "of-base")
    BirdProcessor.from_pretrained(tiny_checkpoint).save_pretrained(adapter)
    (adapter / "chat_template.jinja").write_text("a template of its own")
    export_merged(adapter, tmp_path / "of-adapter")
    template = "chat_template.jinja"
    assert (tmp_path / "of-base" / template).read_text() == (tiny_checkpoint / template).read_text()
    assert (tmp_path / "of-adapter" / template).read_text() == "a template of its own"


def test_another_base_can_be_given(tiny_checkpoint, adapter, tmp_path, run_bird):
    config = adapter / "adapter_config.json"
    gone = str(tmp_path / "gone")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": gone}))
    ran = run_bird("export", adapter, tmp_path / "merged", "--merge")
    assert ran.code == 2 and f"base model of {adapter}: {gone!r} is not a folder" in ran.err
    assert "give its folder with --base" in ran.err and not (tmp_path / "merged").exists()
    ran = run_bird("export", adapter, tmp_path / "merged", "--merge", "--base", tiny_checkpoint)
    assert ran.code == 0 and "model.safetensors" in ran.out
    assert load_checkpoint(tmp_path / "merged")


def test_an_adapter_alone_is_refused_with_the_way_to_merge_it(adapter, tmp_path, run_bird):
    with pytest.raises(ValueError, match=r"is a LoRA adapter, .* `bird export .* DIR --merge`"):
        load_checkpoint(adapter)
    ran = run_bird("export", adapter, tmp_path / "out")
    assert ran.code == 2 and "--merge" in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda adapter: (adapter / "adapter_config.json").unlink(), "is not a LoRA adapter: it has no"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("[]"), "is not a JSON object"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("{}"), "does not name a base model"),
        (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "does not fit the base model"),
        (
            lambda adapter: (adapter / "adapter_model.safetensors").write_bytes(b"x"),
            "does not fit the base model",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(adapter, tmp_path, damage, complaint):
    damage(adapter)
    with pytest.raises(ValueError, match=complaint) as caught:
        export_merged(adapter, tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [adapter]


def test_an_adapter_of_another_model_is_refused(tiny_sizes, tiny_checkpoint, adapter, tmp_path):
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    config = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint).config
    config.text_config.hidden_size *= 2
    BirdForConditionalGeneration(config).save_pretrained(other)
    with pytest.raises(ValueError, match="does not fit the base model"):
        export_merged(adapter, tmp_path / "merged", str(other))
    assert not (tmp_path / "merged").exists()


def test_base_and_adapter_are_not_overwritten(tiny_checkpoint, adapter):
    for out in (adapter, tiny_checkpoint):
        with pytest.raises(ValueError, match="is the adapter or the base model itself"):
            export_merged(adapter, out)


def test_options_that_do_not_go_together_are_refused(adapter, tmp_path, run_bird):
    ran = run_bird("export", adapter, tmp_path / "out", "--base", "bird")
    assert ran.code == 2 and "give --merge with it" in ran.err
    ran = run_bird("export", adapter, tmp_path / "out", "--merge", "--report", tmp_path / "report.json")
    assert ran.code == 2 and "--merge writes new weights" in ran.err
