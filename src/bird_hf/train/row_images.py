"""The images of dataset rows for datasets that hold one question a row."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from .rows import joined_image

_ROWS_PER_BATCH = 1000


@dataclass(frozen=True)
class WithImages:
    """A transform of `datasets` that replaces the column `row`, the number of a row, by the column `image`.

    images: a dataset with the column `image`. folder: the one with IMAGE_ID.png of rows that hold no pixels; `images`
    then has the columns `image_id` and `image_wh`, too.
    """

    images: Dataset
    folder: Path | None = None

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoded = {number: self.image(number) for number in {*batch["row"]}}
        kept = {name: column for name, column in batch.items() if name != "row"}
        return kept | {"image": [decoded[number] for number in batch["row"]]}

    def image(self, number: int) -> Any:
        """The image of one row."""
        row: Mapping[str, Any] = self.images[number]
        if row.get("image") is None and self.folder is not None:
            return joined_image(row, self.folder)
        return row["image"]


def check_images(images: Dataset, asked: Set[int], remedy: str) -> None:
    """Raises ValueError, ending in `remedy`, if the image of a row that is asked about is missing; none is decoded."""
    number = 0
    for table in images.select_columns(["image"]).with_format("arrow").iter(_ROWS_PER_BATCH):
        for is_missing in table["image"].is_null().to_pylist():
            if is_missing and number in asked:
                raise ValueError(f"row {number} has no image; {remedy}")
            number += 1
