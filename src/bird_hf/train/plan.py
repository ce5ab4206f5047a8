"""`bird train --plan`: what a recipe costs, from configurations, lengths and formulas. No weights are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ..hub.configuration_bird import BirdConfig
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import BirdProcessor
from .any_vlm.config import METHOD as ANY_VLM
from .flops import Part, Parts, repeated_flops, training_flops
from .from_scratch.config import OWN_FIELDS, FromScratchConfig
from .layouts import PACKED, ROW, Layout, layouts
from .lengths import SAMPLED_ROWS, Lengths, estimated, exact, paper_lengths, read_lengths
from .memory import Setting, Weights, activation_bytes, full_settings, lora_settings, memory
from .mixture import Source, sources_of
from .packing import PAIRS
from .recipe import BirdSFTConfig, accumulation_steps, field_names, method_of, read_fields

PARTS = ("vision_tower", "resampler", "projector", "language_model")
USABLE = 0.95  # of a device's memory; the rest is for the CUDA context and fragmentation
# The layers that recipes/lora.yaml gives adapters.
_LORA_LAYERS = r".*language_model.*\.(q|k|v|o)_proj"


@dataclass(frozen=True)
class Hardware:
    """What a run may use.

    memory: of a device, in GB (1e9 bytes). tflops: peak of matrix products in bf16, of a device. utilisation: the share
    of it that the model's FLOPs reach, without those that checkpointing repeats.
    """

    devices: int = 8
    memory: float = 80
    tflops: float = 989  # NVIDIA H100 SXM, dense, by its data sheet
    utilisation: float = 0.35  # reached on one H100 by all but vision, packed: docs/train_on_gpus.md

    def __post_init__(self) -> None:
        if self.devices < 1 or min(self.memory, self.tflops) <= 0 or not 0 < self.utilisation <= 1:
            raise ValueError(
                f"{self}: devices, memory and tflops must be above 0, and utilisation a share, such as 0.35"
            )

    def hours(self, flops: float) -> float:
        return flops / (self.devices * self.tflops * 1e12 * self.utilisation) / 3600


def make_plan(arguments: Sequence[str], hardware: Hardware) -> dict[str, Any]:
    """The plan of `--config recipes/NAME.yaml [--field value ...]`, as `bird train --plan --json` prints it.

    Raises ValueError if a field is unknown, or if model, dataset or hardware cannot be used.
    """
    if method_of(arguments) == ANY_VLM:
        raise ValueError(
            "--plan counts the layers of BiRD; method any_vlm trains other models, so leave --plan out"
        )
    is_own = not field_names(arguments).isdisjoint(OWN_FIELDS)
    fields = read_fields(arguments, FromScratchConfig if is_own else BirdSFTConfig)
    config, model_source = _config(fields)
    sizes = _Sizes(config, fields)
    lengths = _lengths(fields, config)
    batch = fields["per_device_train_batch_size"]
    ways = layouts(lengths, batch, fields["max_length"])
    own = next(way for way in ways if way.name == (PACKED if fields["packing"] else ROW))
    return {
        "model": {"source": model_source, **sizes.table()},
        "data": _data(lengths),
        "hardware": asdict(hardware),
        "layouts": [_layout(way, config, sizes, hardware, lengths) for way in ways],
        "run": _run(fields, own, lengths, hardware, config, sizes),
        "memory": _settings(fields, own, hardware, config, sizes),
    }


class _Sizes:
    """Parameters of a model by part, counted on a model without storage, and how a recipe trains them."""

    def __init__(self, config: BirdConfig, fields: dict[str, Any]):
        with torch.device("meta"):
            model = BirdForConditionalGeneration(config)
        self.counts = dict.fromkeys(PARTS, 0)
        for name, value in model.named_parameters():
            self.counts[_part_of(name)] += value.numel()
        self.layer = max(sum(value.numel() for value in layer.parameters()) for layer in _layers(model))
        linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        self.quantizable = sum(m.weight.numel() for name, m in linear if name != "lm_head")
        self.is_lora = bool(fields["use_peft"])
        self.full = _full_parts(bool(fields["freeze_vision"]))
        self.lora = _lora_parts(linear, fields)

    @property
    def parts(self) -> Parts:
        return self.lora if self.is_lora else self.full

    def weights(self, parts: Parts) -> Weights:
        trained = {name: getattr(parts, name).trained for name in PARTS}
        whole = sum(self.counts[name] for name in PARTS if trained[name])
        adapters = sum(getattr(parts, name).adapter for name in PARTS)
        frozen = sum(self.counts.values()) - whole
        return Weights(frozen, min(self.quantizable, frozen), whole + adapters, self.layer)

    def table(self) -> dict[str, Any]:
        weights = self.weights(self.parts)
        shown = {
            name: {
                "parameters": self.counts[name],
                "trained": getattr(self.parts, name).trained,
                "adapter_parameters": getattr(self.parts, name).adapter,
            }
            for name in PARTS
        }
        return {"parts": shown, "trained": weights.trained, "frozen": weights.frozen}


def _part_of(name: str) -> str:
    return next((part for part in PARTS[:3] if name.startswith(f"model.{part}.")), PARTS[3])


def _layers(model: BirdForConditionalGeneration) -> list[nn.Module]:
    found = getattr(model.model.language_model, "layers", None)
    return list(found) if found is not None else [model.model.language_model]


def _full_parts(freeze_vision: bool) -> Parts:
    part = Part(trained=not freeze_vision)
    return Parts(vision_tower=part, projector=part)


def _lora_parts(linear: list[tuple[str, nn.Linear]], fields: dict[str, Any]) -> Parts:
    """LoRA as PEFT applies it: adapters at the recipe's layers (if it names none, those of recipes/lora.yaml)."""
    wanted = fields["lora_target_modules"] or _LORA_LAYERS
    adapters = dict.fromkeys(PARTS, 0)
    last = dict.fromkeys(PARTS, False)
    for name, module in linear:
        if name != "lm_head" and _is_target(name, wanted):
            last[_part_of(name)] |= name.endswith("down_proj")
            size = fields["lora_r"] * (module.in_features + module.out_features)
            adapters[_part_of(name)] += size
    if not any(adapters.values()):
        named = wanted if isinstance(wanted, str) else ", ".join(wanted)
        raise ValueError(f"lora_target_modules {named} matches no layer; see recipes/lora.yaml")
    return Parts(**{name: Part(False, count, last[name]) for name, count in adapters.items()})


