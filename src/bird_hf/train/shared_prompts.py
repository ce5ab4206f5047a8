"""Computes the prompt of several sampled answers once, in sampling and in the loss of GRPO.

TRL repeats a prompt and its image for each of its answers. Here answers to one prompt are turns of a packed sequence:

    prompt without its last token | last token, answer 1 | last token, answer 2 | ...

so that each is computed as if it stood alone behind the prompt (see `bird_hf.hub.packed_attention`), and the first
token of an answer is predicted in its own turn. In sampling they start from copies of one cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..hub.configuration_bird import BirdConfig
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.packed_attention import PADDING, PREFIX
from .collate import padded

ROOM = 64  # tokens for which a cache has room at least, before it grows


def without_adapter(model: BirdForConditionalGeneration | PeftModel) -> BirdForConditionalGeneration:
    return model.get_base_model() if isinstance(model, PeftModel) else model


@dataclass
class Group:
    """The rows of a batch that have one prompt: its tokens, and the numbers of the rows."""

    prompt: list[int]
    images: list[int]  # numbers of the prompt's images in the batch
    rows: list[int] = field(default_factory=list)


def groups_of(
    prompts: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor | None, config: BirdConfig
) -> list[Group]:
    """The rows of a batch by prompt: tokens (B, P), mask (B, P) and the images (N, 3, S, S) of all rows in their order.

    Rows are of one group if their tokens and their images are equal.
    """
    tokens = [row[kept].tolist() for row, kept in zip(prompts.cpu(), mask.bool().cpu(), strict=True)]
    places = []
    if pixels is not None:
        first, place = distinct_images(pixels)
        places = first[place].tolist()
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Group] = {}
    start = 0
    for number, prompt in enumerate(tokens):
        end = start + prompt.count(config.image_token_id) // config.num_queries
        images, start = places[start:end], end
        group = found.setdefault((tuple(prompt), tuple(images)), Group(prompt, images))
        group.rows.append(number)
    return list(found.values())


def distinct_images(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct images of (N, 3, S, S): the numbers of D of them, and for each of the N which of the D it is."""
    flat, numbers = pixels.flatten(1).float(), torch.arange(len(pixels), device=pixels.device)
    sums = (flat * torch.linspace(1, 2, flat.shape[1], device=pixels.device)).sum(1)
    values, place = sums.unique(return_inverse=True)
    first = torch.full_like(values, len(pixels), dtype=torch.long).scatter_reduce_(0, place, numbers, "amin")
    # Images that differ may have equal sums.
    return (first, place) if torch.equal(pixels[first][place], pixels) else (numbers, numbers)


@dataclass(frozen=True)
class PackedAnswers:
    """Answers behind their prompts, a sequence for each prompt; G prompts, K tokens that are predicted in all.

    inputs: what the model takes, with `states_to_keep` (G, T) at the positions that predict. targets (K): the tokens
    predicted. rows, columns (K): the answer each belongs to, and its place in it.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor


def pack_answers(
    groups: Sequence[Group],
    answers: torch.Tensor,
    mask: torch.Tensor,
    pixels: torch.Tensor | None,
    pad_id: int,
) -> PackedAnswers:
    """Answers (B, C) with their mask, as sequences of their prompts."""
    written = [row[: int(length)] for row, length in zip(answers.tolist(), mask.sum(1).tolist(), strict=True)]
    ids, turns, positions, kept, places = [], [], [], [], []
    for group in groups:
        *prefix, last = group.prompt
        start = len(prefix)
        ids.append(prefix)
        turns.append([PREFIX] * start)
        positions.append([*range(start)])
        kept.append([False] * start)
        for turn, row in enumerate(group.rows, start=1):
            answer = written[row]
            ids[-1] += [last, *answer[:-1]] if answer else []
            turns[-1] += [turn] * len(answer)
            positions[-1] += range(start, start + len(answer))
            kept[-1] += [True] * len(answer)
            places += [(token, row, column) for column, token in enumerate(answer)]
    length, device = max(map(len, ids)), answers.device
    inputs = {
        "input_ids": padded(ids, pad_id, length),
        "turn_ids": padded(turns, PADDING, length),
        "position_ids": padded(positions, 0, length),
        "states_to_keep": padded(kept, 0, length).bool(),
    }
    inputs = {name: value.to(device) for name, value in inputs.items()}
    if pixels is not None:
        inputs["pixel_values"] = pixels[[number for group in groups for number in group.images]]
    targets, rows, columns = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 3).unbind(1)
    return PackedAnswers(inputs, targets, rows, columns)


@contextmanager
def each_prompt_once(model: BirdForConditionalGeneration | PeftModel) -> Iterator[None]:
    """Lets `generate` read each distinct prompt of a batch once; its answers go on from copies of the cache."""
    plain = without_adapter(model)
    generate = plain.generate

    def once(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        groups = groups_of(input_ids, attention_mask, pixel_values, plain.config)
        cache = _read_prompts(plain, groups, input_ids, attention_mask, pixel_values)
        return generate(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, **kwargs)

    plain.__dict__["generate"] = once
    try:
        yield
    finally:
        del plain.__dict__["generate"]  # the method of the class again


def _read_prompts(
    model: BirdForConditionalGeneration,
    groups: Sequence[Group],
    ids: torch.Tensor,
    mask: torch.Tensor,
    pixels: torch.Tensor | None,
) -> DynamicCache:
    """The cache of all prompts without their last token, a row for each row of the batch."""
    first = [group.rows[0] for group in groups]
    images = None if pixels is None else pixels[[number for group in groups for number in group.images]]
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model(
            input_ids=ids[first, :-1],
            attention_mask=mask[first, :-1],
            position_ids=(mask[first, :-1].cumsum(1) - 1).clamp(min=0),  # as `generate` counts them
            pixel_values=images,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    places = torch.empty(len(ids), dtype=torch.long)
    for number, group in enumerate(groups):
        places[group.rows] = number
    cache.layers = [RoomyLayer(layer.keys, layer.values, places.to(ids.device)) for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer with room for more, so that a token does not copy all that is cached.

    Under autocast keys come in float32, from their rotation, and attention casts them back in each step; here they
    are kept in the dtype of the values that come in.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> None:
        """keys, values: (G, heads, T, d). places: (B), which of the G each row of the cache begins with."""
        super().__init__()
        self.lazy_initialization(values, values)
        self.length = keys.shape[2]
        self.rooms = [self._room(each.shape, len(places), values) for each in (keys, values)]
        for room, known in zip(self.rooms, (keys, values), strict=True):
            room[:, :, : self.length] = known[places]
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values (B, heads, n, d), and gives all."""
        start, self.length = self.length, self.length + key_states.shape[2]
        self.rooms = [room.to(value_states.dtype) for room in self.rooms]  # in the first step, if at all
        for number, (room, new) in enumerate(zip(self.rooms, (key_states, value_states), strict=True)):
            if self.length > room.shape[2]:
                self.rooms[number] = self._room(
                    room.shape[:2] + (self.length, room.shape[3]), len(room), room
                )
                self.rooms[number][:, :, :start] = room[:, :, :start]
            self.rooms[number][:, :, start : self.length] = new
        self._show()
        return self.keys, self.values

    def _show(self) -> None:
        self.keys, self.values = (room[:, :, : self.length] for room in self.rooms)

    @staticmethod
    def _room(shape: Sequence[int], rows: int, like: torch.Tensor) -> torch.Tensor:
        _, heads, length, width = shape
        return like.new_empty(rows, heads, length + max(ROOM, length // 2), width)
