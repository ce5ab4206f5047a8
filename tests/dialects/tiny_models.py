"""Folders with tiny vision-language models of transformers: random weights, tokenizers and processors made by code.

    make_tiny("qwen3-vl", folder)  # then AutoModelForImageTextToText and AutoProcessor open the folder

Names are those of `FAMILIES`. They need no network. Qwen's processors have a part for videos, which needs torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HIDDEN = 96
TEXTS = [
    "Locate the left kidney in this image and output the bbox coordinates in JSON format.",
    '[{"bbox_2d": [0, 1], "label": "left kidney"}]',
    "detect left kidney ; spleen answer en Where is the liver? Here it is. There is no such object in this image.",
    "Please provide the bounding box coordinate of the region this sentence describes: <ref>spleen</ref>",
    "<box>[[1, 2]]</box> The image size is [64, 96], and the origin of the coordinate system is located in the upper",
    "left corner of the image.",
]
_TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_SIGLIP = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 16,
}


class Tiny(NamedTuple):
    """How a family is made, the dialect that tests use with it, and whether it needs torchvision."""

    make: Callable[[], tuple[Any, Any]]
    dialect: str
    needs_torchvision: bool = False


def make_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes a model with its processor into a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = FAMILIES[family].make()
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def give_smolvlm_processor(folder: Path) -> None:
    """Makes the folder of `idefics3` one of SmolVLM, whose processor needs num2words: it cannot be made without."""
    changes: dict[str, dict[str, Any]] = {
        "config.json": {"model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"]},
        "processor_config.json": {
            "processor_class": "SmolVLMProcessor",
            "video_processor": {"video_processor_type": "SmolVLMVideoProcessor"},
        },
        "tokenizer_config.json": {"processor_class": "SmolVLMProcessor"},
    }
    for name, fields in changes.items():
        content = json.loads((folder / name).read_text(encoding="utf-8")) | fields
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def make_tokenizer(special: list[str], eos: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows the words of `TEXTS`, single digits, and special tokens."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=["<pad>", *special], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    names = {"pad_token": "<pad>", "eos_token": eos} | ({"bos_token": bos} if bos else {})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=[token for token in special if token not in (eos, bos)],
        **names,
    )


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return make_tokenizer(["<|im_start|>", "<|im_end|>", *vision], eos="<|im_end|>")


_QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    marks = {
        "image": "image_pad",
        "video": "video_pad",
        "vision_start": "vision_start",
        "vision_end": "vision_end",
    }
    return {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in marks.items()
    }


def _qwen_text(tokenizer: Any) -> dict[str, Any]:
    head = HIDDEN // _TEXT["num_attention_heads"]
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections}
    return _TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "head_dim": head}


def _make_qwen(kind: str, video_kind: str, patch: int, **vision: Any) -> tuple[Any, Any]:
    """kind: what the classes of the model are called, such as `Qwen3VL`; vision: what only its tower has."""
    tokenizer = _qwen_tokenizer()
    tower = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 2,
        "patch_size": patch,
        "out_hidden_size": HIDDEN,
    }
    config = getattr(transformers, f"{kind}Config")(
        text_config=_qwen_text(tokenizer),
        vision_config=tower | vision,
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
    )
    images = transformers.Qwen2VLImageProcessor(
        patch_size=patch, min_pixels=(2 * patch) ** 2, max_pixels=(8 * patch) ** 2
    )
    videos = getattr(transformers, f"{video_kind}VideoProcessor")(patch_size=patch)
    processor = getattr(transformers, f"{kind}Processor")(
        images, tokenizer, videos, chat_template=_QWEN_TEMPLATE
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


_make_qwen2_5_vl = partial(
    _make_qwen, "Qwen2_5_VL", "Qwen2VL", 14, fullatt_block_indexes=[0, 1], window_size=56
)
_make_qwen3_vl = partial(
    _make_qwen, "Qwen3VL", "Qwen3VL", 16, num_position_embeddings=64, deepstack_visual_indexes=[0]
)


def _make_paligemma() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(["<eos>", "<bos>"], eos="<eos>", bos="<bos>")
    images = transformers.SiglipImageProcessor(size={"height": 48, "width": 48})
    images.image_seq_length = 9
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    text = _TEXT | {
        "model_type": "gemma",
        "head_dim": HIDDEN // 4,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 1,
    }
    config = transformers.PaliGemmaConfig(
        text_config=text,
        vision_config=_SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=processor.image_token_id,
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor


def _make_idefics3() -> tuple[Any, Any]:
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<|begin_of_text|>"]
    tokenizer = make_tokenizer(["<end_of_utterance>", *marks], eos="<end_of_utterance>")
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, do_image_splitting=False
    )
    template = (
        "<|begin_of_text|>{% for message in messages %}{{ message.role | capitalize }}:"
        "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}"
        "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)
    config = transformers.Idefics3Config(
        text_config=_TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=_SIGLIP | {"image_size": 64},
        image_token_id=processor.image_token_id,
        scale_factor=2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def _make_llava() -> tuple[Any, Any]:
    tokenizer = make_tokenizer(["</s>", "<s>", "<image>"], eos="</s>", bos="<s>")
    images = transformers.CLIPImageProcessor(
        size={"height": 48, "width": 48}, crop_size={"height": 48, "width": 48}
    )
    # Like the template of LLaVA 1.5: no token ends an answer.
    template = (
        "{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}"
        "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    )
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    clip = _SIGLIP | {"model_type": "clip_vision_model", "projection_dim": 64}
    config = transformers.LlavaConfig(
        text_config=_TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=clip,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


FAMILIES = {
    "qwen2.5-vl": Tiny(_make_qwen2_5_vl, "qwen2.5-vl", needs_torchvision=True),
    "qwen3-vl": Tiny(_make_qwen3_vl, "qwen3-vl", needs_torchvision=True),
    "paligemma": Tiny(_make_paligemma, "paligemma"),
    "idefics3": Tiny(_make_idefics3, "internvl"),
    "llava": Tiny(_make_llava, "llava-med"),
}
