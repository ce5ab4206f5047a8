"""Questions and answers as a model's own processor and chat template make tokens of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import ProcessorMixin

from ...hub.grounding import GROUNDING_TOKENS
from ...hub.pixels import rgb_image
from ..collate import IGNORED, padded

_Row = Mapping[str, Any]  # an `Example` of rows.py with its image, as a dataset gives it


@dataclass(frozen=True)
class Encoder:
    """Makes the inputs of a model from examples.

    The question is encoded exactly as it is for `generate`; the answer's tokens follow it, and they alone are learnt.
    Which part of the text is the answer is found from the chat template, which need not mark it: the text of a question
    must be the beginning of that of the question with its answer.
    stops: tokens that end an answer; if an answer has none of them, the tokenizer's is added, or nothing could be
    learnt about where to end.
    """

    processor: ProcessorMixin
    stops: Set[int]

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def texts(self, row: _Row) -> tuple[str, str]:
        """The text of the question, with one token for the image, and that of the answer.

        Raises ValueError if the chat template does not continue a question into its answer.
        """
        if self._takes_suffix:
            if row["history"]:
                raise ValueError(
                    f"row {row['image_id']} is a dialogue, and this model answers single questions; make its turns "
                    "independent"
                )
            return f"{self.processor.image_token}{row['question']}", row["answer"]
        messages = _messages(row)
        question = self._rendered(messages[:-1], add_generation_prompt=True)
        whole = self._rendered(messages)
        if not whole.startswith(question) or len(whole) == len(question):
            raise ValueError(
                "the chat template of this model writes a question with its answer in another way than a question that "
                "is to be answered (as templates of thinking models do); give another with chat_template_path"
            )
        return question, whole[len(question) :]

    def answer_ids(self, question: str, answer: str) -> list[int]:
        """The tokens of an answer behind a question."""
        if self._takes_suffix:
            ids = self._ids(answer)
        else:
            before, whole = self._ids(question), self._ids(question + answer)
            is_clean = whole[: len(before)] == before
            ids = whole[len(before) :] if is_clean else self._ids(answer)
        return ids if not self.stops.isdisjoint(ids) else [*ids, self.tokenizer.eos_token_id]

    def question_length(self, question: str) -> int:
        """The tokens of the text of a question, its image counted as one."""
        return len(self._ids(question))

    def questions(self, rows: Sequence[_Row], padding_side: str = "left") -> dict[str, torch.Tensor]:
        """The inputs of `generate` for questions."""
        return self._processed([self.texts(row)[0] for row in rows], rows, padding_side)

    def batch(self, rows: Sequence[_Row]) -> dict[str, torch.Tensor]:
        """The inputs of training: questions with their answers, and labels, padded on the right, (B, T)."""
        texts = [self.texts(row) for row in rows]
        asked = self._processed([question for question, _ in texts], rows, "right")
        masks = asked["attention_mask"].bool()
        answers = [self.answer_ids(question, answer) for question, answer in texts]
        lengths = [int(mask.sum()) for mask in masks]
        longest = max(length + len(answer) for length, answer in zip(lengths, answers, strict=True))

        def joined(name: str, of_answer: int | None, fill: int) -> torch.Tensor:
            values = []
            for row, mask, answer in zip(asked[name], masks, answers, strict=True):
                added = answer if of_answer is None else [of_answer] * len(answer)
                values.append([*row[mask].tolist(), *added])
            return padded(values, fill, longest)

        batch = dict(asked)
        batch["input_ids"] = joined("input_ids", None, self.tokenizer.pad_token_id)
        batch["attention_mask"] = joined("attention_mask", 1, 0)
        if "mm_token_type_ids" in asked:
            batch["mm_token_type_ids"] = joined("mm_token_type_ids", 0, 0)
        if "token_type_ids" in asked:  # PaliGemma: 0 for what sees all of the question, 1 for the answer
            batch["token_type_ids"] = joined("token_type_ids", int(self._takes_suffix), 0)
        labels = [[IGNORED] * length + answer for length, answer in zip(lengths, answers, strict=True)]
        return batch | {"labels": padded(labels, IGNORED, longest)}

    def __call__(self, rows: Sequence[_Row]) -> dict[str, torch.Tensor]:
        return self.batch(rows)

    def said(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, up to the one that ends it, with the special tokens of its markup."""
        kept: list[int] = []
        for number in ids:
            if number in self.stops or number == self.tokenizer.eos_token_id:
                break
            if number != self.tokenizer.pad_token_id:
                kept.append(number)
        text = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.strip()

    @cached_property
    def control(self) -> re.Pattern[str]:
        """Matches what a row's text may not hold: the special tokens of the tokenizer, but for the tags of rows."""
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {*self.tokenizer.all_special_tokens, *(each.content for each in added if each.special)}
        tokens = {token for token in tokens if token.strip()} - {*GROUNDING_TOKENS}
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def _takes_suffix(self) -> bool:
        """Whether questions are prefixes and answers suffixes, as in PaliGemma, and there is no chat template."""
        return (
            not self.processor.chat_template
            and "suffix" in inspect.signature(self.processor.__call__).parameters
        )

    def _rendered(self, messages: list[dict[str, Any]], **options: Any) -> str:
        return self.processor.apply_chat_template(messages, tokenize=False, **options)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _processed(
        self, texts: list[str], rows: Sequence[_Row], padding_side: str
    ) -> dict[str, torch.Tensor]:
        # As `apply_chat_template(tokenize=True)` does: what the template has written is not written twice.
        start = self.tokenizer.bos_token
        is_begun = start is not None and texts[0].startswith(start)
        found = self.processor(
            text=texts,
            images=[[rgb_image(row["image"])] for row in rows],
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
            **({"add_special_tokens": False} if is_begun else {}),
        )
        return {name: value for name, value in found.items() if name != "labels"}


def check_processor(processor: Any, name: str) -> None:
    """Raises ValueError if questions about images cannot be asked with a processor."""
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "image_processor", None) is None:
        raise ValueError(
            f"model_name_or_path {name} has no processor of images; give a vision-language model"
        )
    takes_suffix = "suffix" in inspect.signature(processor.__call__).parameters
    if not processor.chat_template and not takes_suffix:
        raise ValueError(f"{name} has no chat template; give one with chat_template_path")


def _messages(row: _Row) -> list[dict[str, Any]]:
    """A conversation whose first question has the image before it."""
    turns = [*row["history"], [row["question"], row["answer"]]]
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        image = [{"type": "image"}] if not messages else []
        messages += [
            {"role": "user", "content": [*image, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return messages
