"""The device against the CPU in float32: logits, loss and gradients, generation, and the embedded checkpoint."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.packed_attention import PADDING

from .measure import Lazy, Part
from .models import (
    Batch,
    config,
    loss_of,
    make_batch,
    make_model,
    make_processor,
    make_rows,
    one_turn_rows,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "qwen_vl_tiny"
NANO = ROOT / "src" / "bird_hf" / "assets" / "bird-nano"
CPU = torch.device("cpu")
SEED = 700_000  # of phantoms that no checkpoint was trained on
_PACKED_LENGTH = 1024  # room for two or three rows of this size
_GOLDEN_SLOT, _GOLDEN_START = 402, 400


class Small:
    """A small random model, its packed batch, and what the CPU computes with it in float32."""

    def __init__(self, part: Part):
        self.part, size = part, "tiny" if part.tiny else "small"
        processor = make_processor(size)
        boxes = processor.tokenizer.convert_tokens_to_ids(["<box>", "</box>"])
        # 1001 ids behind the tokenizer's stand for the numbers that smoothing needs.
        self.config = config(size, processor.image_token_id)
        first = len(processor.tokenizer)
        self.config.text_config.vocab_size = first + 1001
        self.config.box_token_ids, self.config.coordinate_token_runs = boxes, [[first, first + 1000]]
        rows = make_rows(2 if part.tiny else 4)
        self.batch = make_batch(rows, processor, self.config)
        self.plain = make_batch(one_turn_rows(rows)[:4], processor, self.config)
        self.joined = make_batch(rows, processor, self.config, pack_to=_PACKED_LENGTH)
        self.model = make_model(self.config, CPU, torch.float32)
        self.model.model.freeze_vision()
        with torch.no_grad():  # near numbers are alike, and likely, so that smoothing has something to do
            self.model.lm_head.weight[first:] = 0.01 * torch.randn(
                1001, self.model.lm_head.in_features
            ).cumsum(0)
        self.expected = computed(self.model, self.batch)

    def expected_of_packs(self, gradients: bool) -> dict[str, Any]:
        """What the rows of `joined` give on the CPU one by one, laid out as the packs are."""
        batch, one_by_one = self.joined, []
        logits = torch.zeros(*batch.input_ids.shape, self.config.text_config.vocab_size)
        tokens, number = batch.supervised, 0
        self.model.zero_grad(set_to_none=True)
        losses = []
        for sequence in range(len(batch.input_ids)):
            for row in range(int(batch.row_ids[sequence].max()) + 1):
                here = batch.row_ids[sequence] == row
                alone = Batch(
                    *(value[sequence, here][None] for value in batch.tokens_of_rows()),
                    pixel_values=batch.pixel_values[number : number + 1],
                    pairs=0,
                )
                found = computed(self.model, alone, gradients=False)
                logits[sequence, here] = found["logits"][0]
                one_by_one.append(found["image_features"])
                if gradients:
                    loss = loss_of(self.model, alone) * alone.supervised / tokens
                    loss.backward()
                    losses.append(loss.detach())
                number += 1
        expected = {"logits": logits, "image_features": torch.cat(one_by_one)}
        if gradients:
            named = self.model.named_parameters()
            expected["loss"] = torch.stack(losses).sum()
            expected["gradients"] = {
                name: value.grad.clone() for name, value in named if value.grad is not None
            }
        self.model.zero_grad(set_to_none=True)
        return expected

    def on_device(self, dtype: torch.dtype = torch.float32) -> BirdForConditionalGeneration:
        """The same weights on the device; the configuration is a copy, because it says how to attend."""
        model = make_model(
            copy.deepcopy(self.config), self.part.device, dtype
        )  # `to(dtype)` would round RoPE too
        model.load_state_dict(self.model.state_dict())
        model.model.freeze_vision()
        return model


def computed(
    model: BirdForConditionalGeneration, batch: Batch, is_causal: bool = False, gradients: bool = True
) -> dict[str, Any]:
    """Logits of the whole sequence, image features, loss and gradients, on the CPU in float32."""
    batch = batch.to(model.device)
    with torch.no_grad():
        outputs = model(
            input_ids=batch.input_ids,
            pixel_values=batch.pixel_values,
            position_ids=batch.position_ids,
            use_cache=False,
            **batch.attention(is_causal),
        )
    found = {"logits": outputs.logits, "image_features": outputs.image_hidden_states}
    if gradients:
        loss = loss_of(model, batch, is_causal)
        loss.backward()
        named = model.named_parameters()
        found |= {"loss": loss.detach(), "gradients": {n: p.grad for n, p in named if p.grad is not None}}
        model.zero_grad(set_to_none=True)
    return {
        name: {n: g.float().cpu() for n, g in value.items()}
        if isinstance(value, dict)
        else value.float().cpu()
        for name, value in found.items()
    }


def compare(found: dict[str, Any], expected: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """Greatest absolute differences, padding left out, beside the greatest absolute value that was expected."""
    real = batch.turn_ids != PADDING
    report = {
        "logits": difference(found["logits"][real], expected["logits"][real]),
        "image_features": difference(found["image_features"], expected["image_features"]),
        "top1_agreement": float(
            (found["logits"].argmax(-1) == expected["logits"].argmax(-1))[real].float().mean()
        ),
    }
    if "loss" in found:
        report["loss"] = difference(found["loss"], expected["loss"])
        wanted = expected["gradients"]
        by_name = {name: difference(found["gradients"][name], wanted[name]) for name in wanted}
        worst = max(by_name, key=lambda name: by_name[name]["difference"])
        report["gradients"] = {
            "difference": by_name[worst]["difference"],
            "greatest": max(each["greatest"] for each in by_name.values()),
            "worst": worst,
            "parameters": len(by_name),
            "same_parameters": found["gradients"].keys() == wanted.keys(),
        }
    return report


def difference(found: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    return {
        "difference": float((found - expected).abs().max()),
        "greatest": float(expected.abs().max()),
    }


def attention_case(lazy: Lazy[Small], attention: str, dtype: torch.dtype) -> dict[str, Any]:
    """Packed turns under one implementation of attention. On a CPU flex attention has no backward pass."""
    small = lazy.get()
    model = small.on_device(dtype)
    model.set_attn_implementation(attention)
    with flex_on_cpu(small.part, attention) as is_cpu_flex:
        found = computed(model, small.batch, gradients=not is_cpu_flex)
    return compare(found, small.expected, small.batch)


def packing_case(
    lazy: Lazy[Small], attention: str, dtype: torch.dtype, autocast: bool = False
) -> dict[str, Any]:
    """Rows packed across images on the device against the same rows, one per sequence, on the CPU in float32.

    autocast: products in bf16, as a recipe with `bf16: true` computes them.
    """
    small = lazy.get()
    model = small.on_device(dtype)
    model.set_attn_implementation(attention)
    lowered = torch.autocast(small.part.device.type, torch.bfloat16, enabled=autocast)
    with lowered, flex_on_cpu(small.part, attention) as is_cpu_flex:
        found = computed(model, small.joined, gradients=not is_cpu_flex)
    expected = small.expected_of_packs(gradients=not is_cpu_flex)
    report = compare(found, expected, small.joined)
    return report | {"sequences": len(small.joined.input_ids), "rows": len(small.joined.pixel_values)}


@contextmanager
def flex_on_cpu(part: Part, attention: str) -> Iterator[bool]:
    """Whether flex attention runs on a CPU, where it is not compiled here."""
    is_cpu_flex = attention == "flex_attention" and part.device == CPU
    with torch.compiler.set_stance("force_eager") if is_cpu_flex else nullcontext():
        yield is_cpu_flex


def flash_case(lazy: Lazy[Small]) -> dict[str, Any]:
    """Flash attention takes no dense mask: rows of one turn, padded, in bf16."""
    small = lazy.get()
    expected = computed(small.model, small.plain, is_causal=True, gradients=False)
    model = small.on_device(torch.bfloat16)
    model.set_attn_implementation("flash_attention_2")
    return compare(computed(model, small.plain, is_causal=True, gradients=False), expected, small.plain)


def generation_case(lazy: Lazy[Small], smoothing: float, dtype: torch.dtype) -> dict[str, Any]:
    """Greedy tokens with a cache and pixels. With smoothing the prompt ends inside a box, where it acts."""
    small = lazy.get()
    prompt = torch.cat(
        [
            small.plain.input_ids[:, : int((small.plain.turn_ids == 0).sum(-1).min())],
            torch.tensor(small.config.box_token_ids[:1]).expand(len(small.plain.input_ids), 1),
        ],
        dim=1,
    )
    answers = []
    for model in (small.model, small.on_device(dtype)):
        model.config.coordinate_smoothing_sigma = smoothing
        output = model.generate(
            input_ids=prompt.to(model.device),
            pixel_values=small.plain.pixel_values.to(model.device, dtype),
            do_sample=False,
            min_new_tokens=16,
            max_new_tokens=16,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        new = output.sequences[:, prompt.shape[1] :].cpu()
        answers.append((new, output.scores[0].float().cpu()))
    (wanted, wanted_scores), (found, scores) = answers
    known = wanted_scores.isfinite()
    return {
        "tokens": wanted.numel(),
        "equal_tokens": int((wanted == found).sum()),
        "rows": len(wanted),
        "equal_rows": int((wanted == found).all(-1).sum()),
        "numbers_among_tokens": int((wanted >= small.config.coordinate_token_runs[0][0]).sum()),
        "first_tokens_apart": int((found[:, 0] - wanted[:, 0]).abs().max()),
        "first_scores": difference(scores[known], wanted_scores[known]),
    }


def golden_model(folder: Path) -> BirdForConditionalGeneration:
    """The tiny checkpoint in Qwen-VL's layout, converted, in float32 on the CPU."""
    from bird_hf.convert import convert

    convert(GOLDEN, folder / "bird")
    return BirdForConditionalGeneration.from_pretrained(folder / "bird", dtype=torch.float32).eval()


