"""The benchmark of the full size: what it makes converts, loads and answers, in small."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from bird_hf.convert.layouts import block_sizes, model_shapes
from bird_hf.hub.configuration_bird import BirdConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("full_size", ROOT / "benchmarks" / "full_size.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["full_size"] = module
    spec.loader.exec_module(module)
    return module


def test_its_checkpoint_has_the_models_numbers(benchmark):
    assert benchmark.num_bytes(benchmark.QWEN_VL) == 2 * sum(block_sizes(model_shapes(BirdConfig())).values())


@pytest.mark.parametrize(("free", "layers"), [(40e9, 32), (39e9, 31), (20e9, 13), (5e9, 0)])
def test_it_takes_as_many_layers_as_the_disk_has_room_for(benchmark, free, layers):
    found = benchmark.layers_that_fit(benchmark.QWEN_VL, int(free))
    assert found == layers
    if found:
        assert (
            2 * benchmark.num_bytes(benchmark.with_layers(benchmark.QWEN_VL, found)) + benchmark.MARGIN
            <= free
        )


def test_files_of_its_source_stay_below_their_limit(benchmark):
    shapes = benchmark.source_shapes(benchmark.QWEN_VL)
    groups = benchmark.shard_names(shapes)
    assert sum(map(len, groups)) == len(shapes)
    assert len(groups) >= 10


@pytest.mark.slow
def test_every_stage_runs_in_small_and_becomes_a_row(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "SHARD_BYTES", 2_000_000)
    stages = {
        stage: benchmark.run_stage(stage, benchmark.TINY, tmp_path, tokens=3) for stage in benchmark.STAGES
    }
    assert stages["make"]["bytes"] == benchmark.num_bytes(benchmark.TINY)
    assert stages["int4"]["bytes"] < stages["int8"]["bytes"] < stages["bfloat16"]["bytes"]
    for row in stages.values():
        assert row["peak_resident"] >= row["peak_anonymous"] > 0
    assert all(len(stages[kind]["answer_ids"]) == 3 for kind in ("bfloat16", "int8", "int4"))
    report = {
        "config": benchmark.TINY,
        "reason": "A trial.",
        "machine": benchmark.machine(),
        "stages": stages,
    }
    page = benchmark.as_markdown(json.loads(json.dumps(report)))
    assert page.count("\n| ") == 7  # a header, its line, and five stages
    assert "with 2 of 32 layers" in page and "A trial." in page
