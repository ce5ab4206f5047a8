"""Med-GRIT as a dataset builder: the rows of a published folder, joined with your own images if they carry no pixels.

This file works with old and new versions of `datasets` and has no other requirements. As a loading script, for
versions up to 3.6:

    load_dataset("dataset_scripts/med_grit.py", "vg", data_dir="med-grit", trust_remote_code=True)

As a class, for later versions:

    builder = MedGrit(config_name="vg", data_dir="med-grit", images_dir="SAMed2Dv1/images")
    builder.download_and_prepare()
    test = builder.as_dataset(split="test")

Joined images are handed out upright, whatever their EXIF orientation and the version of `datasets`: boxes are fractions
of the upright image.

If the rows carry their pixels, versions from 4.7 on need neither: `load_dataset("med-grit", "vg")`.
The same file is in `src/bird_hf/data` and in `dataset_scripts`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
import PIL.ImageOps
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError

_TASKS = {
    "vg": "visual grounding: a name is asked for, boxes are the answer",
    "roc": "referring object classification: a box is asked about, a name is the answer",
    "rc": "referring captioning: a box is asked about, a sentence is the answer",
    "mia": "medical image analysis: question and answer in words",
    "chat": "all turns of an image",
}
_SPLITS = ("train", "validation", "test")
_JOINED = ("image_id", "image", "image_wh")
# A file name, never a path: no separator, no drive, no leading dot, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")
_ROWS_PER_BATCH = 64
_EXIF_ORIENTATION = 0x0112
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


class ImageNotJoinedError(DatasetGenerationError, ValueError):
    """A row's image is missing, unreadable or a different one; `datasets` does not wrap errors of this type."""