def _is_target(name: str, wanted: str | Sequence[str]) -> bool:
    """By PEFT's rules: a text is a pattern of the whole name, a list holds ends of names."""
    if not isinstance(wanted, str) and len(wanted) == 1:
        (wanted,) = wanted
    if isinstance(wanted, str):
        return wanted == "all-linear" or re.fullmatch(wanted, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in wanted)


def _config(fields: dict[str, Any]) -> tuple[BirdConfig, str]:
    """The model's configuration, and where it is from."""
    if sizes := fields.get("new_model"):
        vocabulary = sizes["vocab_size"] + (1001 if sizes.get("coordinate_tokens") else 0)
        text = sizes["text_config"] | {"vocab_size": vocabulary}
        config = BirdConfig(
            vision_config=dict(sizes["vision_config"]),
            text_config=text,
            tie_word_embeddings=bool(text.get("tie_word_embeddings")),
        )
        return config, "new_model of the recipe"
    name = fields["model_name_or_path"]
    if not name:
        raise ValueError("the recipe sets neither model_name_or_path nor new_model; set one of them")
    if not Path(name).is_dir():
        return BirdConfig(), f"{name} is not here; assumed: the paper's sizes (ViT-bigG, Qwen-7B; BiRD 4.1)"
    try:
        held = json.loads(Path(name, "config.json").read_text(encoding="utf-8"))
        if held.get("model_type") != BirdConfig.model_type:
            raise ValueError(f"its model_type is {held.get('model_type')!r}")
        return BirdConfig.from_pretrained(name), f"{name}/config.json"
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{name} holds no configuration of BiRD ({error}); see `bird convert`") from error


def _lengths(fields: dict[str, Any], config: BirdConfig) -> Lengths:
    """Of the recipe's dataset if it is here, by the model's tokenizer if that is here."""
    script = SimpleNamespace(**fields)
    sources = sources_of(script, script)
    if not sources and fields["dataset_name"]:
        sources = [
            Source(fields["dataset_name"], fields["dataset_config"], fields["dataset_train_split"], None)
        ]
    missing = [source.path for source in sources if not Path(source.path).is_dir()]
    if missing or not sources:
        return paper_lengths(config.num_queries, f"{', '.join(missing) or 'the dataset'} is not here")
    model = fields["model_name_or_path"]
    if model and Path(model, "tokenizer.json").is_file():
        measure = exact(BirdProcessor.from_pretrained(model), fields["max_turns"])
        how = f"by the tokenizer of {model}"
    else:
        measure = estimated(config.num_queries, fields["max_turns"])
        how = "estimated, within a tenth of Qwen's tokenizer: the model's is not here"
    found = [read_lengths(Path(source.path), source.name, source.split, measure) for source in sources]
    mixed = _mixed(found, [source.weight for source in sources])
    return Lengths(mixed.rows, mixed.total, f"{mixed.source}; tokens {how}", mixed.assumed)


