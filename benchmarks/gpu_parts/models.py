"""Random models of the true and of a tiny size, and packed batches of made-up rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.packed_attention import BLOCK, PADDING, visibility
from bird_hf.hub.processing_bird import BirdProcessor
from bird_hf.train.collate import IGNORED, GroundingCollator
from bird_hf.train.from_scratch.tokenizer import train_tokenizer
from bird_hf.train.packing import best_fit_decreasing

ORIGINAL_LENGTH = 2048  # Qwen-VL pads every sample to it
TURNS = 5  # question-answer pairs of an image
_MULTIPLE = BLOCK  # sequences are padded to a multiple of flex attention's blocks

_TINY: dict[str, Any] = {
    "vision_config": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "position_grid": 4,
        "num_queries": 16,
        "resampler_hidden_size": 64,
        "resampler_num_attention_heads": 4,
    },
    "text_config": {
        "vocab_size": 1800,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
    },
}
# Of the parity part: float32 on a CPU must stay quick, and every head must be as wide as a GPU kernel wants.
_SMALL: dict[str, Any] = {
    "vision_config": {
        "image_size": 112,
        "patch_size": 14,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "position_grid": 8,
        "num_queries": 16,
        "resampler_hidden_size": 256,
        "resampler_num_attention_heads": 4,
    },
    "text_config": _TINY["text_config"]
    | {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_key_value_heads": 2},
}
# Of train_throughput.py: large enough that matrix products are most of the work, small enough for a CPU.
_MIDDLE: dict[str, Any] = {
    "vision_config": {
        "image_size": 448,
        "patch_size": 14,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "position_grid": 32,
        "num_queries": 256,
        "resampler_hidden_size": 512,
        "resampler_num_attention_heads": 8,
    },
    "text_config": {
        "vocab_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 2048,
    },
}
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "small": _SMALL,
    "middle": _MIDDLE,
    "full": {},
}  # full: BirdConfig's defaults

_PLACES = ("left kidney", "right lung", "liver", "spleen", "left ventricle", "aorta", "polyp", "optic disc")
_QUESTIONS = (
    ("Where is the {name} in this image?", "The {name} is at <ref>{name}</ref><box>{box}</box>."),
    ("Please locate the {name}.", "<ref>{name}</ref><box>{box}</box>"),
    ("What is the structure in <box>{box}</box>?", "This is the <ref>{name}</ref><box>{box}</box>."),
    (
        "Describe the region <box>{box}</box> of the image.",
        "The region shows the <ref>{name}</ref><box>{box}</box>, with a smooth margin and the density that is usual "
        "for it, next to tissue without findings.",
    ),
    (
        "Give a detailed analysis of this image.",
        "This is an axial CT image of the abdomen. The <ref>{name}</ref><box>{box}</box> lies on one side, and the "
        "<ref>{other}</ref><box>{box}</box> on the other. Both are of normal size, without signs of a lesion, and the "
        "structures around them keep their usual borders.",
    ),
)


def config(size: str, image_token_id: int = 0, **fields: Any) -> BirdConfig:
    """A configuration of a size: "tiny", "small", "middle" or "full"."""
    sizes = _SIZES[size]
    return BirdConfig(
        vision_config=dict(sizes.get("vision_config") or {}),
        text_config=dict(sizes["text_config"]) if sizes else None,
        image_token_id=image_token_id,
        **fields,
    )


@cache
def make_processor(size: str) -> BirdProcessor:
    """A processor whose small tokenizer has learnt the rows' words; its ids are the first of the model's vocabulary."""
    sizes = config(size)
    texts = [message["content"] for row in make_rows(200) for message in row["messages"]]
    tokenizer = train_tokenizer([*texts, "system\nYou are a helpful assistant.", "Picture 1: "], 1500)
    side = sizes.vision_config.image_size
    images = BirdImageProcessor(size={"height": side, "width": side})
    return BirdProcessor(images, tokenizer, num_queries=sizes.num_queries)


def make_model(
    config: BirdConfig, device: torch.device, dtype: torch.dtype, attention: str = "sdpa"
) -> BirdForConditionalGeneration:
    """Random weights, drawn on the device itself."""
    torch.manual_seed(0)
    with device:
        model = BirdForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
    return model.eval()


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as the collator reads them: an image with five independent turns, of the lengths of the paper's tasks."""
    draw = random.Random(seed)
    placeholder = Image.new("L", (1, 1))  # says that there is an image; pixel values are drawn on the device

    def box() -> str:
        x, y = draw.randrange(500), draw.randrange(500)
        return f"({x},{y}),({x + draw.randrange(1, 500)},{y + draw.randrange(1, 500)})"

    rows = []
    for number in range(count):
        messages = []
        for texts in draw.sample(_QUESTIONS, TURNS):
            fields = {"name": draw.choice(_PLACES), "other": draw.choice(_PLACES), "box": box()}
            roles = zip(("user", "assistant"), texts, strict=True)
            messages += [{"role": role, "content": text.format(**fields)} for role, text in roles]
        rows.append(
            {"image_id": str(number), "image": placeholder, "messages": messages, "independent": True}
        )
    return rows