def golden_case(part: Part) -> dict[str, Any]:
    """The device against what the original Qwen-VL code computed in float32."""
    expected = np.load(GOLDEN / "expected.npz")
    with tempfile.TemporaryDirectory() as folder:
        model = golden_model(Path(folder)).to(part.device)
    pixels = BirdImageProcessor()(Image.open(GOLDEN / "image.png").convert("RGB"), return_tensors="pt")
    report = {}
    for name in ("one_image",) if part.tiny else ("one_image", "two_images", "text_only"):
        ids = torch.tensor(expected[f"{name}.input_ids"])
        starts = (ids[0] == _GOLDEN_START).nonzero().flatten().tolist()
        for start in starts:
            ids[0, start + 1 : start + 257] = _GOLDEN_SLOT
        given = {"pixel_values": pixels["pixel_values"].repeat(len(starts), 1, 1, 1)} if starts else {}
        inputs = {key: value.to(part.device) for key, value in ({"input_ids": ids} | given).items()}
        with torch.no_grad():
            logits = model(**inputs).logits[:, ::16].float().cpu()
        report[name] = difference(logits, torch.tensor(expected[f"{name}.logits"]))
    return report


def nano_case(part: Part, dtype: torch.dtype) -> dict[str, Any]:
    """Answers of the embedded checkpoint about phantoms: how many are the CPU's, letter by letter."""
    from bird_hf.data.phantoms import draw_phantom
    from bird_hf.data.records import Modality
    from bird_hf.inference import Query, load

    queries = []
    for number, modality in enumerate(list(Modality)[: 1 if part.tiny else 8]):
        image = draw_phantom(modality, SEED + number, 192)
        pixels = Image.fromarray(image.pixels)
        names = dict.fromkeys(label for label, _ in image.masks)
        queries += [Query(f"Where is the {name}?", pixels) for name in list(names)[: 1 if part.tiny else 3]]
    answers = []
    for device, kind in ((CPU, torch.float32), (part.device, dtype)):
        answers.append(load(NANO, dtype=kind, device_map=device).generate(queries))
    wanted, found = answers
    different = [pair for pair in zip(wanted, found, strict=True) if pair[0] != pair[1]]
    apart = [numbers_apart(*pair) for pair in different]
    return {
        "answers": len(wanted),
        "different": len(different),
        "with_a_box": sum("<box>" in answer for answer in wanted),
        "different_in_words": apart.count(None),
        "numbers_apart": max((each for each in apart if each is not None), default=0),
        "examples": [{"cpu": one, "device": other} for one, other in different[:3]],
    }