def _mixed(found: Sequence[Lengths], weights: Sequence[float | None]) -> Lengths:
    """An epoch of several datasets as `mixture.mixed_rows` draws it, its rows standing for as many each."""
    if len(found) == 1:
        return found[0]
    given = [weight for weight in weights if weight is not None]
    drawn = given or [float(each.total) for each in found]
    shares = [weight / sum(drawn) for weight in drawn]
    total = max(each.total / share for each, share in zip(found, shares, strict=True))
    rows = [
        row
        for each, share in zip(found, shares, strict=True)
        for row in islice(cycle(each.rows), max(1, round(share * SAMPLED_ROWS)))
    ]
    return Lengths(tuple(rows), round(total), "; ".join(each.source for each in found))


def _pairs(lengths: Lengths) -> float:
    return lengths.total * sum(len(row.turns) for row in lengths.rows) / len(lengths.rows)


def _data(lengths: Lengths) -> dict[str, Any]:
    tokens = sorted(row.tokens for row in lengths.rows)
    return {
        "source": lengths.source,
        "assumed": lengths.assumed,
        "rows": lengths.total,
        "measured_rows": len(tokens),
        "pairs": round(_pairs(lengths)),
        "tokens_per_row": {
            "mean": sum(tokens) / len(tokens),
            "median": tokens[len(tokens) // 2],
            "longest": tokens[-1],
        },
    }


def _layout(
    way: Layout, config: BirdConfig, sizes: _Sizes, hardware: Hardware, lengths: Lengths
) -> dict[str, Any]:
    flops = training_flops(config, way.work, sizes.parts)
    hours = hardware.hours(flops)
    return {
        "name": way.name,
        "sequences": round(way.sequences),
        "images": round(way.work.images),
        "tokens": round(way.work.tokens),
        "supervised_tokens": round(way.work.supervised),
        "padding_share": way.padding,
        "flops_per_epoch": flops,
        "repeated_flops_per_epoch": repeated_flops(config, way.work, sizes.parts),
        "hours_per_epoch": hours,
        "pairs_per_second": _pairs(lengths) / hours / 3600,
    }


def _batch_of(
    fields: dict[str, Any], own: Layout, lengths: Lengths, hardware: Hardware
) -> tuple[int, int, float]:
    """Rows of a step (or pairs, as `global_batch_unit` says), gradient accumulation, and rows of an epoch."""
    batch, wanted = fields["per_device_train_batch_size"], fields["global_batch_size"]
    accumulated = fields["gradient_accumulation_steps"]
    if own.name == PACKED:  # a step packs its rows into as many sequences as they need
        in_pairs = fields["global_batch_unit"] == PAIRS
        per_epoch = _pairs(lengths) if in_pairs else lengths.total
        return wanted or batch * accumulated * hardware.devices, 1, per_epoch
    if wanted is not None:
        accumulated = accumulation_steps(wanted, batch, hardware.devices)
    return batch * accumulated * hardware.devices, accumulated, own.sequences


def _run(
    fields: dict[str, Any],
    own: Layout,
    lengths: Lengths,
    hardware: Hardware,
    config: BirdConfig,
    sizes: _Sizes,
) -> dict[str, Any]:
    """Steps, epochs and hours of the recipe as it is."""
    rows, accumulated, per_epoch = _batch_of(fields, own, lengths, hardware)
    if fields["max_steps"] > 0:
        steps = fields["max_steps"]
        epochs = steps * rows / per_epoch
    else:
        epochs = float(fields["num_train_epochs"])
        steps = max(1, round(epochs * per_epoch / rows))
    flops = epochs * training_flops(config, own.work, sizes.parts)
    return {
        "layout": own.name,
        "epochs": epochs,
        "steps": steps,
        "rows_per_step": rows,
        "gradient_accumulation_steps": accumulated,
        "checkpointing": bool(fields["gradient_checkpointing"]),
        "flops": flops,
        "hours": hardware.hours(flops),
        "device_hours": hardware.hours(flops) * hardware.devices,
    }


def _settings(
    fields: dict[str, Any], own: Layout, hardware: Hardware, config: BirdConfig, sizes: _Sizes
) -> list[dict[str, Any]]:
    """Memory of a device and hours of an epoch for each way of training."""
    ways: list[tuple[Setting, Parts]] = []
    if not sizes.is_lora:
        ways += [(setting, sizes.full) for setting in full_settings("8bit" in str(fields["optim"]))]
    ways += [(setting, sizes.lora) for setting in lora_settings(nested=fields["use_bnb_nested_quant"])]
    found = []
    for setting, parts in ways:
        shown: dict[str, Any] = {"setting": setting.name}
        for name, checkpointing in (("without_checkpointing", False), ("checkpointing", True)):
            kept = activation_bytes(config, own.largest, parts, checkpointing, setting.autocast)
            device = memory(setting, sizes.weights(parts), kept, hardware.devices)
            fits = device.total <= USABLE * hardware.memory * 1e9
            shown[name] = {**asdict(device), "total": device.total, "fits": fits}
        shown["hours_per_epoch"] = hardware.hours(training_flops(config, own.work, parts))
        found.append(shown)
    return found
