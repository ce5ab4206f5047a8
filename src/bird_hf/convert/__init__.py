"""Original weights -> a BiRD folder: renamed, un-fused, and written as sharded safetensors.

Two sources are read: a folder in Qwen-VL's layout, or a Qwen-7B folder and an OpenCLIP vision tower, between which a
new resampler is put. Tensors are read, cut and written one at a time, so memory holds neither a model nor a shard; a
killed conversion goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from ..checkpoint.load import copy_code
from ..checkpoint.model_card import read_origin, render_card
from ..hub.image_processing_bird import BirdImageProcessor
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import END_OF_TEXT, TURN_END, BirdProcessor
from .layouts import block_sizes
from .shards import Shard, plan_shards, write_index, write_shard
from .source_configs import read_config
from .sources import Source, open_parts, open_qwen_vl
from .tokenizer import read_tokenizer
from .unfinished import check_space, unfinished_folder

__all__ = ["Converted", "convert", "read_config", "read_tokenizer"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_REST = 32_000_000  # bytes that tokenizer, code and card surely fit in


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote: stored numbers by block of the model, and what must be known of it.

    Without the source's `qwen.tiktoken` there is no tokenizer and processor.
    """

    path: Path
    blocks: dict[str, int]
    dtype: str
    has_processor: bool
    remarks: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        return sum(self.blocks.values())


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    vision: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Converted:
    """Convert a Qwen-VL folder into a BiRD folder `dst`, which must not hold anything yet.

    vision: an OpenCLIP file or folder; `src` is then a Qwen-7B folder, and the two are joined by a resampler that is
    drawn by `seed`. dtype: bfloat16, float16 or float32; that of the word embeddings unless given.

    Raises ValueError, in one line, where a source is not of its layout, cannot be read safely, its tensors are
    missing, unknown or misshapen, or the disk is short. Then nothing is left behind. A run that was killed is
    continued by the next of the same source.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise ValueError(f"{dst} exists already; give another folder or remove it")
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; use {', '.join(_DTYPES)}")
    source = open_qwen_vl(src) if vision is None else open_parts(src, Path(vision), seed)
    written = _DTYPES[dtype] if dtype else source.dtype
    name = str(written).removeprefix("torch.")
    made = Converted(dst, block_sizes(source.shapes), name, source.tokenizer is not None, source.remarks)
    shards = plan_shards(source.pieces, source.shapes, written)
    try:
        with unfinished_folder(dst, f"{source.identity()} {name}") as folder:
            rest = [shard for shard in shards if not shard.is_whole(folder)]
            check_space(dst, sum(shard.size for shard in rest) + _REST)
            _write_rest(source, made, folder)  # first: what is wrong with it shows in seconds
            _write_weights(shards, rest, source, folder)
    except OSError as error:
        raise ValueError(f"{dst} cannot be written ({error}); check space and permissions") from error
    return made


def _write_weights(shards: list[Shard], rest: list[Shard], source: Source, folder: Path) -> None:
    """Write those files that are not there yet, and the index of all."""
    total, missing = (sum(shard.size for shard in group) for group in (shards, rest))
    with tqdm(desc="converting", total=total, initial=total - missing, unit="B", unit_scale=True) as bar:
        for shard in rest:
            write_shard(shard, source.weights, folder, bar.update)
    write_index(shards, folder)


def _write_rest(source: Source, made: Converted, folder: Path) -> None:
    """Configuration, code, generation defaults, licences, card and, with a tokenizer, the processor."""
    config = source.config
    config.architectures = [BirdForConditionalGeneration.__name__]
    config.dtype = made.dtype
    config.save_pretrained(folder)
    copy_code(folder)
    generation = GenerationConfig(do_sample=False, max_new_tokens=100)  # BiRD: greedy, at most 100 (MIA)
    if tokenizer := source.tokenizer:
        generation.pad_token_id = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        generation.eos_token_id = tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT])
        side = config.vision_config.image_size
        image_processor = BirdImageProcessor(size={"height": side, "width": side})
        BirdProcessor(image_processor, tokenizer, num_queries=config.num_queries).save_pretrained(folder)
    generation.save_pretrained(folder)
    for licence in (*source.folder.glob("LICENSE*"), *source.folder.glob("NOTICE*")):
        if licence.is_file():
            shutil.copyfile(licence, folder / licence.name)
    (folder / "README.md").write_text(_card(source, made), encoding="utf-8")


def _card(source: Source, made: Converted) -> str:
    origin = read_origin(source.origin)
    limits = "".join(f"\n- {remark}" for remark in made.remarks)
    origin = replace(origin, limits=f"{origin.limits.rstrip()}\n- Stored as {made.dtype}.{limits}")
    return render_card(source.config, made.num_parameters, origin)
