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
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.image_processing_bird import BirdImageProcessor
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.hub.processing_bird import BirdProcessor
from bird_hf.train.collate import IGNORED, PREFIX, GroundingCollator, visibility
from bird_hf.train.from_scratch.tokenizer import train_tokenizer

ORIGINAL_LENGTH = 2048  # Qwen-VL pads every sample to it
TURNS = 5  # question-answer pairs of an image
_MULTIPLE = 64  # rows are padded to a multiple of this, which matrix units and flex attention's blocks like

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
    """Rows of packed turns (B, T); turn 0 is the shared prefix, -1 padding. Every row has one image."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    turns: torch.Tensor
    pixel_values: torch.Tensor  # (B, 3, S, S)
    pairs: int  # question-answer pairs

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
        return int(visibility(self.turns).sum())

    def mask(self, kind: str) -> torch.Tensor | BlockMask:
        """The attention mask: "dense" (B, 1, T, T) bool, "flex" a block mask, "causal" (B, T) for rows of one turn."""
        if kind == "flex":
            return block_mask(self.turns)
        return visibility(self.turns) if kind == "dense" else (self.turns >= PREFIX).long()

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return Batch(**moved, pairs=self.pairs)


def make_batch(
    rows: Sequence[dict[str, Any]], processor: BirdProcessor, config: BirdConfig, length: int | None = None
) -> Batch:
    """Pack rows with the collator, and pad them to `length`, or to the longest rounded up to a multiple of 64."""
    collator = GroundingCollator(processor)
    packed = [collator.pack(row) for row in rows]
    length = length or -(-max(len(row.input_ids) for row in packed) // _MULTIPLE) * _MULTIPLE

    def padded(values: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in values])

    side = config.vision_config.image_size
    return Batch(
        input_ids=padded([row.input_ids for row in packed], processor.tokenizer.pad_token_id),
        labels=padded([row.labels for row in packed], IGNORED),
        position_ids=padded([row.positions for row in packed], 0),
        turns=padded([row.turns for row in packed], -1),
        pixel_values=torch.randn(len(rows), 3, side, side, generator=torch.Generator().manual_seed(0)),
        pairs=sum(len(row["messages"]) // 2 for row in rows),
    )


def block_mask(turns: torch.Tensor) -> BlockMask:
    """What `visibility` says, as flex attention's blocks: turns (B, T)."""

    def sees(row: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
        turn = turns[row, key]
        return (query >= key) & ((turn == PREFIX) | (turn == turns[row, query]))

    batch, length = turns.shape
    return create_block_mask(sees, batch, None, length, length, device=turns.device)


def loss_of(
    model: BirdForConditionalGeneration, batch: Batch, mask: torch.Tensor | BlockMask
) -> torch.Tensor:
    """The training loss with the tower frozen: no graph there, and the head at supervised positions only."""
    base = model.model
    with torch.no_grad():
        patches = base.vision_tower(batch.pixel_values).last_hidden_state
    features = base.projector(base.resampler(patches))
    states = base(
        input_ids=batch.input_ids,
        image_features=features,
        attention_mask=mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    targets = batch.labels[:, 1:]
    kept = targets != IGNORED
    return F.cross_entropy(model.lm_head(states[:, :-1][kept]).float(), targets[kept])


def use_attention(model: BirdForConditionalGeneration, attention: str) -> str:
    """Set how the model attends; returns the kind of mask that packed rows need for it.

    Flex attention is for the language model: the tower and the resampler have no mask and stay with sdpa.
    """
    is_flex = attention == "flex_attention"
    model.set_attn_implementation("sdpa" if is_flex else attention)
    if is_flex:
        model.model.language_model.set_attn_implementation(attention)
    return "flex" if is_flex else "dense"
