"""Translate the configurations of Qwen-VL, Qwen-7B and OpenCLIP to a BirdConfig."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..hub.configuration_bird import BirdConfig
from .weight_reader import Weights

_IMAGE_SIZE = 448  # BiRD's; the position table of an OpenCLIP tower of another image size is resized
_VIT_BIGG_WIDTH, _VIT_BIGG_HEAD = 1664, 104
_OPEN_CLIP_EPS = 1e-5


def read_model_type(src: Path) -> str | None:
    """Returns the model type in a folder's config.json; None if it has none."""
    path = src / "config.json"
    return read_json(path).get("model_type") if path.is_file() else None


def read_config(src: Path) -> BirdConfig:
    """Returns the configuration of a Qwen-VL folder. Raises ValueError, in one line, if it is not a Qwen-VL folder."""
    path = src / "config.json"
    source = read_json(path)
    with named_errors(path, "Qwen-VL"):
        visual = source["visual"]
        vision = {
            "image_size": visual["image_size"],
            "patch_size": visual["patch_size"],
            "hidden_size": visual["width"],
            "intermediate_size": int(visual["width"] * visual["mlp_ratio"]),
            "num_hidden_layers": visual["layers"],
            "num_attention_heads": visual["heads"],
            "num_queries": visual.get("n_queries", 256),
            "resampler_hidden_size": visual["output_dim"],
            "resampler_num_attention_heads": visual["output_dim"] // 128,
        }
        # <img>, </img>, <imgpad>
        return _config(source, vision, {"image_token_id": visual["image_start_id"] + 2})


def assembled_config(src: Path, tower: dict[str, Any], image_token_id: int | None) -> BirdConfig:
    """Returns the configuration of a Qwen-7B language model with a vision transformer (`read_tower`).

    The resampler is as wide as the language model. image_token_id: None if the folder has no tokenizer; the id is then
    Qwen-VL's. Raises ValueError, in one line, if `src` is not a Qwen-7B folder.
    """
    path = src / "config.json"
    source = read_json(path)
    if "visual" in source:
        raise ValueError(f"{path} has a vision tower already; convert {src} without --vision")
    with named_errors(path, "Qwen-7B"):
        width = source["hidden_size"]
        resampler = {"resampler_hidden_size": width, "resampler_num_attention_heads": max(1, width // 128)}
        token = {} if image_token_id is None else {"image_token_id": image_token_id}
        return _config(source, tower | resampler, token)


def _config(source: dict[str, Any], vision: dict[str, Any], token: dict[str, int]) -> BirdConfig:
    if source.get("rotary_pct", 1.0) != 1.0 or not source.get("no_bias", True):
        raise TypeError("partial rotary embeddings and biases are not supported")
    heads = source["num_attention_heads"]
    text = {
        "model_type": "qwen2",
        "vocab_size": source["vocab_size"],
        "hidden_size": source["hidden_size"],
        # Qwen's number counts gate and up projection together.
        "intermediate_size": source["intermediate_size"] // 2,
        "num_hidden_layers": source["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "rms_norm_eps": source["layer_norm_epsilon"],
        # Not max_position_embeddings: the scaling that Qwen uses beyond 2048 tokens is not reproduced here.
        "max_position_embeddings": source["seq_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(source["rotary_emb_base"])},
    }
    tied = source.get("tie_word_embeddings", False)
    config = BirdConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **token)
    if config.image_token_id >= text["vocab_size"]:
        raise TypeError(
            f"the image token has id {config.image_token_id}, but the vocabulary has {text['vocab_size']} tokens; "
            "it needs room for Qwen-VL's control tokens"
        )
    return config


def read_tower(path: Path, weights: Weights) -> dict[str, Any]:
    """Returns `vision_config` for an OpenCLIP tower in the file or folder `path`, from the shapes of its tensors.

    The number of heads does not follow from the shapes: it is read from open_clip_config.json, or known for ViT-bigG.
    Raises ValueError, in one line, if the tensors are not those of an OpenCLIP vision transformer.
    """

    def shape(name: str, ndim: int) -> tuple[int, ...]:
        if name not in weights:
            raise ValueError(f"{path} is of an unknown layout: it has no {name}, as OpenCLIP's have")
        if len(found := weights[name].shape) != ndim:
            raise ValueError(f"{path} is not an OpenCLIP vision transformer: {name} has shape {found}")
        return found

    width, channels, patch, _ = shape("visual.conv1.weight", 4)
    places, _ = shape("visual.positional_embedding", 2)
    inner, _ = shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)
    blocks = {name.split(".")[3] for name in weights if name.startswith("visual.transformer.resblocks.")}
    settings_file = (path if path.is_dir() else path.parent) / "open_clip_config.json"
    if not settings_file.is_file() and width != _VIT_BIGG_WIDTH:
        raise ValueError(
            f"{path} is not a ViT-bigG, so its number of heads is read from {settings_file}; add that file"
        )
    settings = read_json(settings_file) if settings_file.is_file() else {}
    with named_errors(settings_file, "OpenCLIP"):
        model = settings["model_cfg"] if settings else {"vision_cfg": {"head_width": _VIT_BIGG_HEAD}}
        return {
            "image_size": _IMAGE_SIZE,
            "patch_size": patch,
            "num_channels": channels,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": len(blocks),
            "num_attention_heads": width // model["vision_cfg"].get("head_width", 64),
            "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
            "layer_norm_eps": _OPEN_CLIP_EPS,
            "position_grid": math.isqrt(places - 1),
        }


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object. Raises ValueError, in one line, if the file is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.parent} is not a checkpoint folder: {path.name} cannot be read") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a configuration ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a configuration: it is not a JSON object")
    return content


@contextmanager
def named_errors(path: Path, kind: str) -> Iterator[None]:
    """Re-raise the errors of missing fields and wrong types as a ValueError, in one line that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is not a {kind} configuration: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
        raise ValueError(f"{path} is not a {kind} configuration ({' '.join(str(error).split())})") from error
