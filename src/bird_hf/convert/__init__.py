"""Convert original weights to a BiRD checkpoint: tensors are renamed, split and written as sharded safetensors.

The source is a folder in Qwen-VL's layout, or a Qwen-7B folder and an OpenCLIP vision tower, which are joined by a
new resampler. Tensors are read, cut and written one at a time, so that neither the model nor a shard is in memory as a
whole. A conversion that was killed is resumed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import GenerationConfig

from ..atomic_writes import write_text
from ..checkpoint.load import copy_code
from ..checkpoint.model_card import read_origin, render_card
from ..hub.image_processing_bird import BirdImageProcessor
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import END_OF_TEXT, TURN_END, BirdProcessor
from ..progress import progress_bar
from .layouts import block_sizes
from .qwen_tokenizer import read_tokenizer
from .resumable_folder import check_space, resumable_folder
from .source_checkpoints import SourceCheckpoint, open_parts, open_qwen_vl
from .source_configs import read_config
from .weight_writer import Shard, plan_shards, write_index, write_shard

__all__ = ["Converted", "convert", "read_config", "read_tokenizer"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_OTHER_FILES = 32_000_000  # an upper limit of the bytes of tokenizer, code and model card


@dataclass(frozen=True)
class Converted:
    """The result of `convert`.

    blocks: stored parameters per block of the model. has_processor: False if the source has no `qwen.tiktoken`.
    remarks: what a user has to know about the model.
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
    """Convert a Qwen-VL folder to the BiRD checkpoint `dst`, which must not exist or be empty.

    vision: an OpenCLIP file or folder; `src` is then a Qwen-7B folder, and the two are joined by a new resampler.
    dtype: bfloat16, float16 or float32; by default that of the word embeddings. seed: of the new resampler.

    Raises ValueError, in one line, if a source has another layout or cannot be read safely, if tensors are missing,
    unknown or of a wrong shape, or if the disk is too small; no files are left then. A run that was killed is resumed
    by the next run with the same source.
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
        with resumable_folder(dst, f"{source.identity()} {name}") as folder:
            missing = [shard for shard in shards if not shard.is_complete(folder)]
            check_space(dst, sum(shard.size for shard in missing) + _OTHER_FILES)
            _write_other_files(source, made, folder)  # first, so that errors show before the long part
            _write_weights(shards, missing, source, folder)
    except OSError as error:
        raise ValueError(f"{dst} cannot be written ({error}); check space and permissions") from error
    return made


def _write_weights(shards: list[Shard], missing: list[Shard], source: SourceCheckpoint, folder: Path) -> None:
    """Write the missing shards, and the index of all."""
    total, to_write = (sum(shard.size for shard in group) for group in (shards, missing))
    with progress_bar(
        desc="converting", total=total, initial=total - to_write, unit="B", unit_scale=True
    ) as bar:
        for shard in missing:
            write_shard(shard, source.weights, folder, bar.update)
    write_index(shards, folder)


def _write_other_files(source: SourceCheckpoint, made: Converted, folder: Path) -> None:
    """Write configuration, code, generation defaults, licences, model card and, if there is a tokenizer, processor."""
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
    write_text(folder / "README.md", _card(source, made))


def _card(source: SourceCheckpoint, made: Converted) -> str:
    origin = read_origin(source.origin)
    limits = "".join(f"\n- {remark}" for remark in made.remarks)
    origin = replace(origin, limits=f"{origin.limits.rstrip()}\n- Stored as {made.dtype}.{limits}")
    return render_card(source.config, made.num_parameters, origin)
