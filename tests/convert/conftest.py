"""The tiny checkpoint in Qwen-VL's layout, and ways to damage it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bird_hf.convert import convert
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"


@pytest.fixture
def source(tmp_path):
    """A copy of the tiny checkpoint to be damaged."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def original():
    return load_file(GOLDEN / "model.safetensors")


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The tensors of a plain conversion."""
    folder = tmp_path_factory.mktemp("reference") / "bird"
    convert(GOLDEN, folder)
    return load_file(folder / "model.safetensors")


def _edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _assert_same_weights(folder, reference):
    model = BirdForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    found = model.state_dict()
    assert found.keys() == reference.keys()
    assert all(torch.equal(found[name], reference[name]) for name in reference)


def _refusal(src, dst, **options):
    before = _contents(src)
    with pytest.raises(ValueError) as caught:
        convert(src, dst, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not dst.exists()
    assert not [path for path in dst.parent.iterdir() if path.name.startswith(".")]
    assert _contents(src) == before
    return message


def _write_pickles(source, tensors, zipped=True):
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


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def edit_config():
    return _edit_config


@pytest.fixture
def edit_weights():
    return _edit_weights


@pytest.fixture
def assert_same_weights():
    return _assert_same_weights


@pytest.fixture
def refusal():
    return _refusal


@pytest.fixture
def write_pickles():
    return _write_pickles
