"""Rank images so that a sample of any size is as varied as the source allows; the seed decides ties.

Every image has a rank, and a sample of n images is the first n of them, so a smaller sample is part of a larger one.
Each has all modalities in equal shares, within these all datasets, within these all classes (an image counts under its
rarest), within these all cases. Slices next to a picked one come last. The ranking is SQL over a file on disk, so
memory does not grow with the source.
"""

from __future__ import annotations

import sqlite3

SLICE_SPACING = 5  # slices of one volume that count as neighbours: the paper avoids redundant slices


# In each stretch of `spacing` slices, all but one image are neighbours; then each level alternates among its groups.
_RANKED = """
WITH spaced AS (
  SELECT image_id, modality, dataset, rarest, case_id, draw, ROW_NUMBER() OVER (
    PARTITION BY volume, slice / :spacing, CASE WHEN slice IS NULL THEN image_id END ORDER BY draw, image_id
  ) > 1 AS neighbour FROM images
), in_case AS (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY modality, dataset, rarest, case_id ORDER BY neighbour, draw, image_id) AS turn FROM spaced
), in_class AS (
  SELECT image_id, modality, dataset, neighbour, draw, ROW_NUMBER() OVER (
    PARTITION BY modality, dataset, rarest ORDER BY neighbour, turn, draw, image_id) AS turn FROM in_case
), in_dataset AS (
  SELECT image_id, modality, neighbour, draw, ROW_NUMBER() OVER (
    PARTITION BY modality, dataset ORDER BY neighbour, turn, draw, image_id) AS turn FROM in_class
), in_modality AS (
  SELECT image_id, neighbour, draw, ROW_NUMBER() OVER (
    PARTITION BY modality ORDER BY neighbour, turn, draw, image_id) AS turn FROM in_dataset
)
INSERT INTO picked
SELECT image_id, ROW_NUMBER() OVER (ORDER BY neighbour, turn, draw, image_id) AS place FROM in_modality
ORDER BY place LIMIT :count
"""


def pick(database: sqlite3.Connection, count: int, spacing: int = SLICE_SPACING) -> None:
    """Insert the first `count` images by rank into the table `picked` (image_id, rank).

    Reads image_id, modality, dataset, rarest, case_id, volume, slice and draw of the table `images`.
    """
    database.execute(_RANKED, {"spacing": spacing, "count": count})
