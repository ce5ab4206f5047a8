"""A checkpoint folder loads, or one line says why not; nothing in it is run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from bird_hf.checkpoint.load import find_checkpoint, load_checkpoint

WEIGHTS = "model.safetensors"
A_TENSOR = "model.language_model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def as_bin(folder: Path, content: Any = None) -> Path:
    """The weights as pytorch_model.bin instead."""
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / WEIGHTS) if content is None else content, path)
    (folder / WEIGHTS).unlink()
    return path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors[A_TENSOR] = torch.zeros(3, 3)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def cut_bin(folder: Path) -> None:
    path = as_bin(folder)
    path.write_bytes(path.read_bytes()[:20_000])


def text_as_bin(folder: Path) -> None:
    as_bin(folder).write_text("hello")


def without_processor(folder: Path) -> None:
    """What `bird convert` makes of a source without a vocabulary."""
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def test_a_whole_folder_gives_model_and_processor(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    model, processor = load_checkpoint(folder)
    assert not model.training
    assert model.dtype == torch.float32
    assert processor.image_token_id == model.config.image_token_id
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_options_go_to_the_model(folder: Path) -> None:
    model, _ = load_checkpoint(str(folder), dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_a_bin_of_plain_tensors_is_accepted(folder: Path) -> None:
    expected = load_file(folder / WEIGHTS)
    as_bin(folder)
    model, _ = load_checkpoint(folder)
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class RunsOnLoad:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    marker = tmp_path / "marker"
    path = as_bin(folder, {"weight": RunsOnLoad(marker)})
    if form == "pickle":
        path.write_bytes(pickle.dumps({"weight": RunsOnLoad(marker)}))
    with pytest.raises(ValueError, match="a pickle that contains more than tensors, which is refused"):
        load_checkpoint(folder)
    assert not marker.exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "weights are damaged .SafetensorError"),
        (lambda folder: (folder / WEIGHTS).rename(folder / "adapter.safetensors"), "no file named"),
        (reshape_a_tensor, f"1 tensors of the weights are missing or have a wrong shape, such as {A_TENSOR}"),
        (cut_bin, "weights are damaged"),
        (text_as_bin, "weights are damaged .KeyError"),
        (lambda folder: as_bin(folder, [torch.zeros(2)]), "weights are damaged .TypeError"),
        (lambda folder: edit_config(folder, text_config=5), "config.json or the weights are damaged"),
        (lambda folder: edit_config(folder, num_queries="x"), "config.json or the weights are damaged"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "is not a JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"), "is not a JSON object"),
        (without_processor, "no tokenizer and processor .*qwen.tiktoken"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "are of another model"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "processor is damaged .JSONDecodeError"),
        (lambda folder: (folder / "processor_config.json").write_text("{"), "processor is damaged .OSError"),
    ],
)
def test_damage_is_named_in_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], damage: Any, complaint: str
) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")  # loaders would report at length


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="no such folder; run `bird quickstart`"):
        load_checkpoint(folder / "config.json")


def test_a_checkpoint_is_a_folder_or_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(str(tmp_path)) == tmp_path
    with pytest.raises(
        ValueError, match=r"^'some/bird' is not a folder and cannot be downloaded from the hub \(.*\); check"
    ):
        find_checkpoint("some/bird")
    cached = tmp_path / "models--some--bird"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    (cached / "snapshots" / ("a" * 40)).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_checkpoint("some/bird") == cached / "snapshots" / ("a" * 40)
