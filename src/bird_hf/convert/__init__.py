"""Convert original weights to a checkpoint of today: tensors are renamed, split and written as sharded safetensors.

A folder in Qwen-VL's layout gives a BiRD checkpoint, as does a Qwen-7B folder with an OpenCLIP vision tower, which are
joined by a new resampler. A folder in LLaVA-Med's layout gives one of transformers' LLaVA. Tensors are read, cut and
written one at a time, so that neither the model nor a shard is in memory as a whole. A conversion that was killed is
resumed.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..progress import progress_bar
from .llava_med_checkpoint import open_llava_med
from .llava_med_config import LLAVA_MED
from .original import Converted, OriginalCheckpoint
from .qwen_tokenizer import read_tokenizer
from .resumable_folder import check_space, resumable_folder
from .source_checkpoints import open_parts, open_qwen_vl
from .source_configs import read_config, read_model_type
from .weight_writer import Shard, plan_shards, write_index, write_shard

__all__ = ["Converted", "convert", "read_config", "read_tokenizer"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_OTHER_FILES = 32_000_000  # an upper limit of the bytes of tokenizer, code and model card


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    vision: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Converted:
    """Convert a Qwen-VL folder to a BiRD checkpoint, or a LLaVA-Med folder to one of transformers' LLaVA.

    dst: must not exist or be empty. vision: with a LLaVA-Med folder a CLIP folder, whose vision tower is taken.
    Otherwise an OpenCLIP file or folder; `src` is then a Qwen-7B folder, and the two are joined by a new resampler.
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
    source = _open(src, None if vision is None else Path(vision), seed)
    written = _DTYPES[dtype] if dtype else source.dtype
    name = str(written).removeprefix("torch.")
    made = Converted(dst, source.blocks(), name, source.has_processor, source.remarks)
    shards = plan_shards(source.pieces, source.shapes, written)
    try:
        with resumable_folder(dst, f"{source.identity()} {name}") as folder:
            missing = [shard for shard in shards if not shard.is_complete(folder)]
            check_space(dst, sum(shard.size for shard in missing) + _OTHER_FILES)
            source.write_other_files(made, folder)  # first, so that errors show before the long part
            _write_weights(shards, missing, source, folder)
            source.check_opens(folder)
    except OSError as error:
        raise ValueError(f"{dst} cannot be written ({error}); check space and permissions") from error
    return made


def _open(src: Path, vision: Path | None, seed: int) -> OriginalCheckpoint:
    if read_model_type(src) == LLAVA_MED:
        return open_llava_med(src, vision)
    return open_qwen_vl(src) if vision is None else open_parts(src, vision, seed)


def _write_weights(
    shards: list[Shard], missing: list[Shard], source: OriginalCheckpoint, folder: Path
) -> None:
    """Write the missing shards, and the index of all."""
    total, to_write = (sum(shard.size for shard in group) for group in (shards, missing))
    with progress_bar(
        desc="converting", total=total, initial=total - to_write, unit="B", unit_scale=True
    ) as bar:
        for shard in missing:
            write_shard(shard, source.weights, folder, bar.update)
    write_index(shards, folder)
