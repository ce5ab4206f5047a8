"""The images of Med-GRIT rows by file name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from datasets import Dataset


class MissingPixelsError(ValueError):
    """A row has no image: its data must be joined with the images first."""


class SplitImages:
    """The images of datasets by file name; each is decoded when it is asked for."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._places: dict[str, tuple[Dataset, int]] = {}
        for dataset in datasets:
            for number, image_id in enumerate(dataset["image_id"]):
                self._places.setdefault(f"{image_id}.png", (dataset, number))

    def __getitem__(self, name: str) -> Image.Image:
        """Raises KeyError for an unknown name, and MissingPixelsError if the row has no image."""
        dataset, number = self._places[name]
        image = dataset[number]["image"]
        if image is None:
            raise MissingPixelsError(
                f"{name}: the row has no pixels; join the data with your copy of the images first"
            )
        return image
