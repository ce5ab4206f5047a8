"""A folder that trainers open as a Qwen vision-language model: settings, tokenizer and processor, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

# Trainers have some of these numbers in their code, so that they are those of the published models.
_MARKS = {
    name: 151643 + place
    for place, name in enumerate(
        [
            "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
            "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
            "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
        ]
    )
}  # fmt: skip
_NAMES = {
    "qwen2_vl": ("Qwen2VL", 14, (56 * 56, 12845056)),
    "qwen2_5_vl": ("Qwen2_5_VL", 14, (56 * 56, 12845056)),
    "qwen3_vl": ("Qwen3VL", 16, (65536, 16777216)),
}


def write_tiny(folder: Path, kind: str) -> Path:
    """Writes the folder. kind: qwen2_vl, qwen2_5_vl or qwen3_vl, with the patches and the sizes of pictures of each."""
    name, patch, (fewest, most) = _NAMES[kind]
    folder.mkdir(parents=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 8192,
            "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]}}  # fmt: skip
    vision = {
        "depth": 1,
        "num_heads": 2,
        "patch_size": patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    marks = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
             "vision_end_token_id": 151653}  # fmt: skip
    of_text = {"text_config": text | {"model_type": f"{kind}_text"}} if kind == "qwen3_vl" else text
    pictures = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2,
                "size": {"shortest_edge": fewest, "longest_edge": most}, "min_pixels": fewest, "max_pixels": most,
                "processor_class": f"{name}Processor"}  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "config.json": {"architectures": [f"{name}ForConditionalGeneration"], "model_type": kind,
                        "vision_config": vision | {"model_type": kind}} | marks | of_text,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
                                  "pad_token": "<|endoftext|>", "additional_special_tokens": list(_MARKS),
                                  "processor_class": f"{name}Processor", "clean_up_tokenization_spaces": False,
                                  "model_max_length": 8192},
        "preprocessor_config.json": pictures | {"image_processor_type": "Qwen2VLImageProcessor"},
        "video_preprocessor_config.json": pictures | {
            "video_processor_type": f"{'Qwen3' if kind == 'qwen3_vl' else 'Qwen2'}VLVideoProcessor"
        },
    }  # fmt: skip
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _tokenizer() -> Tokenizer:
    """One token a byte, and the marks."""
    bytes_ = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=bytes_ | _MARKS, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_MARKS))
    return tokenizer