def one_turn_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same turns, each as a row with its own copy of the image."""
    return [
        row | {"messages": row["messages"][start : start + 2]}
        for row in rows
        for start in range(0, len(row["messages"]), 2)
    ]


@dataclass(frozen=True)
class Batch:
    """Sequences (B, T) of one or more rows; turn 0 is the prefix of a row, -1 padding. Every row has one image."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    turn_ids: torch.Tensor
    row_ids: torch.Tensor
    pixel_values: torch.Tensor  # (rows, 3, S, S)
    pairs: int  # question-answer pairs

    def tokens_of_rows(self) -> tuple[torch.Tensor, ...]:
        """What describes each token, (B, T) each, in the order of the fields."""
        return self.input_ids, self.labels, self.position_ids, self.turn_ids, self.row_ids

    @property
    def tokens(self) -> int:
        """Padding counts: it is computed."""
        return self.input_ids.numel()

    @cached_property
    def supervised(self) -> int:
        return int((self.labels[:, 1:] != IGNORED).sum())

    @cached_property
    def visible(self) -> int:
        """Pairs of positions that attention needs."""
        return sum(
            int(visibility(*ids).sum())
            for ids in zip(self.turn_ids.split(1), self.row_ids.split(1), strict=True)
        )

    def attention(self, is_causal: bool = False) -> dict[str, torch.Tensor]:
        """What says who attends to whom: turns and rows, or (B, T) of rows of one turn, which need no more."""
        if is_causal:
            return {"attention_mask": (self.turn_ids != PADDING).long()}
        return {"turn_ids": self.turn_ids, "row_ids": self.row_ids}

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return Batch(**moved, pairs=self.pairs)


def make_batch(
    rows: Sequence[dict[str, Any]],
    processor: BirdProcessor,
    config: BirdConfig,
    length: int | None = None,
    pack_to: int | None = None,
) -> Batch:
    """One row per sequence, or rows packed into sequences of up to `pack_to` tokens.

    Sequences are padded to `length`, or to the longest rounded up to a multiple of 128.
    """
    collator = GroundingCollator(processor, multiple=length or _MULTIPLE)
    packed = [collator.pack(row) for row in rows]
    sequences = [[row] for row in packed]
    if pack_to is not None:
        bins = best_fit_decreasing([len(row.input_ids) for row in packed], pack_to)
        sequences = [[packed[place] for place in places] for places in bins]
    batch = collator.batch(sequences)
    side = config.vision_config.image_size
    batch["pixel_values"] = torch.randn(len(rows), 3, side, side, generator=torch.Generator().manual_seed(0))
    return Batch(**batch, pairs=sum(len(row["messages"]) // 2 for row in rows))


def loss_of(model: BirdForConditionalGeneration, batch: Batch, is_causal: bool = False) -> torch.Tensor:
    """The training loss, with the head at supervised positions only."""
    states = model.model(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        position_ids=batch.position_ids,
        use_cache=False,
        **batch.attention(is_causal),
    ).last_hidden_state
    targets = batch.labels[:, 1:]
    kept = targets != IGNORED
    return F.cross_entropy(model.lm_head(states[:, :-1][kept]).float(), targets[kept])