@dataclass
class MedGritConfig(datasets.BuilderConfig):
    """data_dir: the Med-GRIT folder, which contains README.md and data/.

    images_dir: a folder of your own with IMAGE_ID.png for every row without pixels. If it is not given, the image of
    such a row is None.
    """

    images_dir: str | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """The cache key: it changes with the folders and whenever the shards are rewritten."""
        key = dict(config_kwargs)
        if self.images_dir is not None:
            key["images_dir"] = os.path.abspath(self.images_dir)
        if self.data_dir is not None:
            key["data_dir"] = os.path.abspath(self.data_dir)
            shards = sorted(Path(self.data_dir, "data", self.name).glob("*.parquet"))
            key["shards"] = str(
                [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
            )
        return super().create_config_id(key, custom_features)


class MedGrit(datasets.ArrowBasedBuilder):
    """Questions and answers with boxes about biomedical images; configs vg, roc, rc, mia and chat.

    The columns are those of the shards, as defined by `bird_hf.data.records.row_features`.
    """

    BUILDER_CONFIG_CLASS = MedGritConfig
    BUILDER_CONFIGS = [MedGritConfig(name=task, description=text) for task, text in _TASKS.items()]
    DEFAULT_CONFIG_NAME = "vg"

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=f"Med-GRIT, {self.config.description}")

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        images_dir = self.config.images_dir
        if images_dir is not None and not Path(images_dir).is_dir():
            raise ValueError(
                f"images_dir {images_dir} is not a folder; give the one that contains IMAGE_ID.png files"
            )
        splits = self._shards()
        self.info.features = _features_of(next(iter(splits.values()))[0])
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"shards": shards})
            for split, shards in splits.items()
        ]

    def _shards(self) -> dict[str, list[Path]]:
        """The Parquet files by split. Raises ValueError if there are none, or some are missing."""
        if self.config.data_dir is None:
            raise ValueError('data_dir is missing; give the Med-GRIT folder, such as data_dir="med-grit"')
        folder = Path(os.path.abspath(self.config.data_dir), "data", self.config.name)
        splits = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in _SPLITS}
        splits = {split: paths for split, paths in splits.items() if paths}
        if not splits:
            raise ValueError(
                f"{folder} contains no Parquet files; data_dir is the folder that contains README.md and data/"
            )
        for split, paths in splits.items():
            expected = [f"{split}-{number:05d}-of-{len(paths):05d}.parquet" for number in range(len(paths))]
            if [path.name for path in paths] != expected:
                raise ValueError(
                    f"{folder}: files of {split} are missing or left over; copy the folder again"
                )
        return splits

    def _generate_tables(self, shards: list[Path]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        for place, path in enumerate(shards):
            with pq.ParquetFile(path) as shard:
                for number, batch in enumerate(shard.iter_batches(_ROWS_PER_BATCH)):
                    yield (place, number), self._join_images(pa.Table.from_batches([batch]))

    def _join_images(self, table: pa.Table) -> pa.Table:
        """The same rows; those without pixels get the paths of the user's files."""
        rows = table.select(_JOINED).to_pylist()
        last: tuple[Any, Any] = (None, None)  # adjacent rows often have the same image
        cells = []
        for row in rows:
            key = (row["image_id"], row["image_wh"]) if row["image"] is None else None
            if key is None or last[0] != key:
                last = (key, self._image(**row))
            cells.append(last[1])
        images = pa.array(cells, type=datasets.Image.pa_type)
        joined = table.set_column(table.column_names.index("image"), "image", images)
        return joined.replace_schema_metadata(None)  # 3.6 cannot read the metadata of newer versions

    def _image(
        self, image_id: str, image: dict[str, Any] | None, image_wh: list[int]
    ) -> dict[str, Any] | None:
        if image is not None and image["bytes"] is not None:
            return image
        if self.config.images_dir is None:
            return None  # a path in the row itself is never opened
        return self._own_image(image_id, tuple(image_wh))

    def _own_image(self, image_id: str, image_wh: tuple[int, ...]) -> dict[str, Any]:
        """The user's image: its path, or the bytes of an upright PNG if the file is not upright.

        Files of another upright size are refused, because boxes are fractions of the image.
        """
        if not _PLAIN_STEM.fullmatch(image_id or ""):
            raise ImageNotJoinedError(
                f"image_id {image_id!r} is not a plain file name; this row cannot be trusted"
            )
        path = Path(os.path.abspath(self.config.images_dir), f"{image_id}.png")
        try:
            # As a stream: given a path, Pillow 12 maps a plain TIFF into memory and turns it wrongly.
            with path.open("rb") as stream, PIL.Image.open(stream) as picture:
                sizes = (picture.size, picture.size[::-1])
                # Only for a picture of the right size, because the header of a PNG ends behind its pixels.
                size, turned = _upright(picture) if image_wh in sizes else (picture.size, None)
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ImageNotJoinedError(
                f"{path} is missing or cannot be read ({type(error).__name__}); images_dir must contain every image"
            ) from error
        if size != image_wh:
            raise ImageNotJoinedError(
                f"{path} has {size} pixels, and its row says {image_wh}; it is a different image"
            )
        return {"bytes": turned, "path": str(path) if turned is None else path.name}


def _upright(picture: PIL.Image.Image) -> tuple[tuple[int, int], bytes | None]:
    """The upright size of an opened picture, and the bytes of an upright PNG if its file is not upright."""
    exif = picture.getexif().get(_EXIF_ORIENTATION, 1)
    if exif not in range(2, 9):
        return picture.size, None
    picture.load()  # newer versions of Pillow turn a TIFF here, and then there is nothing left to turn
    upright = PIL.ImageOps.exif_transpose(picture)
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    upright.info.clear()
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return upright.size, buffer.getvalue()


def _features_of(shard: Path) -> datasets.Features:
    """The columns of a Parquet file. Raises ValueError if it is not a Med-GRIT shard."""
    try:
        schema = pq.read_schema(shard).remove_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{shard} is not a Parquet file ({type(error).__name__}); copy the folder again"
        ) from error
    if missing := [name for name in (*_JOINED, "messages") if name not in schema.names]:
        raise ValueError(f"{shard} is not a Med-GRIT shard: it lacks the columns {', '.join(missing)}")
    features = datasets.Features.from_arrow_schema(schema)
    features["image"] = datasets.Image()
    return features
