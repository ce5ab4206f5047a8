"""`bird data check`: everything that a build does before the dialogues, and nothing published."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..masks import record_of
from ..records import ImageRecord, MaskedImage
from .pipeline import BuildContext, BuildSettings, build_context, prepare, recording_left_out
from .publish import dropped

_SCRATCH = ".check"  # in the output folder, while a check runs


@dataclass(frozen=True)
class Checked:
    """What a build would take and leave out. images: (modality, dataset, number of images). dropped: by reason."""

    images: tuple[tuple[str, str, int], ...]
    dropped: dict[str, int]
    context: BuildContext

    def examples(self, count: int) -> Iterator[tuple[MaskedImage, ImageRecord]]:
        """Yield images with their marks, of as many modalities, datasets and labels as possible; reads them again."""
        state, settings = self.context.state, self.context.settings
        for image_id in state.first_chosen(count):
            image = self.context.source.read(state.candidate(image_id))
            yield image, record_of(image, settings.min_area)


@contextmanager
def checked_source(src: Path, out: Path, settings: BuildSettings, workers: int) -> Iterator[Checked]:
    """List, read and choose images as `build` does; `out`/left_out.csv is written, also if no image can be used.

    A check that was killed goes on when it is called again. Raises ValueError as `build` does.
    """
    scratch = out / _SCRATCH
    is_ours = False  # another check may be running there
    try:
        with build_context(src, scratch, replace(settings, pixels=False), workers) as context:
            is_ours = True
            with recording_left_out(context.state, out):
                prepare(context)
            images = tuple(context.state.chosen_counts())
            taken = sum(count for _, _, count in images)
            yield Checked(images, dropped(context.state, taken), context)
    finally:
        if is_ours:
            shutil.rmtree(scratch, ignore_errors=True)
