"""Two processes train as one does: the same losses, a whole `final`, and a stopped run ends like an unbroken one.

DDP and FSDP2 run in any environment. ZeRO needs the extra `deepspeed`. Each kind of sharding is one start of two
processes, which run all recipes of the test in turn, because starting takes longer than training.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Image, load_dataset
from safetensors.torch import load_file

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.train import run

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("run_in_processes.py")
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed (the extra deepspeed)"
)
FSDP = {  # as `accelerate launch --config_file recipes/fsdp.yaml` sets them
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": r".*language_model.*\.(q|k|v|o)_proj"}
KINDS = [
    pytest.param({}, {}, id="ddp"),
    pytest.param({}, FSDP, id="fsdp2"),
    pytest.param({"deepspeed": str(ROOT / "recipes" / "zero2.json")}, {}, id="zero2", marks=needs_deepspeed),
    pytest.param({"deepspeed": str(ROOT / "recipes" / "zero3.json")}, {}, id="zero3", marks=needs_deepspeed),
]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


@pytest.fixture
def start(forked_python) -> Callable[..., str]:
    """Runs recipes in two processes; gives what they wrote to stderr."""
    return partial(start_two, forked_python)


def start_two(python: Path, recipes: list[str], settings: dict[str, str], expected: int = 0) -> str:
    environment = (
        os.environ
        | settings
        | {
            "PYTHON_EXEC": str(python),  # with which torchrun starts processes
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }
    )
    command = [
        str(python),
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(SCRIPT),
    ]
    done = subprocess.run(
        [*command, *recipes], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert (done.returncode != 0) == (expected != 0), done.stderr[-4000:]
    return done.stderr


def losses_of(folder: Path) -> list[float]:
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.fixture
def some_without_image(four_phantoms, tmp_path) -> str:
    """The four phantoms, every other one without its image."""
    rows = load_dataset(four_phantoms, "chat", split="train").cast_column("image", Image(decode=False))
    features = rows.features
    kept = [{**row, "image": row["image"] if index % 2 else None} for index, row in enumerate(rows)]
    folder = tmp_path / "some-without-image"
    folder.mkdir()
    type(rows).from_list(kept, features=features).cast_column("image", Image()).to_parquet(
        folder / "train.parquet"
    )
    return str(folder)


@pytest.mark.parametrize(("sharding", "settings"), KINDS)
def test_two_processes_train_as_one(
    start, write_recipe, tmp_path, tiny_checkpoint, some_without_image, sharding, settings
):
    fields = {
        "model_name_or_path": str(tiny_checkpoint),
        "max_steps": 4,
        "global_batch_size": 4,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-3,
    }
    alone = write_recipe(tmp_path / "alone", **fields)
    run.main(["--config", str(alone)])
    unbroken, stopped, mixed, adapter = (
        str(write_recipe(tmp_path / name, **fields, **sharding, **data))
        for name, data in (
            ("unbroken", {}),
            ("stopped", {}),
            # one process has an image where the other has none: both must run the same layers
            ("mixed", {"dataset_name": some_without_image, "dataset_config": None, "text_only": True}),
            ("adapter", LORA),
        )
    )
    start([unbroken, f"{stopped}:stop", stopped, mixed, adapter], settings)

    expected = losses_of(tmp_path / "alone" / "run")
    assert len(expected) == 4
    assert losses_of(tmp_path / "unbroken" / "run") == pytest.approx(expected, rel=1e-4)
    assert losses_of(tmp_path / "stopped" / "run") == losses_of(tmp_path / "unbroken" / "run")
    one, two, other = (
        load_file(tmp_path / name / "run" / "final" / "model.safetensors")
        for name in ("unbroken", "stopped", "alone")
    )
    torch.testing.assert_close(one, two, atol=0, rtol=0)
    torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-2)  # both are rounded to bf16
    for name in ("unbroken", "mixed"):
        load_checkpoint(tmp_path / name / "run" / "final")
    trained = load_file(tmp_path / "adapter" / "run" / "final" / "adapter_model.safetensors")
    assert len(trained) == 2 * 4 * 2  # layers, projections, and two matrices each
    assert all(value.any() for value in trained.values())


def test_a_loss_that_is_not_finite_stops_both_processes(start, write_recipe, tmp_path, broken_checkpoint):
    fields = {"model_name_or_path": str(broken_checkpoint), "per_device_train_batch_size": 1, "max_steps": 4}
    said = start([str(write_recipe(tmp_path / "nan", **fields))], {}, expected=2)
    assert said.count("refused: the loss") == 2
    assert len(list((tmp_path / "nan" / "run").glob("bad-batch-1-process-*"))) == 2
    assert not (tmp_path / "nan" / "run" / "final").exists()
