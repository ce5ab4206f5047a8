"""LLaVA-Med folders become folders of transformers' LLaVA that compute the same."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from bird_hf.asking.vision_language import load_vision_language
from bird_hf.cli import app
from bird_hf.convert import convert

from .tiny_llava_med import PATCH, SIDE, TOWER, make_original, pixels_of, write_clip, write_original

QUESTION = "Where is the left kidney?"
WEIGHTS = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def original():
    return make_original()


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory):
    return write_original(original, tmp_path_factory.mktemp("original") / "llava-med")


@pytest.fixture(scope="module")
def converted(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("converted") / "llava-med"
    convert(folder, place)
    return place


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (9, 15, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((150, 90), Image.Resampling.BILINEAR)


def _messages(picture, question=QUESTION):
    return [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}
    ]


def _inputs(place, picture):
    return AutoProcessor.from_pretrained(place).apply_chat_template(
        _messages(picture), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


def _assert_same_logits(place, original, picture):
    model = LlavaForConditionalGeneration.from_pretrained(place).eval()
    inputs = _inputs(place, picture)
    with torch.inference_mode():
        found = model(**inputs).logits
    wanted = original.logits(QUESTION, inputs["pixel_values"])
    torch.testing.assert_close(found[..., : wanted.shape[-1]], wanted, rtol=0, atol=1e-5)
    return found, wanted


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_logits_are_those_of_the_published_formula(original, picture, tmp_path, pickled):
    convert(write_original(original, tmp_path / "source", pickled), tmp_path / "made")
    found, wanted = _assert_same_logits(tmp_path / "made", original, picture)
    torch.testing.assert_close(found[..., -1], wanted.mean(-1), rtol=0, atol=1e-5)


def test_a_spare_row_of_the_vocabulary_is_the_image_tokens(picture, tmp_path):
    padded = make_original(spare_rows=5)
    convert(write_original(padded, tmp_path / "source"), tmp_path / "made")
    found, wanted = _assert_same_logits(tmp_path / "made", padded, picture)
    assert found.shape == wanted.shape
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["image_token_index"] == len(padded.tokenizer)


def test_the_tower_of_a_clip_folder_is_taken_if_it_is_given(original, picture, tmp_path):
    """With and without a tower in the checkpoint; one there is replaced, and the command says so."""
    clip = write_clip(original, tmp_path / "clip")
    convert(write_original(original, tmp_path / "without", with_tower=False), tmp_path / "made", vision=clip)
    _assert_same_logits(tmp_path / "made", original, picture)

    other = original._replace(
        tensors={name: tensor + name.startswith(TOWER) for name, tensor in original.tensors.items()}
    )
    made = convert(write_original(other, tmp_path / "with"), tmp_path / "replaced", vision=clip)
    _assert_same_logits(tmp_path / "replaced", original, picture)
    own = sum(name.startswith(TOWER) for name in original.tensors)
    assert f"{own} tensors of the checkpoint's own tower are left out" in " ".join(made.remarks)


def test_pictures_are_padded_and_resized_as_by_the_original(converted, picture):
    found = _inputs(converted, picture)["pixel_values"][0].numpy()
    wanted = pixels_of(picture)
    assert np.abs(found - wanted).max() < 3 / 255 / 0.26  # a few steps of 256, in units of the deviation
    top = SIDE * (150 - 90) // 2 // 150 - 2
    assert np.abs(found[:, :top]).max() < 0.02  # the mean colour is zero when it is normalized


def test_a_source_that_does_not_pad_gives_a_processor_that_crops(original, tmp_path):
    convert(write_original(original, tmp_path / "source", image_aspect_ratio=None), tmp_path / "made")
    assert AutoProcessor.from_pretrained(tmp_path / "made").image_processor.do_pad is False


def test_turns_are_written_in_mistrals_form(converted, picture):
    processor = AutoProcessor.from_pretrained(converted)
    assert isinstance(processor, LlavaProcessor)
    conversation = [
        *_messages(picture, " What <image>is this? "),
        {"role": "assistant", "content": [{"type": "text", "text": "A liver."}]},
        {"role": "user", "content": "And that?"},
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True)
    assert text == "<s>[INST] <image>\nWhat is this? [/INST] A liver. </s>[INST] And that? [/INST]"
    with pytest.raises(Exception, match="without a system message"):
        processor.apply_chat_template([{"role": "system", "content": "Be brief."}])


def test_the_image_token_has_its_row_and_places_and_is_never_the_answer(converted, original, picture):
    rows = len(original.tokenizer)
    config = json.loads((converted / "config.json").read_text())
    assert config["image_token_index"] == rows
    assert config["text_config"]["vocab_size"] == rows + 1
    inputs = _inputs(converted, picture)
    assert (inputs["input_ids"] == rows).sum() == (SIDE // PATCH) ** 2
    logits = LlavaForConditionalGeneration.from_pretrained(converted)(**inputs).logits
    assert (logits[..., -1] < logits.max(-1).values).all()


def test_generation_is_greedy_and_a_batch_is_padded_on_the_left(converted, original):
    settings = GenerationConfig.from_pretrained(converted)
    assert not settings.do_sample
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (1, 2, 0)
    tokenizer = AutoProcessor.from_pretrained(converted).tokenizer
    assert tokenizer(["a", "a b"], padding=True)["input_ids"][0][0] == 0


def test_every_tensor_of_the_source_is_in_the_result(converted, original):
    found = load_file(converted / "model.safetensors")
    assert len(found) == len(original.tensors)
    assert torch.equal(
        found["language_model.model.embed_tokens.weight"][:-1], original.tensors["model.embed_tokens.weight"]
    )


def test_a_tokenizer_that_begins_text_without_a_space_is_made_to_begin_with_one(original, picture, tmp_path):
    """The tokenizers of today write no space behind a special token; the original tokenized the texts apart."""
    source = write_original(original, tmp_path / "source")
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"legacy": False}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(source, tmp_path / "made")
    _assert_same_logits(tmp_path / "made", original, picture)


def test_a_tokenizer_that_gives_other_ids_is_refused(original, tmp_path, refusal):
    """Of a class that keeps the rules of its file, here without a space behind the image token."""
    rules = original.tokenizer.backend_tokenizer.to_str()
    first = Tokenizer.from_str(rules.replace('"prepend_scheme":"always"', '"prepend_scheme":"first"'))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=first, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    source = write_original(original._replace(tokenizer=tokenizer), tmp_path / "source")
    assert "gives other ids around <image>" in refusal(source, tmp_path / "made")


def test_the_command_says_which_tower_was_taken(folder, tmp_path):
    ran = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "made"), "--dtype", "bfloat16"])
    assert ran.exit_code == 0, ran.output
    assert "parameters in bfloat16" in ran.stdout
    assert all(
        f"  {block}: " in ran.stdout for block in ("vision transformer", "projector", "language model")
    )
    assert "the vision tower is the checkpoint's own" in ran.stderr
    assert "Stored as" not in (card := (tmp_path / "made" / "README.md").read_text()) and "bfloat16" in card
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "made", dtype="auto")
    assert model.dtype == torch.bfloat16


def test_the_converted_folder_can_be_asked(converted, tmp_path, picture):
    picture.save(tmp_path / "image.png")
    question = ["ask", str(tmp_path / "image.png"), QUESTION]
    ran = CliRunner().invoke(app, [*question, "--model", str(converted), "--dialect", "llava-med", "--json"])
    assert ran.exit_code == 0, ran.output
    assert {"text", "raw", "spans", "issues"} <= json.loads(ran.stdout).keys()


def test_the_original_folder_is_not_asked_but_pointed_to_the_command(folder):
    with pytest.raises(ValueError, match="bird convert makes one of it"):
        load_vision_language(str(folder), "llava-med")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mm_projector_type": "linear"},
            "mm_projector_type is 'linear', which is not supported (mlp2x_gelu is)",
        ),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature is 'cls'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True"),
        ({"mm_hidden_size": 64}, "mm_hidden_size is 64, and the vision tower is 128 wide"),
        ({"mm_vision_select_layer": -9}, "mm_vision_select_layer is -9; the tower has 3 layers"),
        ({"mm_vision_tower": "google/siglip"}, "google/siglip is not one of OpenAI's CLIP towers"),
        ({"hidden_size": None}, "is not a LLaVA-Med configuration: 'hidden_size' is missing"),
        ({"num_hidden_layers": 3}, "lacks 9 tensors: model.layers.2."),
        ({"intermediate_size": 40}, "which does not give (40, 32)"),
        ({"vocab_size": 100}, "the model has 100 tokens, its tokenizer 355"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(original, tmp_path, refusal, changes, message):
    assert message in refusal(write_original(original, tmp_path / "source", **changes), tmp_path / "made")


def test_missing_and_unknown_tensors_are_named(original, tmp_path, refusal):
    source = write_original(original, tmp_path / "source")
    whole = load_file(source / WEIGHTS)
    name = min(whole)
    save_file({each: whole[each] for each in whole if each != name}, source / WEIGHTS)
    assert f"lacks 1 tensors: {name}; is the download complete?" in refusal(source, tmp_path / "made")
    save_file(whole | {"model.image_newline": torch.ones(4)}, source / WEIGHTS)
    assert "1 tensors that are not LLaVA-Med's: model.image_newline" in refusal(source, tmp_path / "made")


def test_a_source_without_a_tower_says_where_to_get_it(original, tmp_path, refusal):
    source = write_original(original, tmp_path / "source", with_tower=False)
    message = refusal(source, tmp_path / "made")
    assert "has no vision tower; give a folder of openai/clip-vit-large-patch14-336 with --vision" in message


def test_a_clip_folder_of_another_kind_is_refused(original, tmp_path, refusal):
    source = write_original(original, tmp_path / "source")
    clip = write_clip(original, tmp_path / "clip")
    (clip / "config.json").write_text('{"model_type": "siglip"}')
    message = refusal(source, tmp_path / "made", vision=clip)
    assert "is not a CLIP configuration (its model type is 'siglip')" in message


def test_a_source_without_a_tokenizer_is_refused(original, tmp_path, refusal):
    source = write_original(original, tmp_path / "source")
    (source / "tokenizer.json").unlink()
    assert "has no tokenizer.model or tokenizer.json" in refusal(source, tmp_path / "made")
    (source / "tokenizer.model").write_bytes(b"not one")
    has_reader = find_spec("sentencepiece") is not None
    wanted = "the tokenizer cannot be loaded" if has_reader else "pip install sentencepiece"
    assert wanted in refusal(source, tmp_path / "made")


def test_code_in_a_pickle_is_not_run(original, tmp_path, refusal):
    source = write_original(original, tmp_path / "source", pickled=True)
    harmful = tmp_path / "harmful.py"
    harmful.write_text(
        "import pathlib, sys, torch\n"
        "class Bad:\n    def __reduce__(self): return (pathlib.Path.touch, (pathlib.Path(sys.argv[2]),))\n"
        "torch.save({'lm_head.weight': Bad()}, sys.argv[1])\n"
    )
    touched = tmp_path / "touched"
    weights = source / "pytorch_model-00001-of-00002.bin"
    subprocess.run([sys.executable, harmful, weights, touched], check=True)
    assert "does not load as plain tensors" in refusal(source, tmp_path / "made")
    assert not touched.exists()
