"""Weights are read from safetensors and from pickles of plain tensors, and from nothing else."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bird_hf.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "qwen_vl_tokenizer_cases.json").read_text())


def test_sharded_safetensors_give_the_same_model(source, tmp_path, original, reference, assert_same_weights):
    (source / "model.safetensors").unlink()
    names = sorted(original)
    for index, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: original[name] for name in part}, source / f"model-0000{index}-of-00002.safetensors")
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


@pytest.mark.parametrize("zipped", [True, False])
def test_sharded_pickles_of_tensors_give_the_same_model(
    source, tmp_path, original, reference, zipped, assert_same_weights, write_pickles
):
    write_pickles(source, original, zipped)
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


def test_only_the_files_of_an_index_are_read(
    source, tmp_path, original, reference, assert_same_weights, write_pickles
):
    write_pickles(source, original)
    torch.save({"transformer.old": torch.ones(1)}, source / "pytorch_model-00009-of-00009.bin")
    convert(source, tmp_path / "bird")
    assert_same_weights(tmp_path / "bird", reference)


def test_a_folder_that_is_not_a_checkpoint_is_named(tmp_path, refusal):
    assert "is not a checkpoint folder" in refusal(tmp_path / "nowhere", tmp_path / "bird")


def test_a_folder_without_weights_is_named(source, tmp_path, refusal):
    (source / "model.safetensors").unlink()
    assert "neither *.safetensors nor pytorch_model*.bin" in refusal(source, tmp_path / "bird")


class _Malice:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_that_is_more_than_tensors_is_refused_and_not_run(source, tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(
        pickle.dumps({"transformer.wte.weight": _Malice()}, protocol=2)
    )
    assert "does not load as plain tensors" in refusal(source, tmp_path / "bird")
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_that_is_cut_short_is_refused(source, tmp_path, original, refusal, write_pickles):
    write_pickles(source, original)
    path = source / "pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[:10_000])
    assert f"{path} is truncated" in refusal(source, tmp_path / "bird")


def test_a_file_of_the_index_that_is_not_there_is_named(source, tmp_path, original, refusal, write_pickles):
    write_pickles(source, original)
    (source / "pytorch_model-00001-of-00002.bin").unlink()
    message = refusal(source, tmp_path / "bird")
    assert (
        "lacks 1 files that pytorch_model.bin.index.json lists: pytorch_model-00001-of-00002.bin" in message
    )


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("[]", "is not an index of weights"),
        ("{", "is not an index of weights"),
        ('{"weight_map": {"a": 3}}', "is not an index of weights"),
        (
            '{"weight_map": {"a": "../model.safetensors"}}',
            "names a file outside its folder: ../model.safetensors",
        ),
    ],
)
def test_a_file_that_is_not_an_index_is_refused(source, tmp_path, index, complaint, refusal):
    (source / "model.safetensors.index.json").write_text(index)
    assert complaint in refusal(source, tmp_path / "bird")


def test_a_tensor_that_stands_in_two_files_is_named(source, tmp_path, original, refusal):
    name = "transformer.ln_f.weight"
    save_file({name: original[name]}, source / "more.safetensors")
    assert f"contains tensors that are also in another file: {name}" in refusal(source, tmp_path / "bird")


def test_a_truncated_file_is_refused(source, tmp_path, refusal):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:10_000])
    assert "is not a readable safetensors file" in refusal(source, tmp_path / "bird")
