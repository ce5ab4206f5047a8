"""The functional groups of multi-frame DICOM objects: what all frames share, and what each frame has of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .planes import Plane

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def first(item: Any, tag: str) -> Any:
    """The first item of a sequence element; None if it is missing or empty."""
    found = item.get(tag) if item is not None else None
    return found[0] if found else None


@dataclass(frozen=True)
class FrameGroups:
    """The functional groups of one frame: its own, and for what they do not have those of all frames."""

    own: Any
    shared: Any

    def first(self, tag: str) -> Any:
        """The first item of a group; None if the frame has no such group."""
        return first(self.own, tag) or first(self.shared, tag)

    def plane(self, shape: tuple[int, int]) -> Plane | None:
        """The plane of the frame; None if a group that defines it is missing. Raises ValueError if it is unusable."""
        position, orientation = self.first("PlanePositionSequence"), self.first("PlaneOrientationSequence")
        measures = self.first("PixelMeasuresSequence")
        if position is None or orientation is None or measures is None:
            return None
        return Plane.of(
            position.ImagePositionPatient,
            orientation.ImageOrientationPatient,
            measures.PixelSpacing,
            shape,
        )


def groups_of(header: Any, frames: int) -> list[FrameGroups]:
    """The groups of each frame; an empty list if the object has none. Raises ValueError if a frame has none."""
    own, shared = header.get(PER_FRAME), first(header, SHARED)
    if not own and shared is None:
        return []
    if own and len(own) != frames:
        raise ValueError(f"groups of {len(own)} frames for {frames} frames")
    return [FrameGroups(item, shared) for item in own or [None] * frames]
