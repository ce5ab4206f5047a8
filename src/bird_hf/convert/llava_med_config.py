"""Translate the configuration of LLaVA-Med to that of transformers' LLaVA.

What the fields of the original mean: `llava/model/` of https://github.com/microsoft/LLaVA-Med at commit 821e1c7
(`llava_arch.py`, `multimodal_projector/builder.py`), and `multimodal_encoder/clip_encoder.py` of its copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlavaConfig, MistralConfig

from .source_configs import named_errors, read_json
from .weight_reader import Weights

LLAVA_MED = "llava_mistral"  # the model type

_CLIP_HEAD = 64  # width of a head in all of OpenAI's CLIP towers
# Fields that MistralConfig has too, and that have to be there. Others keep the defaults that the class had when
# LLaVA-Med was published: those of today's class may differ.
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
_OLD_DEFAULTS = {"hidden_act": "silu", "sliding_window": 4096, "bos_token_id": 1, "eos_token_id": 2}
_FEATURES = {"patch": "default", "cls_patch": "full"}
_PADS = {"pad": True, "square": False, None: False}


@dataclass(frozen=True)
class LlavaMedSettings:
    """The configuration of a LLaVA-Med folder.

    text: fields of MistralConfig. tower: name of the vision tower. feature_width: of the tower's output. pads: whether
    pictures are padded to squares before they are resized.
    """

    path: Path
    text: dict[str, Any]
    tower: str
    feature_width: int
    select_layer: int
    select_strategy: str
    pads: bool

    def config(self, vision: CLIPVisionConfig, image_token_id: int, pad_token_id: int) -> LlavaConfig:
        """Returns the configuration of transformers' LLaVA, with room for the image token. Raises ValueError."""
        if vision.hidden_size != self.feature_width:
            raise ValueError(
                f"{self.path}: mm_hidden_size is {self.feature_width}, and the vision tower is {vision.hidden_size} "
                "wide; give the tower that the model was trained with"
            )
        layers = vision.num_hidden_layers
        if not -layers - 1 <= self.select_layer <= layers:
            raise ValueError(
                f"{self.path}: mm_vision_select_layer is {self.select_layer}; the tower has {layers} layers"
            )
        text = self.text | {"vocab_size": max(self.text["vocab_size"], image_token_id + 1)}
        patches = (vision.image_size // vision.patch_size) ** 2
        with named_errors(self.path, "LLaVA-Med"):
            return LlavaConfig(
                text_config=MistralConfig(**text, pad_token_id=pad_token_id),
                vision_config=vision,
                image_token_index=image_token_id,
                image_seq_length=patches + (self.select_strategy == "full"),
                projector_hidden_act="gelu",
                vision_feature_select_strategy=self.select_strategy,
                vision_feature_layer=self.select_layer,
                tie_word_embeddings=False,
            )


def read_settings(folder: Path) -> LlavaMedSettings:
    """Read config.json of a LLaVA-Med folder. Raises ValueError, in one line, if it holds what is not supported."""
    path = folder / "config.json"
    source = read_json(path)
    _check_supported(source, path)
    with named_errors(path, "LLaVA-Med"):
        text = {name: source[name] for name in _TEXT_FIELDS}
        text |= {name: source.get(name, value) for name, value in _OLD_DEFAULTS.items()}
        theta = float(source.get("rope_theta", 10_000.0))
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        return LlavaMedSettings(
            path,
            text,
            str(source["mm_vision_tower"]),
            int(source["mm_hidden_size"]),
            int(source["mm_vision_select_layer"]),
            _FEATURES[source.get("mm_vision_select_feature", "patch")],
            _PADS[source.get("image_aspect_ratio")],
        )


def _check_supported(source: dict[str, Any], path: Path) -> None:
    supported = {
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_vision_select_feature": (None, *_FEATURES),
        "image_aspect_ratio": tuple(_PADS),
        "mm_use_im_start_end": (None, False),
        "rope_scaling": (None,),
        "tie_word_embeddings": (None, False),
    }
    for field, values in supported.items():
        if (value := source.get(field)) not in values:
            known = ", ".join(str(each) for each in values if each is not None) or "none"
            raise ValueError(f"{path}: {field} is {value!r}, which is not supported ({known} is)")


def read_clip_config(folder: Path) -> CLIPVisionConfig:
    """Returns the vision part of a CLIP folder's configuration. Raises ValueError, in one line, if it has none."""
    path = folder / "config.json"
    source = read_json(path)
    with named_errors(path, "CLIP"):
        kind = source["model_type"]
        if kind not in ("clip", "clip_vision_model"):
            raise TypeError(f"its model type is {kind!r}")
        fields = source["vision_config"] if kind == "clip" else source
        return CLIPVisionConfig(**{name: value for name, value in fields.items() if name != "model_type"})


def clip_config_of(weights: Weights, prefix: str, settings: LlavaMedSettings) -> CLIPVisionConfig:
    """Returns the configuration of one of OpenAI's CLIP towers from the shapes of its tensors.

    prefix: of the names of its tensors. Raises ValueError, in one line, if the tower is not named as one of OpenAI's,
    since its number of heads and its activation do not follow from shapes.
    """
    if not Path(settings.tower).name.startswith("clip-vit-"):
        raise ValueError(
            f"{settings.path}: {settings.tower} is not one of OpenAI's CLIP towers; give its folder with --vision"
        )

    def shape(name: str, ndim: int) -> tuple[int, ...]:
        stored = weights.get(f"{prefix}{name}")
        if stored is None or len(stored.shape) != ndim:
            raise ValueError(f"{settings.path.parent} lacks {prefix}{name} or has it in another shape")
        return stored.shape

    width, channels, patch, _ = shape("embeddings.patch_embedding.weight", 4)
    places, _ = shape("embeddings.position_embedding.weight", 2)
    inner, _ = shape("encoder.layers.0.mlp.fc1.weight", 2)
    layers = f"{prefix}encoder.layers."
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(
            {name[len(layers) :].split(".")[0] for name in weights if name.startswith(layers)}
        ),
        num_attention_heads=max(1, width // _CLIP_HEAD),
        num_channels=channels,
        image_size=math.isqrt(places - 1) * patch,
        patch_size=patch,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
