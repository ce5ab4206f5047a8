"""Processor of BiRD: the chat template, the image tokens, and parsing of generated answers.

`apply_chat_template` turns messages into model inputs. An image becomes

    Picture 1: <img><imgpad> ... <imgpad></img>

with `num_queries` image tokens, in the numbering and the ChatML turns that BiRD was trained on (BiRD 4.1).
`post_process_grounding` turns generated ids back into text, phrases and boxes.

`<ref>` and `<box>` are ordinary tokens: messages may contain them, and decoding never drops them. All other
`CONTROL_TOKENS` steer the model, so they are encoded as plain text if they occur in a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import groupby
from typing import Any

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer
from transformers.processing_utils import MultiModalData, ProcessorMixin

from .grounding import GROUNDING_TOKENS, GroundedText, Span, read

IMAGE_TOKEN = "<imgpad>"
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# In the order of their ids, which follow the last rank of the vocabulary (151643 onwards in Qwen's).
CONTROL_TOKENS: tuple[AddedToken, ...] = tuple(
    # Grounding tokens are not "special": skip_special_tokens, the default of most decoders, keeps them.
    AddedToken(token, special=token not in GROUNDING_TOKENS, normalized=False)
    for token in (
        END_OF_TEXT,
        TURN_START,
        TURN_END,
        *(f"<|extra_{number}|>" for number in range(205)),
        *GROUNDING_TOKENS,
        "<img>",
        "</img>",
        IMAGE_TOKEN,
    )
)
_RESERVED = re.compile("|".join(re.escape(token.content) for token in CONTROL_TOKENS if token.special))
# With a group, so that re.split returns the tokens too; in any case, so that no text becomes a token by folding.
_ANY_TOKEN = re.compile(f"({'|'.join(re.escape(token.content) for token in CONTROL_TOKENS)})", re.IGNORECASE)

# From transformers 5.23 on; this goes when no older version is supported.
_CAN_SANITIZE = "sanitize_control_tokens" in signature(ProcessorMixin.apply_chat_template).parameters

CHAT_TEMPLATE = """\
{%- set pictures = namespace(count=0) -%}
{%- macro words(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part['type'] == 'image' -%}
        {%- set pictures.count = pictures.count + 1 -%}
        {{- 'Picture ' ~ pictures.count ~ ': <img><imgpad></img>\\n' -}}
      {%- elif part['type'] == 'text' -%}
        {{- part['text'] -}}
      {%- else -%}
        {{- raise_exception('a message part is of type ' ~ part['type'] ~ '; BiRD reads image and text') -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- if messages[0]['role'] != 'system' -%}
  {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- generation -%}
      {{- words(message['content']) ~ '<|im_end|>' -}}
    {%- endgeneration -%}
    {{- '\\n' -}}
  {%- elif message['role'] in ['system', 'user'] -%}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ words(message['content']) ~ '<|im_end|>\\n' -}}
  {%- else -%}
    {{- raise_exception('role ' ~ message['role'] ~ ' is unknown; use system, user or assistant') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Qwen2Tokenizer:
    """A transformers tokenizer of a byte-pair vocabulary, with `CONTROL_TOKENS` after its last id."""
    # Left: a batch of prompts ends where generation begins.
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, padding_side="left")
    tokenizer.add_tokens(list(CONTROL_TOKENS))
    # Only now, so that the ids follow the order of the list.
    tokenizer.eos_token, tokenizer.pad_token = TURN_END, END_OF_TEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True, slots=True)
class PixelSpan(Span):
    """A span whose boxes are given in the original image's pixels too: `boxes_px[i]` is `boxes[i]`.

    Pixel corners are (x1, y1, x2, y2), half-open and not rounded.
    """

    boxes_px: tuple[tuple[float, float, float, float], ...] = ()