def numbers_apart(one: str, other: str) -> int | None:
    """The greatest difference of a number in two answers, in thousandths; None if they differ in more than numbers."""
    if re.sub(r"\d+", "0", one) != re.sub(r"\d+", "0", other):
        return None
    pairs = zip(re.findall(r"\d+", one), re.findall(r"\d+", other), strict=True)
    return max(abs(int(a) - int(b)) for a, b in pairs)


def run(part: Part) -> None:
    torch.set_float32_matmul_precision("highest")  # no tf32
    small = Lazy(partial(Small, part))
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for attention in ("sdpa", "eager", "flex_attention"):
            part.measure(
                f"{attention}_{name}",
                partial(attention_case, small, attention, dtype),
            )
            part.measure(f"across_images_{attention}_{name}", partial(packing_case, small, attention, dtype))
        if dtype == torch.float32:
            part.measure(
                "across_images_flex_attention_autocast",
                partial(packing_case, small, "flex_attention", dtype, autocast=True),
            )
        part.measure(f"generate_{name}", partial(generation_case, small, 0.0, dtype))
        part.measure(
            f"generate_with_smoothing_{name}",
            partial(generation_case, small, 20.0, dtype),
        )
        part.measure(f"bird_nano_{name}", partial(nano_case, part, dtype))
    if find_spec("flash_attn") is None or part.device == CPU:
        part.skip("flash_attention_2_bfloat16", "flash-attn is not installed, or there is no CUDA")
    else:
        part.measure("flash_attention_2_bfloat16", partial(flash_case, small))
    part.measure("qwen_vl_golden_float32", partial(golden_case, part))
