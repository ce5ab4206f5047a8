"""From the numbers of boxes to the conventions that they may be in, with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .conventions import Convention, Order, Pictures, Scale, all_conventions
from .dialect_evidence import DialectTrial
from .mask_evidence import MIN_MASKS, MaskEvidence
from .number_evidence import Against, NumberEvidence, excludes, is_pile

DIMENSIONS = ("scale", "order", "origin", "far corner", "frame")
_DIALECT = "dialect"
_MOST_LISTED = 50  # conventions in a document
_WOULD_DECIDE = {
    "scale": "masks, or boxes that end at the far edges of pictures of several sizes",
    "order": "masks, or boxes in pixels that leave the frame in one of the orders",
    "origin": "masks, or one box drawn on its picture",
    "far corner": "masks, or objects that touch the right or lower edge of their picture",
    "frame": "masks, or boxes near the shorter sides of pictures that are not square",
    _DIALECT: "the other dimensions, and which model the texts are of or for",
}


@dataclass(frozen=True)
class Line:
    """A hypothesis. against: the boxes that contradict it in the best case, of `total`; first: the first of them."""

    dimension: str
    hypothesis: str
    against: int
    total: int
    by: str
    first: str
    excluded: bool


@dataclass(frozen=True)
class Diagnosis:
    """What the boxes of a field may be in.

    source: where in the file they stand. remaining: the conventions that nothing excludes. sized: boxes whose picture
    has a known size; masked: those whose mask is known. notes: what a reader has to know besides.
    """

    source: str
    boxes: int
    sized: int
    masked: int
    remaining: tuple[Convention, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    hints: dict[str, str] = field(default_factory=dict)
    dialects: tuple[str, ...] | None = None

    @property
    def possible(self) -> dict[str, list[str]]:
        """What is possible in each dimension; a single one is the verdict, none if no convention fits."""
        possible = {
            name: list(dict.fromkeys(each.parts[name] for each in self.remaining)) for name in DIMENSIONS
        }
        return possible if self.dialects is None else possible | {_DIALECT: list(self.dialects)}

    @property
    def verdict(self) -> list[str]:
        """One sentence for each dimension."""
        sentences = []
        if self.boxes and not self.remaining:
            sentences.append(
                "none of these conventions: each is contradicted. The file may hold several conventions, another one, "
                "or boxes of other pictures; the table has the first box that contradicts each"
            )
        if self.dialects is not None and not self.dialects:
            sentences.append(f"{_DIALECT}: none of those known here reads these texts")
        for name, values in self.possible.items():
            if len(values) == 1:
                sentences.append(f"{name}: {values[0]}")
            elif values:
                between = f"{'; '.join(values[:-1])} and {values[-1]}"
                sentences.append(
                    f"{name}: cannot tell between {between}. What would decide: {self.hints[name]}"
                )
        return sentences

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values. `decided` has the dimensions with one possible value."""
        possible = self.possible
        return {
            "source": self.source,
            "boxes": self.boxes,
            "boxes_with_picture_size": self.sized,
            "boxes_with_mask": self.masked,
            "decided": {name: values[0] for name, values in possible.items() if len(values) == 1},
            "possible": possible,
            "would_decide": {name: self.hints[name] for name, values in possible.items() if len(values) > 1},
            "conventions": [each.parts for each in self.remaining[:_MOST_LISTED]],
            "conventions_total": len(self.remaining),
            "evidence": [vars(line) for line in self.lines],
            "notes": list(self.notes),
        }


