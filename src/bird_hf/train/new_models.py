"""Models that do not exist yet: all of it random, or vision and resampler random before a language model that speaks.

Both come with a processor whose tokenizer knows BiRD's control tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..hub.configuration_bird import BirdConfig
from ..hub.grounding import BOX_CLOSE, BOX_OPEN
from ..hub.image_processing_bird import BirdImageProcessor
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import END_OF_TEXT, IMAGE_TOKEN, TURN_END, BirdProcessor, add_control_tokens
from .numbers import NUMBERS, number_ids, runs_of, start_alike
from .tokenizer import train_tokenizer

NewModel = tuple[BirdForConditionalGeneration, BirdProcessor]


def create_model(
    sizes: Mapping[str, Any], texts: Iterable[str], attn_implementation: str | None = None
) -> NewModel:
    """A model with random weights of the given sizes, and a tokenizer that learns its words from `texts`.

    sizes: `vision_config`, `text_config` and `vocab_size`; with `whole_numbers` 0 to 1000 are a token each, see
    `numbers.py`, and `box_smoothing` is how answers take them, see hub/decoding_bird.py. `word_bias` is added to the
    logits of words of one token (transformers' `sequence_bias`).
    """
    if missing := {"vision_config", "text_config", "vocab_size"} - sizes.keys():
        raise ValueError(f"new_model lacks {', '.join(sorted(missing))}; see recipes/nano.yaml")
    tokenizer = train_tokenizer(texts, sizes["vocab_size"], sizes.get("whole_numbers", False))
    text = {**_ids_of(tokenizer), "vocab_size": len(tokenizer), **sizes["text_config"]}
    model, processor = _assemble(text, sizes, tokenizer, attn_implementation)
    _start_numbers(model, tokenizer)
    return model, processor


def build_on(text_model: str, sizes: Mapping[str, Any], attn_implementation: str | None = None) -> NewModel:
    """A model around a language model that already speaks: its weights and tokenizer, all else random.

    text_model: folder or hub name of a causal language model, or a GGUF file. sizes: `vision_config`. The tokenizer
    gets the control tokens that it lacks, whose embeddings start near the mean of the others, and with `whole_numbers`
    0 to 1000; `box_smoothing` and `word_bias` are as in `create_model`.
    Raises ValueError where it cannot be read.
    """
    if extra := sizes.keys() & {"text_config", "vocab_size"}:
        raise ValueError(f"new_model sets {', '.join(sorted(extra))}, which text_model brings; remove one")
    language_model, tokenizer = _open(text_model)
    add_control_tokens(tokenizer)
    if sizes.get("whole_numbers"):
        tokenizer.add_tokens(NUMBERS)
    language_model.resize_token_embeddings(len(tokenizer))
    text = {**language_model.config.to_dict(), **_ids_of(tokenizer)}
    text.pop("quantization_config", None)  # of a GGUF file; its weights are plain numbers by now
    model, processor = _assemble(text, sizes, tokenizer, attn_implementation)
    model.model.language_model.load_state_dict(language_model.base_model.state_dict())
    if not model.config.tie_word_embeddings:
        model.lm_head.load_state_dict(language_model.get_output_embeddings().state_dict())
    _start_numbers(model, tokenizer)
    return model, processor


def _smoothing(spread: float, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the configuration says so that answers smooth the numbers of a box."""
    if not spread:
        return {}
    ids = number_ids(tokenizer)
    if ids is None:
        raise ValueError("new_model sets box_smoothing, which is for whole_numbers; set those too")
    return {
        "box_smoothing": spread,
        "box_token_ids": tokenizer.convert_tokens_to_ids([BOX_OPEN, BOX_CLOSE]),
        "number_token_runs": runs_of(ids.tolist()),
    }


def _biases(words: Mapping[str, float], tokenizer: PreTrainedTokenizerBase) -> list[list[Any]]:
    """As transformers' `sequence_bias` has them: a list of token ids, and what is added to the logit of the last."""
    biases: list[list[Any]] = []
    for word, bias in words.items():
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"new_model: word_bias is for words of one token, and {word!r} has {len(ids)}")
        biases.append([ids, bias])
    return biases


def _start_numbers(model: BirdForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """Near numbers start with near embeddings, and with near rows of the head where that is another matrix."""
    ids = number_ids(tokenizer)
    if ids is not None:
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            start_alike(weight, ids)


def _open(text_model: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    path, kwargs = Path(text_model), {}
    if path.suffix == ".gguf":
        from transformers import GgufConfig

        text_model, kwargs = str(path.parent), {"gguf_file": path.name}
        unpacked = {"quantization_config": GgufConfig(gguf_file=path.name, dequantize=True)}
    else:
        unpacked = {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(text_model, **kwargs)
        model = AutoModelForCausalLM.from_pretrained(text_model, dtype=torch.float32, **kwargs, **unpacked)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"text_model {path} cannot be read as a causal language model with its tokenizer ({reason}); "
            "give a folder, a hub name or a .gguf file"
        ) from error
    return model, tokenizer


def _ids_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Turns end with <|im_end|>, and nothing begins a text."""
    return {
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids(TURN_END),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    }


def _assemble(
    text: dict[str, Any],
    sizes: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    attn_implementation: str | None,
) -> NewModel:
    config = BirdConfig(
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        vision_config=dict(sizes["vision_config"]),
        **_smoothing(sizes.get("box_smoothing", 0.0), tokenizer),
    )
    model = BirdForConditionalGeneration._from_config(config, attn_implementation=attn_implementation)
    model.generation_config.eos_token_id = text["eos_token_id"]
    model.generation_config.pad_token_id = text["pad_token_id"]
    if words := sizes.get("word_bias"):
        model.generation_config.sequence_bias = _biases(words, tokenizer)
    side = config.vision_config.image_size
    images = BirdImageProcessor(size={"height": side, "width": side})
    return model, BirdProcessor(images, tokenizer, num_queries=config.num_queries)
