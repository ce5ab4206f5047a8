"""Qwen-VL's published weights -> a BiRD folder: renamed, un-fused, and written as safetensors.

The source is a folder of the original layout (`transformer.h.*`, `transformer.visual.*`). Tensors are read,
cut and written one shard at a time, so memory holds a shard and not the model.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import pickle
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig, Qwen2Tokenizer

from .checkpoint import copy_code
from .hub.configuration_bird import BirdConfig
from .hub.image_processing_bird import BirdImageProcessor
from .hub.modeling_bird import BirdForConditionalGeneration
from .hub.processing_bird import END_OF_TEXT, TURN_END, BirdProcessor, build_tokenizer

SHARD_NUMBERS = 2_000_000_000  # in one file: 4 GB in bfloat16
_MAX_NAMES = 5  # names that an error lists before it says how many more there are


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote. Without the source's `qwen.tiktoken` there is no tokenizer and processor."""

    path: Path
    num_parameters: int
    has_processor: bool


@dataclass(frozen=True)
class _Stored:
    """A tensor of the source, read when `read` is called."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


_Weights = dict[str, _Stored]


@dataclass(frozen=True)
class _Piece:
    """One tensor of ours, and how it is cut from one of the source."""

    target: str
    source: str
    cut: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.contiguous


def convert(src: str | os.PathLike[str], dst: str | os.PathLike[str]) -> Converted:
    """Convert a Qwen-VL folder into a BiRD folder `dst`, which must not hold anything yet.

    Raises ValueError, in one line, where the source is no Qwen-VL checkpoint, cannot be read safely, or its
    tensors are missing, unknown or misshapen. Nothing half-written is left behind.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise ValueError(f"{dst} exists already; give another folder or remove it")
    config = read_config(src)
    weights = _open_weights(src)
    pieces = list(_pieces(config))
    _check(weights, pieces, config, src)
    tokenizer = read_tokenizer(src / "qwen.tiktoken") if (src / "qwen.tiktoken").exists() else None
    if tokenizer and (found := tokenizer.convert_tokens_to_ids("<imgpad>")) != config.image_token_id:
        raise ValueError(
            f"{src}: qwen.tiktoken puts <imgpad> at {found}, config.json at {config.image_token_id}"
        )

    try:
        with _finished_or_nothing(dst) as folder:
            count = _write_weights(weights, pieces, config, folder)
            _write_rest(config, tokenizer, folder)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{dst} cannot be written ({error}); check space and permissions") from error
    return Converted(dst, count, tokenizer is not None)


@contextmanager
def _finished_or_nothing(dst: Path) -> Iterator[Path]:
    """A folder that becomes `dst` when all is written, and vanishes when anything fails."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{dst.name}-", dir=dst.parent))
    try:
        folder.chmod(0o755)  # mkdtemp makes it private
        yield folder
        folder.replace(dst)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_config(src: Path) -> BirdConfig:
    """The source's config.json in BiRD's terms."""
    path = src / "config.json"
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        return _config(source, source["visual"])
    except OSError as error:
        raise ValueError(f"{src} is not a checkpoint folder: {path.name} cannot be read") from error
    except KeyError as error:
        raise ValueError(f"{path} is not a Qwen-VL configuration: {error} is missing") from error
    except (ValueError, TypeError, ZeroDivisionError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a Qwen-VL configuration ({reason})") from error


def _config(source: dict[str, Any], visual: dict[str, Any]) -> BirdConfig:
    if source.get("rotary_pct", 1.0) != 1.0 or not source.get("no_bias", True):
        raise TypeError("partial rotary embeddings and biases are not Qwen-VL's")
    heads = source["num_attention_heads"]
    text = {
        "model_type": "qwen2",
        "vocab_size": source["vocab_size"],
        "hidden_size": source["hidden_size"],
        # Qwen counts gate and up projection together.
        "intermediate_size": source["intermediate_size"] // 2,
        "num_hidden_layers": source["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "rms_norm_eps": source["layer_norm_epsilon"],
        # Not max_position_embeddings: beyond 2048 Qwen scales in a way that is not reproduced here.
        "max_position_embeddings": source["seq_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(source["rotary_emb_base"])},
    }
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
    return BirdConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=visual["image_start_id"] + 2,  # <img>, </img>, <imgpad>
        tie_word_embeddings=source.get("tie_word_embeddings", False),
    )


def read_tokenizer(path: Path) -> Qwen2Tokenizer:
    """Qwen's tokenizer from its file of byte-pair ranks, with the control tokens behind them."""
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    except ValueError as error:
        raise ValueError(f"{path} is not a file of byte-pair ranks ({error})") from error
    letters = _letters_of_bytes()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spell(token): rank for token, rank in ranks.items()}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = _parents(token, ranks)
            merges.append((spell(left), spell(right)))
    return build_tokenizer(vocab, merges)