def diagnose(
    source: str,
    numbers: np.ndarray,
    image_wh: np.ndarray,
    place_of: Callable[[int], str],
    masks: MaskEvidence | None = None,
    notes: Iterable[str] = (),
    *,
    trials: Sequence[DialectTrial] = (),
    masks_given: bool = False,
) -> Diagnosis:
    """The conventions that boxes may be in.

    numbers: (N, 4) float, finite, N at least 1. image_wh: (N, 2) float, NaN if it is not known. place_of: the row of a
    box in words. masks: of some of the boxes. trials: of the texts that the boxes stand in. masks_given: whether
    there are masks; they are of other pictures if `masks` is None. Raises ValueError if the arrays do not fit.
    """
    if (
        numbers.ndim != 2
        or numbers.shape[1:] != (4,)
        or image_wh.shape != (len(numbers), 2)
        or not len(numbers)
    ):
        raise ValueError(f"boxes of shape {numbers.shape} and sizes of shape {image_wh.shape} do not fit")
    examined = _Examined(NumberEvidence.of(numbers, Pictures(image_wh)), masks, place_of)
    known = np.isfinite(image_wh).all(axis=1)
    examined.by_numbers(bool(known.all() and np.all(image_wh[:, 0] == image_wh[:, 1])))
    examined.by_masks()
    examined.by_edges()
    return Diagnosis(
        source,
        len(numbers),
        int(known.sum()),
        len(masks) if masks else 0,
        tuple(examined.remaining),
        (*examined.lines(), *_dialect_lines(trials)),
        (*notes, *examined.notes),
        _hints(bool(known.all()), len(masks) if masks else 0, masks_given or masks is not None),
        _dialects(trials),
    )


def of_texts(source: str, trials: Sequence[DialectTrial], notes: Iterable[str] = ()) -> Diagnosis:
    """The dialects of texts whose boxes are not written as four numbers."""
    lines = tuple(_dialect_lines(trials))
    return Diagnosis(source, 0, 0, 0, (), lines, (*notes,), dict(_WOULD_DECIDE), _dialects(trials))


