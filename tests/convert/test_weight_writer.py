"""Weights are written in several files, of which memory contains none as a whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bird_hf.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"
MB = 10**6


def write_large_source(folder, layers=8):
    """The tiny checkpoint with wide layers: one in a .bin file, 50 MB each in float32. Returns all bytes."""
    from safetensors.torch import load_file

    config = json.loads((GOLDEN / "config.json").read_text()) | {"num_hidden_layers": layers}
    inner = 16384
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * inner}))
    tensors = load_file(GOLDEN / "model.safetensors")
    layer = {name: tensor for name, tensor in tensors.items() if name.startswith("transformer.h.0.")}
    torch.save(
        {name: tensor for name, tensor in tensors.items() if not name.startswith("transformer.h.")},
        folder / "pytorch_model-rest.bin",
    )
    for number in range(layers):
        wide = {name.replace(".0.", f".{number}.", 1): tensor for name, tensor in layer.items()}
        for name, shape in (("w1", (inner, 256)), ("w2", (inner, 256)), ("c_proj", (256, inner))):
            wide[f"transformer.h.{number}.mlp.{name}.weight"] = torch.full(shape, float(number))
        torch.save(wide, folder / f"pytorch_model-{number}.bin")
    return sum(path.stat().st_size for path in folder.iterdir())


# In a process of its own, after a small conversion has imported and allocated what every one needs: how far the memory
# rises, of mapped files and of its own. The two apart, because what the allocator keeps differs by tens of MB.
GROWTH = """
import sys
from pathlib import Path
from threading import Event, Thread
from bird_hf.convert import convert

def memory():
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    sizes = {words[0]: int(words[1]) * 1024 for words in lines if words[0].startswith("Rss")}
    return sizes["RssFile:"], sizes["RssAnon:"]

def watch():
    while not done.wait(0.0005):
        peak[:] = map(max, peak, memory())

small, large, out = map(Path, sys.argv[1:])
convert(small, out / "first")
done, before, peak = Event(), memory(), [0, 0]
watcher = Thread(target=watch)
watcher.start()
made = convert(large, out / "bird")
done.set()
watcher.join()
print(made.dtype, *(most - then for most, then in zip(peak, before)))
"""


@pytest.mark.slow
def test_peak_memory_is_a_file_of_the_source_and_not_the_model(tmp_path):
    total = write_large_source(tmp_path / "source")
    assert total > 400 * MB
    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, GOLDEN, tmp_path / "source", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    dtype, *growth = ran.stdout.split()
    mapped, own = map(int, growth)
    assert dtype == "bfloat16"
    assert 40 * MB < mapped < 60 * MB  # a file of 51 MB: no two at once
    assert own < 90 * MB  # what is being written, of 207 MB
    written = sum(path.stat().st_size for path in (tmp_path / "bird").glob("*.safetensors"))
    assert written > 200 * MB


def test_a_large_model_is_written_in_several_files(tmp_path, monkeypatch, reference, assert_same_weights):
    monkeypatch.setattr("bird_hf.convert.weight_writer.SHARD_BYTES", 1_000_000)
    convert(GOLDEN, tmp_path / "bird")
    shards = sorted(path.name for path in (tmp_path / "bird").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-0000{len(shards)}.safetensors"
    assert_same_weights(tmp_path / "bird", reference)


def test_numbers_that_float16_cannot_hold_are_named(source, tmp_path, edit_weights, refusal):
    name = "transformer.visual.proj"
    edit_weights(source, lambda tensors: tensors[name].fill_(1e6))
    message = refusal(source, tmp_path / "bird", dtype="float16")
    assert f"{name} has values out of the range of float16" in message
