"""benchmarks/gpu.py on a tiny model: every part runs, says what it measured, and goes on where it was stopped."""

import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _from_its_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a part once, in this process, and gives its document."""
    out, documents = tmp_path_factory.mktemp("gpu"), {}

    def document(name):
        import gpu

        if name not in documents:
            gpu.run_part(name, out, minutes=5, tiny=True)
            documents[name] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        return documents[name]

    return document


def part_of(tmp_path, minutes=1.0):
    from gpu_parts.measure import Part

    return Part("trial", tmp_path / "trial.json", CPU, True, time.monotonic() + 60 * minutes)


def made(part):
    """What was measured, without what is impossible on a CPU."""
    return {name: case for name, case in part["cases"].items() if "not_run" not in case}


@pytest.mark.parametrize("name", ["parity", "inference", "training", "compile", "plan_memory"])
def test_a_part_runs_without_an_error_and_names_its_machine(run, name):
    part = run(name)
    assert part["finished"] and "error" not in part
    assert part["machine"]["torch"] == torch.__version__ and part["machine"]["card"].startswith("CPU")
    assert part["tiny"] is True
    assert all(not {"error", "out_of_memory"} & case.keys() for case in part["cases"].values())


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_attention_in_float32_is_the_cpus(run, attention):
    case = run("parity")["cases"][f"{attention}_float32"]
    for what in {"logits", "image_features", "loss", "gradients"} & case.keys():
        assert case[what]["difference"] < 1e-5 * max(1, case[what]["greatest"])
        assert case[what]["greatest"] > 0.01
    assert case["top1_agreement"] == 1
    if attention != "flex_attention":  # which has no backward pass here
        assert case["gradients"]["same_parameters"] and case["gradients"]["parameters"] > 30


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_rows_packed_across_images_are_those_rows_one_by_one(run, attention):
    case = run("parity")["cases"][f"across_images_{attention}_float32"]
    assert case["sequences"] < case["rows"]
    for what in {"logits", "image_features", "loss", "gradients"} & case.keys():
        assert case[what]["difference"] < 1e-5 * max(1, case[what]["greatest"])
    assert case["top1_agreement"] == 1
    if attention != "flex_attention":  # which has no backward pass here
        assert case["gradients"]["same_parameters"] and case["gradients"]["parameters"] > 30


@pytest.mark.parametrize("case", ["sdpa_bfloat16", "across_images_flex_attention_autocast"])
def test_bfloat16_differs_by_its_rounding(run, case):
    logits = run("parity")["cases"][case]["logits"]
    assert 0 < logits["difference"] < 0.05 * logits["greatest"]


def test_generation_writes_numbers_inside_a_box_with_smoothing_as_without(run):
    cases = run("parity")["cases"]
    plain, smoothed = cases["generate_float32"], cases["generate_with_smoothing_float32"]
    for case in (plain, smoothed):
        assert case["equal_tokens"] == case["tokens"] > 0 and case["numbers_among_tokens"] > 0
    assert plain["first_scores"]["greatest"] != smoothed["first_scores"]["greatest"]


def test_parity_holds_for_the_golden_and_the_embedded_checkpoint(run):
    cases = run("parity")["cases"]
    assert cases["qwen_vl_golden_float32"]["one_image"]["difference"] < 1e-4
    assert cases["bird_nano_float32"]["different"] == 0
    assert cases["bird_nano_float32"]["answers"] == cases["bird_nano_float32"]["with_a_box"] > 0


def test_answers_are_compared_number_by_number():
    from gpu_parts.parity import numbers_apart

    assert numbers_apart("<box>(3,10),(50,60)</box>", "<box>(3,12),(50,61)</box>") == 2
    assert numbers_apart("the liver (3,4)", "the spleen (3,4)") is None


def test_inference_gives_rates_of_every_batch_with_pixels_and_with_features(run):
    cases = run("inference")["cases"]
    for batch in (1, 8, 32):
        assert cases[f"vision_tower_batch_{batch}"]["images_per_second"] > 0
        for source in ("pixel_values", "image_features"):
            case = cases[f"{source}_batch_{batch}"]
            assert case["prefill_tokens_per_second"] * case["prefill_seconds"] == pytest.approx(
                batch * case["prompt_tokens"]
            )
            assert case["answers_per_second"] > 0
    assert cases["model"]["parameters"] > cases["model"]["tower_parameters"] > 0


def test_training_gives_pairs_per_second_and_what_packing_brings(run):
    part = run("training")
    cases = made(part)
    for setting in ("lora", "full"):
        packed, original = cases[f"{setting}_packed_sdpa"], cases[f"{setting}_original"]
        assert packed["microbatch"]["pairs"] == 5 * packed["microbatch"]["rows"]
        assert original["microbatch"]["pairs"] == original["microbatch"]["rows"]
        across = cases[f"{setting}_across_1024_sdpa"]
        assert across["microbatch"]["sequences"] < across["microbatch"]["rows"]
        for case in (packed, original, across):
            assert 0 < case["mfu"] < 2 and case["optimizer_seconds"] > 0
            assert case["last_loss"] < case["first_loss"] < 3 * math.log(1800)
        ratio = part["times_faster_than_original"][f"{setting}_packed_sdpa"]
        assert ratio == pytest.approx(packed["pairs_per_second"] / original["pairs_per_second"])
    assert (
        cases["lora_packed_sdpa"]["trainable_parameters"] < cases["full_packed_sdpa"]["trainable_parameters"]
    )


def test_compile_gives_a_speedup_and_the_seconds_it_took(run):
    cases = made(run("compile"))
    assert cases.keys() == {"training_sdpa", "decode_batch_1", "decode_batch_8", "image_features"}
    for case in cases.values():
        assert case["speedup"] == pytest.approx(case["eager_seconds"] / case["compiled_seconds"])
        assert math.isfinite(case["compile_seconds"])


def test_plan_memory_measures_float32_weights_and_lora_of_attention(run):
    cases = made(run("plan_memory"))
    assert len(cases) == 4
    whole, lora = cases["float32_autocast"], cases["lora_attention"]
    assert whole["trainable_parameters"] > lora["trainable_parameters"] > 0


@pytest.mark.parametrize("lora", [False, True])
def test_flops_are_torchs_count(lora):
    from gpu_parts.flops import Step, training_flops
    from gpu_parts.models import loss_of
    from gpu_parts.training import LORA_RANK, Trained, adamw

    trained = Trained(part_of(Path("unused")), lora, adamw)
    trained.model.set_attn_implementation("eager")  # torch counts all of its products
    batch = trained.batches["packed"]
    length = batch.input_ids.shape[1]
    with FlopCounterMode(display=False) as counter:
        loss_of(trained.model, batch).backward()
    step = Step(len(batch.input_ids), batch.tokens, batch.supervised, attended=batch.tokens * length)
    found = training_flops(trained.config, step, LORA_RANK if lora else None)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_measurement_is_made_once_and_a_failed_one_again(tmp_path):
    calls = []

    def fail():
        calls.append("fail")
        raise RuntimeError("no such kernel")

    def succeed():
        calls.append("succeed")
        return {"value": 1}

    part = part_of(tmp_path)
    part.measure("good", succeed)
    part.measure("bad", fail)
    part.close()
    document = json.loads(part.file.read_text(encoding="utf-8"))
    assert not document["finished"] and document["cases"]["good"]["value"] == 1
    assert document["cases"]["bad"]["error"].endswith("RuntimeError: no such kernel")

    again = part_of(tmp_path)
    again.measure("good", succeed)
    again.measure("bad", succeed)
    again.close()
    assert calls == ["succeed", "fail", "succeed"]
    assert json.loads(part.file.read_text(encoding="utf-8"))["finished"]


def test_too_little_memory_is_a_result_and_too_little_time_is_not(tmp_path):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory")

    part = part_of(tmp_path)
    part.measure("large", fail)
    part.deadline = time.monotonic() - 1
    part.measure("late", fail)
    part.close()
    assert part.cases["large"]["out_of_memory"] == "CUDA out of memory"
    assert part.cases["late"] == {"not_run": "no time was left"}
    assert part.document["finished"] is False


@pytest.fixture
def printed(monkeypatch, capfd, forked_python):
    """Runs the command, with the processes that it starts, and gives what it prints."""
    import gpu

    monkeypatch.setattr(sys, "executable", str(forked_python))

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, options)])
        capfd.readouterr()
        gpu.main()
        return capfd.readouterr().out

    return run


def test_the_command_skips_a_finished_part_and_starts_over_with_again(printed, tmp_path):
    command = ["inference", "--out", tmp_path, "--tiny"]
    file = tmp_path / "inference.json"
    file.write_text(json.dumps({"part": "inference", "finished": True, "mark": 1}), encoding="utf-8")
    assert json.loads(printed(*command))["mark"] == 1
    document = json.loads(printed(*command, "--again", "--minutes", "0"))
    assert document == json.loads(file.read_text(encoding="utf-8"))
    assert "mark" not in document and not document["finished"]
    assert document["cases"]["model"] == {"not_run": "no time was left"}


def test_an_unknown_part_is_refused(printed, capfd, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        printed("speed", "--out", tmp_path)
    assert "there is no part 'speed'" in capfd.readouterr().err


def test_a_part_that_breaks_is_recorded(tmp_path, monkeypatch):
    import gpu

    monkeypatch.setitem(gpu.PARTS, "parity", "no_such_module")
    document = gpu.run_part("parity", tmp_path, minutes=1, tiny=True)
    assert "No module named 'gpu_parts.no_such_module'" in document["error"]
    assert json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["finished"] is False
