"""LLaVA-Med's way of asking, as a processor of transformers: tokens, chat template and pictures.

Facts from https://github.com/microsoft/LLaVA-Med at commit 821e1c7. `conversation.py`, `mistral_instruct`: no system
message, "[INST] " before a question and " [/INST]" behind it, an answer between spaces with "</s>" behind it, the
picture and a line break before the first question. `mm_utils.py`: the text before and behind the picture is tokenized
apart; a picture is padded to a square with the mean colour.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import (
    AddedToken,
    AutoProcessor,
    AutoTokenizer,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from ..checkpoint.load import silent_loading

IMAGE_TOKEN = "<image>"
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{- raise_exception('LLaVA-Med was trained without a system message; put it into the question') -}}
{%- endif -%}
{%- set said = namespace(images='', text='') -%}
{%- if message.content is string -%}
{%- set said.text = message.content -%}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{%- set said.images = said.images + '<image>\\n' -%}
{%- elif part.type == 'text' -%}
{%- set said.text = said.text + part.text -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set text = said.text | replace('<image>', '') | trim -%}
{%- if message.role == 'user' -%}
{{- '[INST] ' + said.images + text + ' [/INST]' -}}
{%- else -%}
{{- ' ' + text + ' </s>' -}}
{%- endif -%}
{%- endfor -%}
"""
_SAMPLE = "Where is the left kidney? Its size is [64, 96]."


def read_llava_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a LLaVA-Med folder with the image token and a padding token.

    Raises ValueError, in one line, if it cannot be loaded.
    """
    from_pieces = not (folder / "tokenizer.json").is_file()
    if from_pieces and not (folder / "tokenizer.model").is_file():
        raise ValueError(f"{folder} has no tokenizer.model or tokenizer.json; is the download complete?")
    if from_pieces and (missing := [name for name in ("sentencepiece", "google.protobuf") if not _has(name)]):
        packages = " ".join(name.removeprefix("google.") for name in missing)
        raise ValueError(f"{folder}: tokenizer.model cannot be read; pip install {packages}")
    with silent_loading():
        try:
            # legacy: text behind a special token begins with a space, as text that is tokenized apart does.
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, legacy=True
            )
        except Exception as error:  # damaged files make loaders raise nearly any exception
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"{folder}: the tokenizer cannot be loaded ({reason}); download it again"
            ) from None
    if tokenizer.bos_token != "<s>" or tokenizer.eos_token != "</s>":
        raise ValueError(
            f"{folder}: the tokenizer does not begin with <s> and end with </s>, as Mistral's does"
        )
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    # Not Mistral's own class: it does not save `legacy`, and makes its rules anew when it is loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token,
        padding_side="left",  # answers are generated in batches
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: Any, config: Any, pads: bool) -> LlavaProcessor:
    """Returns the processor for a LlavaConfig. pads: whether pictures are padded to squares."""
    side = config.vision_config.image_size
    images = LlavaImageProcessorPil(
        do_pad=pads, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,  # CLIP's class token
    )


def check_prompt_ids(folder: Path) -> None:
    """Compare the ids of a prompt with those of the original, whose texts around a picture are tokenized apart.

    Raises ValueError, in one line, if the processor of the written folder gives others.
    """
    with silent_loading():
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = processor.tokenizer
    content = [{"type": "image"}, {"type": "text", "text": _SAMPLE}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    found, before, behind = tokenizer([prompt, "[INST] ", f"\n{_SAMPLE} [/INST]"], add_special_tokens=False)[
        "input_ids"
    ]
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if found != [tokenizer.bos_token_id, *before, image_token_id, *behind]:
        raise ValueError(
            "the tokenizer of the source gives other ids around <image> than LLaVA-Med's own code, which tokenizes "
            "the text before and behind it apart; give the tokenizer files of the original"
        )


def _has(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False
