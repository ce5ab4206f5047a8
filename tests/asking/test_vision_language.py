"""Tiny models of other families, with random weights, through transformers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bird_hf import Query, dialects
from bird_hf.answering import Decoding
from bird_hf.asking import ModelChoice, open_model
from bird_hf.asking.processor_errors import why_not_loaded
from bird_hf.asking.vision_language import VisionLanguageModel
from bird_hf.eval.predictions import read_predictions
from bird_hf.eval.run import read_run

from ..dialects.tiny_models import FAMILIES, give_smolvlm_processor, make_tiny

WIDE, HIGH = Image.new("RGB", (80, 40), (90, 20, 20)), Image.new("L", (30, 64), 200)
QUESTION = "Where is the left kidney?"
QUERIES = [Query(QUESTION, WIDE), Query("Which modality is this, and of what part of the body?", HIGH)]
ASKED = ("qwen2.5-vl", "llava", "paligemma")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model; skips where its processor needs torchvision, and that is not there."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if FAMILIES[family].needs_torchvision and find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed")
        if family not in made:
            made[family] = make_tiny(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return folder


@pytest.fixture
def opened(tiny: Callable[[str], Path]) -> Callable[[str], VisionLanguageModel]:
    def open_family(family: str) -> VisionLanguageModel:
        dialect = FAMILIES[family].dialect if family == "llava" else None
        model = open_model(ModelChoice(str(tiny(family)), dialect))
        assert isinstance(model, VisionLanguageModel)
        return model

    return open_family


@pytest.mark.parametrize("family", ASKED)
def test_a_batch_is_answered_as_each_question_alone(
    opened: Callable[[str], VisionLanguageModel], family: str
) -> None:
    model = opened(family)
    assert model.dialect_name == FAMILIES[family].dialect
    # A tied head with random weights would repeat the last token of the question.
    head: Any = model.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(
        torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
    )
    together = model.generate(QUERIES, 2, 6)
    assert together == [model.generate([query], 1, 6)[0] for query in QUERIES]
    assert any(together)
    answer = model.ask(WIDE, QUESTION, max_new_tokens=3)
    assert answer.image_wh == (80, 40) and answer.model == model.name


@pytest.mark.parametrize("family", ASKED)
def test_an_answer_is_read_into_boxes_of_the_picture(
    opened: Callable[[str], VisionLanguageModel], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model says what its dialect writes, in tokens; special tokens among them survive, the end does not."""
    model = opened(family)
    tokenizer = model.processor.tokenizer
    written = {
        "qwen2.5-vl": '[{"bbox_2d": [21, 7, 42, 14], "label": "left kidney"}]',
        "llava": "left kidney [20, 10, 40, 20]",
        "paligemma": "<loc0256><loc0256><loc0512><loc0512> left kidney",
    }[family]
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    ids += [tokenizer.eos_token_id, tokenizer.pad_token_id]

    def say(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([ids] * len(input_ids))], dim=1)

    monkeypatch.setattr(model.model, "generate", say)
    answer = model.ask(WIDE, QUESTION)
    assert (answer.raw, answer.text, answer.issues) == (written, "left kidney", ())
    quantum_x, quantum_y = model.dialect.quantum(model.dialect.view(WIDE.size))
    (box,) = answer.boxes
    assert box.xyxy == pytest.approx((0.25, 0.25, 0.5, 0.5), abs=max(quantum_x, quantum_y))


def test_the_view_is_that_of_the_models_own_processor(
    opened: Callable[[str], VisionLanguageModel],
) -> None:
    model = opened("qwen2.5-vl")
    for size in ((80, 40), (300, 200), (20, 90), (500, 500)):
        grid = model.processor.image_processor(Image.new("RGB", size), return_tensors="pt")["image_grid_thw"]
        _, rows, columns = grid[0].tolist()
        assert model.dialect.view(size).resized_wh == (columns * 14, rows * 14)


def test_samples_differ_and_repeat(opened: Callable[[str], VisionLanguageModel]) -> None:
    model = opened("llava")
    decoding = Decoding(n=4, temperature=1.5, max_new_tokens=8)
    first, second = model.sample(QUERIES, decoding), model.sample(QUERIES, decoding)
    assert first == second and [len(each) for each in first] == [4, 4]
    assert len(set(first[0])) > 1


