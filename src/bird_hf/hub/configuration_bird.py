"""Configuration of a BiRD model: a vision tower with a resampler, and any causal language model.

The defaults are the paper's: ViT-bigG at 448 pixels, 256 queries, Qwen-7B (BiRD 4.1, arXiv 2308.12966).
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

# Qwen-7B in the terms of transformers' Qwen2, which computes the same up to 2048 tokens.
_QWEN_7B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

# Where transformers finds the classes in a folder that carries these files (`trust_remote_code=True`).
_AUTO_MAP = {
    "AutoConfig": "configuration_bird.BirdConfig",
    "AutoModel": "modeling_bird.BirdModel",
    "AutoModelForImageTextToText": "modeling_bird.BirdForConditionalGeneration",
}

# Keys of earlier configurations, and their new names; the others had no effect on a trained model.
_OLD_KEYS = {
    "box_smoothing": "coordinate_smoothing_sigma",
    "number_token_runs": "coordinate_token_runs",
    "resampler_identity_init": None,
    "resampler_focus": None,
}


@strict
class BirdVisionConfig(PreTrainedConfig):
    r"""The vision tower and the resampler behind it.

    Args:
        image_size: side of the square input in pixels, a multiple of `patch_size`.
        position_grid: side of the learned position table; it is resized if the image grid differs.
        intermediate_size: inner width of the MLPs.
        num_queries: image tokens per image, a square number.
        resampler_hidden_size: width of the queries, a multiple of 4 (two sines and cosines per axis).
    """

    model_type = "bird_vision"
    base_config_key = "vision_config"

    image_size: int = 448
    patch_size: int = 14
    num_channels: int = 3
    hidden_size: int = 1664
    intermediate_size: int = 8192  # int(1664 * 4.9231)
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    position_grid: int = 16
    num_queries: int = 256
    resampler_hidden_size: int = 4096
    resampler_num_attention_heads: int = 32
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_old_keys(kwargs)
        super().__post_init__(**kwargs)
        if math.isqrt(self.num_queries) ** 2 != self.num_queries:
            raise ValueError(f"num_queries is {self.num_queries}, but must be a square number (such as 64)")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads"
            )
        if self.resampler_hidden_size % 4 or self.resampler_hidden_size % self.resampler_num_attention_heads:
            raise ValueError(
                f"resampler_hidden_size {self.resampler_hidden_size} must be a multiple of 4 and of its "
                f"{self.resampler_num_attention_heads} heads"
            )

    @property
    def patch_grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


@strict
class BirdConfig(PreTrainedConfig):
    r"""A BiRD model.

    Args:
        vision_config: a `BirdVisionConfig` or its dict.
        text_config: the configuration of any causal language model or its dict (with `model_type`; without
            it the dict is read as Qwen2's). The default is Qwen-7B.
        image_token_id: the id of the image tokens (`<imgpad>`), whose embeddings image features replace.
        coordinate_smoothing_sigma: standard deviation, in thousandths, of the Gaussian over which the scores of
            coordinates are averaged while a box is generated; 0 leaves the scores unchanged. See `decoding_bird.py`.
            For tokenizers with one token for each coordinate from 0 to 1000.
        box_token_ids: ids of `<box>` and `</box>`; required for smoothing.
        coordinate_token_runs: first and last id of each run of consecutive ids; the runs together are the tokens of
            0 to 1000, in order; required for smoothing.
        label_names: for each modality, the names of the objects that the training data has boxes of, sorted; empty if
            they are not known, as after a conversion. `BirdProcessor` has a copy.
    """

    model_type = "bird"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": BirdVisionConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    _auto_class = "AutoConfig"  # saving copies this file into the folder

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 151859
    coordinate_smoothing_sigma: float = 0.0
    box_token_ids: list[int] | None = None
    coordinate_token_runs: list[list[int]] | None = None
    tie_word_embeddings: bool = False
    label_names: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_old_keys(kwargs)
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = BirdVisionConfig(**(self.vision_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            fields = dict(self.text_config or _QWEN_7B)
            self.text_config = AutoConfig.for_model(fields.pop("model_type", "qwen2"), **fields)
        super().__post_init__(**kwargs)
        self.auto_map = dict(_AUTO_MAP)

    @property
    def num_queries(self) -> int:
        """Image tokens per image."""
        return self.vision_config.num_queries


def _refuse_old_keys(keys: dict[str, Any]) -> None:
    """Raises ValueError if a configuration holds a key of an earlier version."""
    for old in keys.keys() & _OLD_KEYS.keys():
        new = _OLD_KEYS[old]
        raise ValueError(
            f"config.json has the old key {old}; {f'rename it to {new}' if new else 'remove it'}"
        )


__all__ = ["BirdConfig", "BirdVisionConfig"]
