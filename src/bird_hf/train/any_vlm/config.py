"""The fields of recipes with `method: any_vlm`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from trl import SFTConfig

from ..collate import DROP, ERROR
from ..recipe import BirdSFTConfig

METHOD: Final = "any_vlm"


@dataclass
class AnyVlmConfig(SFTConfig):
    """TRL's `SFTConfig` with the fields that training another model through a dialect needs besides.

    method: `any_vlm`, by which a recipe is known to be one for this config.
    dialect: how the model writes boxes (`bird dialects`). By default that of the checkpoint's `dialect.json`, else that
        of its configuration.
    freeze_vision: without LoRA, train all but the vision tower and its projector.
    too_long: what happens to a question of more than `max_length` tokens: "error" or "drop".
    images_dir: folder with IMAGE_ID.png of rows that hold no pixels.
    eval_questions: most visual grounding questions of the test split that an evaluation answers.
    max_new_tokens: most tokens of an answer in evaluations.
    """

    method: Literal["sft", "grpo", "any_vlm"] = field(default=METHOD, metadata={"help": "how to train"})
    dialect: str | None = field(default=None, metadata={"help": "how the model writes boxes"})
    freeze_vision: bool = field(default=True, metadata={"help": "keep the vision tower and projector frozen"})
    too_long: str = field(
        default=ERROR,
        metadata={"help": "what happens to questions that are too long", "choices": [ERROR, DROP]},
    )
    images_dir: str | None = field(default=None, metadata={"help": "folder of the images of rows without"})
    eval_questions: int = field(default=200, metadata={"help": "most questions of an evaluation"})
    max_new_tokens: int = field(default=256, metadata={"help": "most tokens of an answer in evaluations"})

    # The collator makes tokens and labels, so TRL must leave the rows as they are.
    remove_unused_columns: bool | None = False
    max_length: int | None = 4096

    OLD_FIELDS: ClassVar[dict[str, str | None]] = BirdSFTConfig.OLD_FIELDS

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be done with images."""
        if self.packing or self.padding_free:
            raise ValueError(
                "method any_vlm cannot pack rows with images; set packing and padding_free to false"
            )
        if min(self.eval_questions, self.max_new_tokens) < 1:
            raise ValueError("eval_questions and max_new_tokens must be at least 1")
        super().__post_init__()
