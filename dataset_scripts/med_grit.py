"""Med-GRIT as a dataset builder: the rows of a published folder, joined with your own images where they have none.

One file serves old and new versions of `datasets`, and needs nothing but them. As a loading script, which
versions up to 3.6 run:

    load_dataset("dataset_scripts/med_grit.py", "vg", data_dir="med-grit", trust_remote_code=True)

As a class, which today's versions call:

    builder = MedGrit(config_name="vg", data_dir="med-grit", images_dir="SAMed2Dv1/images")
    builder.download_and_prepare()
    test = builder.as_dataset(split="test")

Where rows carry their pixels, versions from 4.7 on need neither: `load_dataset("med-grit", "vg")`.
This file stands in `src/bird_hf/data` and, the same to the letter, in `dataset_scripts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
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
# A file name and never a path: no separator, no drive, nothing hidden, no control character.
_PLAIN_STEM = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")
_ROWS_AT_ONCE = 64


class ImageNotJoinedError(DatasetGenerationError, ValueError):
    """A row's image is missing, unreadable or another one; `datasets` passes this type on as it is."""


@dataclass
class MedGritConfig(datasets.BuilderConfig):
    """data_dir: the Med-GRIT folder, which holds README.md and data/.

    images_dir: a folder of your own with IMAGE_ID.png for every row that carries no pixels. Without it, the image
    of such a row is None.
    """

    images_dir: str | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """The name of the cache: shards that were written anew, or another folder, are another dataset."""
        key = dict(config_kwargs)
        if self.images_dir is not None:
            key["images_dir"] = os.path.abspath(self.images_dir)
        if self.data_dir is not None:
            key["data_dir"] = os.path.abspath(self.data_dir)
            shards = sorted(Path(self.data_dir, "data", self.name).glob("*.parquet"))
            key["written"] = str(
                [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
            )
        return super().create_config_id(key, custom_features)


class MedGrit(datasets.ArrowBasedBuilder):
    """Questions and answers with boxes about biomedical images; configs vg, roc, rc, mia and chat.

    The columns are those of the shards, as `bird_hf.data.records.row_features` writes them.
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
                f"images_dir {images_dir} is no folder; give the one that holds IMAGE_ID.png files"
            )
        splits = self._shards()
        self.info.features = _features_of(next(iter(splits.values()))[0])
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"shards": shards})
            for split, shards in splits.items()
        ]

    def _shards(self) -> dict[str, list[Path]]:
        """The Parquet files by split; raises ValueError where there are none, or not all of them."""
        if self.config.data_dir is None:
            raise ValueError('data_dir is missing; give the Med-GRIT folder, such as data_dir="med-grit"')
        folder = Path(os.path.abspath(self.config.data_dir), "data", self.config.name)
        splits = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in _SPLITS}
        splits = {split: paths for split, paths in splits.items() if paths}
        if not splits:
            raise ValueError(
                f"{folder} holds no Parquet files; data_dir is the folder that holds README.md and data/"
            )
        for split, paths in splits.items():
            whole = [f"{split}-{number:05d}-of-{len(paths):05d}.parquet" for number in range(len(paths))]
            if [path.name for path in paths] != whole:
                raise ValueError(
                    f"{folder}: files of {split} are missing or left over; copy the folder again"
                )
        return splits

    def _generate_tables(self, shards: list[Path]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        for place, path in enumerate(shards):
            with pq.ParquetFile(path) as shard:
                for number, batch in enumerate(shard.iter_batches(_ROWS_AT_ONCE)):
                    yield (place, number), self._join_images(pa.Table.from_batches([batch]))

    def _join_images(self, table: pa.Table) -> pa.Table:
        """The same rows; those without pixels refer to the user's files."""
        rows = table.select(_JOINED).to_pylist()
        images = pa.array([self._image(**row) for row in rows], type=datasets.Image.pa_type)
        joined = table.set_column(table.column_names.index("image"), "image", images)
        return joined.replace_schema_metadata(None)  # 3.6 cannot read what newer versions write there

    def _image(
        self, image_id: str, image: dict[str, Any] | None, image_wh: list[int]
    ) -> dict[str, Any] | None:
        if image is not None and image["bytes"] is not None:
            return image
        if self.config.images_dir is None:
            return None  # a path that stands in the row is never opened
        return {"bytes": None, "path": str(self._own_image(image_id, tuple(image_wh)))}

    def _own_image(self, image_id: str, image_wh: tuple[int, ...]) -> Path:
        """The user's file of an image. Boxes are shares of the image, so a file of another size is refused."""
        if not _PLAIN_STEM.fullmatch(image_id or ""):
            raise ImageNotJoinedError(
                f"image_id {image_id!r} is no plain file name; this row cannot be trusted"
            )
        path = Path(os.path.abspath(self.config.images_dir), f"{image_id}.png")
        try:
            with PIL.Image.open(path) as picture:
                size = picture.size
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise ImageNotJoinedError(
                f"{path} is missing or cannot be read ({type(error).__name__}); images_dir must hold every image"
            ) from error
        if size != image_wh:
            raise ImageNotJoinedError(
                f"{path} is {size} pixels, and its row says {image_wh}; it is another image"
            )
        return path


def _features_of(shard: Path) -> datasets.Features:
    """The columns of a Parquet file; raises ValueError where it is none of Med-GRIT's."""
    try:
        schema = pq.read_schema(shard).remove_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{shard} is no Parquet file ({type(error).__name__}); copy the folder again"
        ) from error
    if missing := [name for name in (*_JOINED, "messages") if name not in schema.names]:
        raise ValueError(f"{shard} is no part of Med-GRIT: it lacks the columns {', '.join(missing)}")
    features = datasets.Features.from_arrow_schema(schema)
    features["image"] = datasets.Image()
    return features