def test_predictions_of_another_family_can_be_scored(
    tiny: Callable[[str], Path], run_bird: Callable[..., Any], med_grit: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ["--model", tiny("paligemma"), "--data", med_grit, "--max-new-tokens", 4, "--batch-size", 4]
    ran = run_bird("predict", *options, "--task", "all", "--out", run, "--limit", 2)
    assert ran.code == 0, ran.err
    found = read_run(run)
    assert found is not None and (found.dialect, len(found.weights_sha256)) == ("paligemma", 64)
    assert all(each.error is None for each in read_predictions(run / "vg.jsonl", "vg"))
    assert run_bird("score", run / "vg.jsonl", "--task", "vg").code == 0
    out = tmp_path / "vg.jsonl"
    several = [*options, "--task", "vg", "--out", out, "--n", 2, "--temperature", 1.0, "--limit", 1]
    assert run_bird("predict", *several).code == 0
    (line,) = out.read_text().splitlines()
    answer = json.loads(line)
    assert answer["samples"][0]["response"] == answer["response"]
    assert len(answer["samples"]) == 2
    refused = run_bird("predict", *options, "--task", "vg", "--out", out, "--limit", 1)
    assert refused.code == 2 and "holds 2 answers to a question, and --n is 1" in refused.err


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def spoilt(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text("{") and None


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (nothing, {"dialect": None}, "model type 'llava' tells none.*give --dialect"),
        (nothing, {"served_model": "x"}, "--served-model is the name of a model at an endpoint"),
        (nothing, {"dtype": "int4"}, "dtype 'int4' is unknown"),
        (nothing, {"device": "nowhere"}, "device 'nowhere' cannot be used here"),
        (without("chat_template.jinja"), {}, "has no chat template"),
        (without("model.safetensors"), {}, "the model cannot be loaded"),
        (without("tokenizer.json"), {}, "the processor cannot be loaded"),
        (spoilt("config.json"), {}, "is not a JSON object"),
        (lambda folder: shutil.rmtree(folder), {}, "no such folder"),
    ],
)
def test_a_folder_that_cannot_be_asked_is_one_line(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    options: dict[str, Any],
    message: str,
) -> None:
    folder = Path(shutil.copytree(tiny("llava"), tmp_path / "model"))
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        open_model(ModelChoice(str(folder), **{"dialect": "llava-med"} | options))
    assert "\n" not in str(caught.value)


def test_a_processor_that_needs_a_package_names_it(
    run_bird: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")  # its video processor is loaded first
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    folder = make_tiny("idefics3", tmp_path / "smolvlm")
    give_smolvlm_processor(folder)
    WIDE.save(tmp_path / "wide.png")
    ran = run_bird("ask", tmp_path / "wide.png", QUESTION, "--model", folder, "--dialect", "internvl")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"bird: {folder}: the processor needs a package that is not installed; pip install num2words\n"
    )


@pytest.mark.parametrize(
    ("error", "found", "said"),
    [
        (ImportError("Install it with\n`pip install a[b]`."), True, "needs .*; pip install a\\[b\\]"),
        (
            ImportError("cannot import name 'x'"),
            True,
            r"cannot be loaded \(ImportError: cannot import name 'x'\)",
        ),
        (
            AttributeError("no\nvideo"),
            False,
            r"cannot be loaded \(AttributeError: no video\); pip install torchv.*",
        ),
    ],
)
def test_what_a_processor_needs_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, found: bool, said: str
) -> None:
    monkeypatch.setattr("bird_hf.asking.processor_errors.find_spec", lambda _: object() if found else None)
    assert re.fullmatch(said, why_not_loaded(error))


def test_a_bird_checkpoint_is_asked_in_its_own_way(tiny_checkpoint: Path) -> None:
    assert open_model(ModelChoice(str(tiny_checkpoint), "bird")).dialect_name == "bird"
    with pytest.raises(ValueError, match="is a BiRD checkpoint, which is asked in its own way"):
        open_model(ModelChoice(str(tiny_checkpoint), "qwen3-vl"))


def test_a_dialect_of_another_family_is_warned_about(
    tiny: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = open_model(ModelChoice(str(tiny("paligemma")), "internvl"))
    assert "its configuration says paligemma; give --dialect paligemma" in caplog.text
    assert model.dialect_name == "internvl" and len(model.remarks) == 1
    assert dialects.get("internvl").name in model.remarks[0]