class BirdProcessor(ProcessorMixin):
    r"""Image processor and tokenizer as one.

    Args:
        image_processor: a `BirdImageProcessor`.
        tokenizer: a tokenizer that knows `CONTROL_TOKENS`.
        num_queries: image tokens per image; the model's `config.num_queries`.
        chat_template: ChatML with numbered pictures unless another is given.
        label_names: the model's `config.label_names`.
        lowercase_questions: convert the text of user messages to lower case before it is tokenized, for models whose
            training did so; tags, answers and system messages keep their case.
    """

    _auto_class = "AutoProcessor"  # saving copies the files of this folder that it needs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_queries: int = 256,
        chat_template: str | None = None,
        label_names: dict[str, list[str]] | None = None,
        lowercase_questions: bool = False,
        **kwargs: Any,
    ):
        self.num_queries = num_queries
        self.label_names = label_names or {}
        self.lowercase_questions = lowercase_questions
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @property
    def known_names(self) -> tuple[str, ...]:
        """The names of all modalities in `label_names`, each once, sorted; empty if they are not known."""
        return tuple(sorted({name for names in self.label_names.values() for name in names}))

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text with which the base class replaces one placeholder."""
        return self.image_token * self.num_queries

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Image tokens and patches for images of the given (height, width); inference servers call it."""
        if image_sizes is None:
            return MultiModalData()
        count = len(image_sizes)
        return MultiModalData(num_image_tokens=[self.num_queries] * count, num_image_patches=[1] * count)

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_assistant_tokens_mask: bool = False,
        sanitize_control_tokens: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, but by default no text of a message can become a control token.

        Control tokens in messages are encoded as plain text. For an untokenized prompt, with
        `return_assistant_tokens_mask`, and with transformers before 5.23 this is not possible: there they raise
        ValueError.
        `sanitize_control_tokens=False` lets them through.
        """
        conversation = self.fold_questions(_join_texts(conversation))
        if sanitize_control_tokens:
            if _CAN_SANITIZE and tokenize and not return_assistant_tokens_mask:
                kwargs["sanitize_control_tokens"] = True
            else:
                refuse_control_tokens(conversation)
        return super().apply_chat_template(
            conversation,
            chat_template,
            tokenize=tokenize,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
            **kwargs,
        )

    def fold_questions(self, conversation: Any) -> Any:
        """A conversation, or a batch of them, as the model is trained to read it: see `lowercase_questions`.

        `apply_chat_template` calls it. Texts keep their length, so that character offsets stay valid.
        """
        return _in_lower_case(conversation) if self.lowercase_questions else conversation

    def post_process_grounding(
        self, texts_or_ids: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[GroundedText]:
        """Read answers: clean text, phrases with boxes in the unit frame, and issues.

        texts_or_ids: texts, or generated ids without the prompt, one or a batch. target_sizes: a (height,
        width) in pixels for each answer; with it every span is a `PixelSpan`.
        Raises ValueError if the number of sizes differs from the number of answers.
        """
        answers = [read(text) for text in self._texts(texts_or_ids)]
        if target_sizes is None:
            return answers
        if len(target_sizes) != len(answers):
            raise ValueError(f"{len(answers)} answers need as many target_sizes; got {len(target_sizes)}")
        return [_in_pixels(answer, size) for answer, size in zip(answers, target_sizes, strict=True)]

    def _texts(self, texts_or_ids: Any) -> list[str]:
        """Texts as they are, ids decoded; one answer counts as a batch of one."""
        if isinstance(texts_or_ids, str):
            return [texts_or_ids]
        rows = texts_or_ids.tolist() if hasattr(texts_or_ids, "tolist") else list(texts_or_ids)
        if rows and isinstance(rows[0], int):
            rows = [rows]
        return [
            row if isinstance(row, str) else self.tokenizer.decode(row, skip_special_tokens=True)
            for row in rows
        ]


def _join_texts(conversation: Any) -> Any:
    """The same conversation, or batch, with neighbouring text parts of a message joined.

    The template would join them anyway, but then "<|im_" and "end|>" would have passed as harmless.
    """
    if isinstance(conversation, (list, tuple)):
        return [_join_texts(part) for part in conversation]
    if not isinstance(conversation, dict) or not isinstance(conversation.get("content"), (list, tuple)):
        return conversation
    parts: list[Any] = []
    for is_text, group in groupby(conversation["content"], key=_is_text):
        members = list(group)
        text = "".join(part["text"] for part in members) if is_text else ""
        parts += [{"type": "text", "text": text}] if is_text else members
    return conversation | {"content": parts}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _in_lower_case(conversation: Any) -> Any:
    """A copy of messages, single or nested in lists, with the texts of the user's messages in lower case."""
    if isinstance(conversation, (list, tuple)):
        return [_in_lower_case(part) for part in conversation]
    if not isinstance(conversation, dict) or conversation.get("role") != "user":
        return conversation
    content = conversation.get("content")
    if isinstance(content, str):
        return {**conversation, "content": lower_case(content)}
    return {**conversation, "content": [_part_in_lower_case(part) for part in content or ()]}


def _part_in_lower_case(part: Any) -> Any:
    text = part.get("text") if isinstance(part, dict) else None
    return {**part, "text": lower_case(text)} if isinstance(text, str) else part


def lower_case(text: str) -> str:
    """A text in lower case, of the same length, without change to tags or to what would become a tag."""
    pieces = _ANY_TOKEN.split(text)
    pieces[::2] = [_same_length_lower(piece) for piece in pieces[::2]]
    return "".join(pieces)


def _same_length_lower(text: str) -> str:
    """`str.lower`, except for the few letters whose small form has more characters."""
    lower = text.lower()
    return (
        lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    )


def _message_texts(conversation: Any) -> Iterator[str]:
    """Every text in a conversation or a batch of them."""
    if isinstance(conversation, str):
        yield conversation
    elif isinstance(conversation, dict):
        yield from _message_texts(conversation.get("content") or conversation.get("text") or ())
    elif isinstance(conversation, (list, tuple)):
        for part in conversation:
            yield from _message_texts(part)


def refuse_control_tokens(conversation: Any) -> None:
    """Raises ValueError if a text of a conversation holds a control token."""
    if found := find_control_token(conversation):
        raise ValueError(
            f"a message holds the control token {found}; remove it, or tokenize at once "
            "(tokenize=True, without an assistant mask) to have it read as plain text"
        )


def find_control_token(conversation: Any) -> str | None:
    """The first control token in the texts of a conversation, or None."""
    found = (_RESERVED.search(text) for text in _message_texts(conversation))
    return next((match[0] for match in found if match), None)


def _in_pixels(answer: GroundedText, size_hw: Sequence[int]) -> GroundedText:
    height, width = (int(side) for side in size_hw)
    spans = []
    for span in answer.spans:
        boxes_px = tuple(box.to_pixels((width, height)) for box in span.boxes)
        spans.append(PixelSpan(span.phrase, span.start, span.end, span.boxes, boxes_px))
    return GroundedText(answer.text, tuple(spans), answer.issues)


__all__ = ["BirdProcessor", "PixelSpan", "build_tokenizer"]
