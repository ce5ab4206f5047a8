"""Memory holds neither the model nor a file of it while it is converted."""

import json
from pathlib import Path

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


def memory(field):
    """Bytes of this process: VmRSS now, or VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def test_peak_memory_is_a_file_of_the_source_and_not_the_model(tmp_path):
    total = write_large_source(tmp_path / "source")
    assert total > 400 * MB
    convert(GOLDEN, tmp_path / "first")  # what is imported and allocated once is there now
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest is forgotten
    made = convert(tmp_path / "source", tmp_path / "bird")
    assert made.dtype == "bfloat16"
    # A file of 51 MB and what is being written, and room for a busy machine: of 409 MB read and 207 MB written.
    assert memory("VmHWM") - before < 150 * MB
    written = sum(path.stat().st_size for path in (tmp_path / "bird").glob("*.safetensors"))
    assert written > 200 * MB