def _parents(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes `token`: byte-pair encoding by all lower ranks leaves just these."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        merged = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        at = merged.index(min(merged))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _letters_of_bytes() -> dict[int, str]:
    """The printable letter that byte-level tokenizers show for each byte: itself, or one from 256 upwards."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _open_weights(src: Path) -> _Weights:
    """Every tensor of the source by name."""
    if files := sorted(src.glob("*.safetensors")):
        weights: _Weights = {}
        for path in files:
            try:
                handle = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path} is not a readable safetensors file ({error})") from error
            for name in handle.keys():  # noqa: SIM118
                shape = tuple(handle.get_slice(name).get_shape())
                weights[name] = _Stored(shape, partial(handle.get_tensor, name))
        return weights
    if files := sorted(src.glob("pytorch_model*.bin")):
        tensors = {name: tensor for path in files for name, tensor in _load_pickle(path).items()}
        return {name: _Stored(tuple(tensor.shape), tensor.detach) for name, tensor in tensors.items()}
    raise ValueError(f"{src} is not a checkpoint folder: it has neither *.safetensors nor pytorch_model*.bin")


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Tensors only (`weights_only`): a pickle could otherwise run anything."""
    try:
        # Mapped, so that only what is cut comes into memory; files from before torch 1.6 are read whole.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} does not load as plain tensors; fetch a safetensors copy") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise ValueError(f"{path} does not hold a dictionary of tensors")
    return tensors


def _pieces(config: BirdConfig) -> Iterator[_Piece]:
    """Every tensor of the model and where it comes from."""
    yield _Piece("model.language_model.embed_tokens.weight", "transformer.wte.weight")
    yield _Piece("model.language_model.norm.weight", "transformer.ln_f.weight")
    if not config.tie_word_embeddings:
        yield _Piece("lm_head.weight", "lm_head.weight")
    for layer in range(config.text_config.num_hidden_layers):
        yield from _text_layer(f"model.language_model.layers.{layer}", f"transformer.h.{layer}")

    visual, tower = "transformer.visual", "model.vision_tower"
    yield _Piece(f"{tower}.patch_embedding.weight", f"{visual}.conv1.weight")
    yield _Piece(f"{tower}.position_embedding", f"{visual}.positional_embedding")
    yield from _linear(f"{tower}.pre_norm", f"{visual}.ln_pre")
    for block in range(config.vision_config.num_hidden_layers):
        heads = config.vision_config.num_attention_heads
        yield from _vision_block(f"{tower}.blocks.{block}", f"{visual}.transformer.resblocks.{block}", heads)

    resampler, pool = "model.resampler", f"{visual}.attn_pool"
    yield _Piece(f"{resampler}.query", f"{pool}.query")
    yield _Piece(f"{resampler}.positions", f"{pool}.pos_embed")
    yield _Piece(f"{resampler}.kv_proj.weight", f"{pool}.kv_proj.weight")
    yield from _linear(f"{resampler}.query_norm", f"{pool}.ln_q")
    yield from _linear(f"{resampler}.kv_norm", f"{pool}.ln_kv")
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            target, source = f"{resampler}.attention.{name}.{kind}", f"{pool}.attn.in_proj_{kind}"
            yield _Piece(target, source, _third(index))
    yield from _linear(f"{resampler}.attention.out_proj", f"{pool}.attn.out_proj")
    yield from _linear("model.projector.norm", f"{visual}.ln_post")
    yield _Piece("model.projector.linear.weight", f"{visual}.proj", lambda matrix: matrix.T.contiguous())


def _text_layer(ours: str, theirs: str) -> Iterator[_Piece]:
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            yield _Piece(f"{ours}.self_attn.{name}.{kind}", f"{theirs}.attn.c_attn.{kind}", _third(index))
    yield _Piece(f"{ours}.self_attn.o_proj.weight", f"{theirs}.attn.c_proj.weight")
    yield _Piece(f"{ours}.input_layernorm.weight", f"{theirs}.ln_1.weight")
    yield _Piece(f"{ours}.post_attention_layernorm.weight", f"{theirs}.ln_2.weight")
    yield _Piece(f"{ours}.mlp.gate_proj.weight", f"{theirs}.mlp.w2.weight")
    yield _Piece(f"{ours}.mlp.up_proj.weight", f"{theirs}.mlp.w1.weight")
    yield _Piece(f"{ours}.mlp.down_proj.weight", f"{theirs}.mlp.c_proj.weight")


def _vision_block(ours: str, theirs: str, heads: int) -> Iterator[_Piece]:
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            target, source = f"{ours}.attention.{name}.{kind}", f"{theirs}.attn.in_proj.{kind}"
            yield _Piece(target, source, _third_of_each_head(index, heads))
    yield from _linear(f"{ours}.attention.out_proj", f"{theirs}.attn.out_proj")
    yield from _linear(f"{ours}.attention_norm", f"{theirs}.ln_1")
    yield from _linear(f"{ours}.mlp_norm", f"{theirs}.ln_2")
    yield from _linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc")
    yield from _linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.c_proj")


def _linear(ours: str, theirs: str) -> Iterator[_Piece]:
    for kind in ("weight", "bias"):
        yield _Piece(f"{ours}.{kind}", f"{theirs}.{kind}")


def _third(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows laid out [queries; keys; values]."""
    return lambda fused: fused.chunk(3)[index].contiguous()


def _third_of_each_head(index: int, heads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows laid out (heads, 3, head_dim)."""
    return lambda fused: fused.unflatten(0, (heads, 3, -1))[:, index].flatten(0, 1).contiguous()


def _check(weights: _Weights, pieces: list[_Piece], config: BirdConfig, src: Path) -> None:
    """Every tensor is there, none is left over, and each is cut into the shape that the model has."""
    wanted = {piece.source for piece in pieces}
    # Rotary frequencies are computed, and only some versions stored them.
    known = {name for name in weights if not name.endswith("rotary_emb.inv_freq")}
    if missing := wanted - known:
        raise ValueError(f"{src} lacks {len(missing)} tensors: {_some(missing)}; is the download complete?")
    if unexpected := known - wanted:
        raise ValueError(f"{src} holds {len(unexpected)} tensors that are not Qwen-VL's: {_some(unexpected)}")
    with torch.device("meta"):
        model = BirdForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = []
    for piece in pieces:
        found = weights[piece.source].shape
        try:
            cut = tuple(piece.cut(torch.empty(found, device="meta")).shape)
        except (RuntimeError, IndexError):
            cut = ()
        if cut != shapes[piece.target]:
            wrong.append(f"{piece.source} is {found}, which does not make {shapes[piece.target]}")
    if wrong:
        raise ValueError(f"{src} has misshapen tensors: {_some(wrong)}")


def _some(names: set[str] | list[str]) -> str:
    shown = sorted(names)[:_MAX_NAMES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _write_weights(weights: _Weights, pieces: list[_Piece], config: BirdConfig, folder: Path) -> int:
    """Write all pieces, in several files where they are many; returns the number of parameters."""
    shards = _shards(weights, pieces)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    placed: dict[str, str] = {}
    num_parameters = num_bytes = 0
    for name, shard in zip(names, shards, strict=True):
        tensors = {piece.target: piece.cut(weights[piece.source].read()) for piece in shard}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        placed |= dict.fromkeys(tensors, name)
        num_parameters += sum(tensor.numel() for tensor in tensors.values())
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
        config.dtype = tensors[shard[0].target].dtype
    if len(shards) > 1:
        index = {"metadata": {"total_size": num_bytes}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return num_parameters


def _shards(weights: _Weights, pieces: list[_Piece]) -> list[list[_Piece]]:
    """Pieces in groups of at most `SHARD_NUMBERS`, or one larger piece alone."""
    shards: list[list[_Piece]] = [[]]
    room = SHARD_NUMBERS
    share = Counter(piece.source for piece in pieces)  # into how many pieces a source is cut
    for piece in pieces:
        size = math.prod(weights[piece.source].shape) // share[piece.source]
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD_NUMBERS
        shards[-1].append(piece)
        room -= size
    return shards


def _write_rest(config: BirdConfig, tokenizer: Qwen2Tokenizer | None, folder: Path) -> None:
    """Configuration, generation defaults and, with a tokenizer, the processor."""
    config.architectures = [BirdForConditionalGeneration.__name__]
    config.save_pretrained(folder)
    copy_code(folder)
    generation = GenerationConfig(do_sample=False, max_new_tokens=100)  # BiRD: greedy, at most 100 (MIA)
    if tokenizer:
        generation.pad_token_id = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        generation.eos_token_id = tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT])
        side = config.vision_config.image_size
        image_processor = BirdImageProcessor(size={"height": side, "width": side})
        BirdProcessor(image_processor, tokenizer, num_queries=config.num_queries).save_pretrained(folder)
    generation.save_pretrained(folder)