class _Examined:
    """Conventions with what contradicts them; each step leaves fewer of them."""

    def __init__(
        self, numbers: NumberEvidence, masks: MaskEvidence | None, place_of: Callable[[int], str]
    ) -> None:
        self._numbers, self._masks, self._place_of = numbers, masks, place_of
        self._against: dict[
            Convention, tuple[Against, int, str, bool]
        ] = {}  # with total, by, whether excluded
        self.remaining: list[Convention] = []
        self.notes: list[str] = []

    def by_numbers(self, are_square: bool) -> None:
        """Leaves the conventions that few boxes contradict."""
        total = len(self._numbers.numbers)
        known: dict[tuple[Any, ...], Against] = {}  # the origin is of no matter to the numbers
        for each in self._distinct(all_conventions(are_square)):
            key = (each.scale, each.order, each.far_corner, each.frame)
            if key not in known:
                known[key] = self._numbers.against(each)
            self._record(each, known[key], total, "numbers", excludes(known[key].count, total))
        self.remaining = [each for each, found in self._against.items() if not found[3]]

    def by_masks(self) -> None:
        """Leaves the conventions that give the boxes of masks, if there are any; else drops those far from them."""
        masks = self._masks
        if masks is None or len(masks) < MIN_MASKS:
            return
        fitted = [
            new for each in self.remaining if each.scale is Scale.RESIZED for new in masks.resized(each)
        ]
        against = {each: masks.against(each) for each in [*self.remaining, *fitted]}
        exact = [each for each, found in against.items() if masks.is_exact(found)]
        if not exact:
            self._by_loose_masks(masks)
            return
        # Boxes may be loose by so much, which the rounding of another scale can hide.
        hidden_px = 1.0 + min(map(masks.rounding_px, exact))
        for each, found in against.items():
            if each.scale not in {other.scale for other in exact}:
                found = masks.against(each, hidden_px)
            self._record(each, found, len(masks), "masks", excludes(found.count, len(masks)))
        self.remaining = [each for each in against if not self._against[each][3]]

    def by_edges(self) -> None:
        """Leaves the scales at whose far edge boxes end exactly, if there are such."""
        decisive: set[Scale] = set()
        total = len(self._numbers.numbers)
        for each in self.remaining:
            if each.resized is None and each.scale is not Scale.RESIZED and self._ends_at_edge(each):
                decisive.add(each.scale)
        if not decisive or {each.scale for each in self.remaining} <= decisive:
            return
        for each in self.remaining:
            is_near = each.scale is not Scale.RESIZED and is_pile(self._numbers.near_end(each), total)
            if each.scale not in decisive and each.resized is None and not is_near:
                why = f"boxes end exactly at the far edge of {' and of '.join(sorted(decisive))}, not of this"
                self._record(each, Against(total, None, why), total, "edges", True)
        self.remaining = [each for each in self.remaining if not self._against[each][3]]

    def lines(self) -> list[Line]:
        """For each hypothesis the convention with it that tells most: one that remains, else the one nearest to these.

        Of several, the one that the fewest boxes contradict.
        """
        kept = [{*each.parts.items()} for each in self.remaining[:_MOST_LISTED]]
        best: dict[tuple[str, str], tuple[tuple[bool, int, float], Convention]] = {}
        for each, (against, total, _, is_excluded) in self._against.items():
            parts = each.parts
            shared = max((len(other & parts.items()) for other in kept), default=0)
            rank = (is_excluded, -shared, against.count / total)
            for name, value in parts.items():
                if (name, value) not in best or rank < best[name, value][0]:
                    best[name, value] = (rank, each)
        order = {name: number for number, name in enumerate(DIMENSIONS)}
        return [
            self._line(name, value, convention)
            for (name, value), (_, convention) in sorted(best.items(), key=lambda item: order[item[0][0]])
        ]

    def _line(self, dimension: str, value: str, convention: Convention) -> Line:
        against, total, by, is_excluded = self._against[convention]
        first = against.why if against.count else ""
        if against.first is not None:
            box = ", ".join(f"{number:.10g}" for number in self._numbers.numbers[against.first])
            first = f"{self._place_of(against.first)}: {box}: {against.why}"
        return Line(dimension, value, against.count, total, by, first, is_excluded)

    def _record(self, each: Convention, against: Against, total: int, by: str, is_excluded: bool) -> None:
        self._against[each] = (against, total, by, is_excluded)

    def _by_loose_masks(self, masks: MaskEvidence) -> None:
        worse = masks.much_worse([each for each in self.remaining if each.scale is not Scale.RESIZED])
        for each, median in worse.items():
            why = f"its boxes have a median IoU of {median:.2f} with the masks, others a higher one"
            self._record(each, Against(len(masks), None, why), len(masks), "masks", True)
        self.remaining = [each for each in self.remaining if each not in worse]
        self.notes.append(
            "No convention gives the boxes of the masks exactly, so masks decide only what is far from them "
            f"(with at least {masks.min_loose} of them)."
        )

    def _ends_at_edge(self, each: Convention) -> bool:
        count, lengths, is_longest = self._numbers.ends_at(each)
        total = len(self._numbers.numbers)
        if self._against[each][0].count or not is_pile(count, total):
            return False
        # A number equals the width of one picture by chance; pictures above a limit may have been resized alone.
        return each.scale not in (Scale.PIXELS, Scale.QWEN) or (lengths >= MIN_MASKS and is_longest)

    def _distinct(self, conventions: Sequence[Convention]) -> list[Convention]:
        """Without Qwen's resizing, if it leaves every picture as it is."""
        pictures = self._numbers.pictures
        if not np.array_equal(pictures.lengths(Convention(Scale.QWEN, Order.X_FIRST)), pictures.wh):
            return [*conventions]
        return [each for each in conventions if each.scale is not Scale.QWEN]


def _hints(are_sized: bool, masked: int, masks_given: bool) -> dict[str, str]:
    """What would decide, by dimension."""
    hints = dict(_WOULD_DECIDE)
    if not are_sized:
        hints["scale"] = f"the sizes of the pictures (--images); {hints['scale']}"
    if masks_given and masked < MIN_MASKS:
        few = f"more masks ({masked} belong to pictures of these boxes; {MIN_MASKS} are needed)"
        hints = {name: text.replace("masks", few, 1) for name, text in hints.items()}
    return hints


def _dialects(trials: Sequence[DialectTrial]) -> tuple[str, ...] | None:
    return tuple(each.dialect for each in trials if not each.excluded) if trials else None


def _dialect_lines(trials: Sequence[DialectTrial]) -> list[Line]:
    return [
        Line(_DIALECT, each.dialect, each.unread, each.total, "texts", each.first, each.excluded)
        for each in trials
    ]
