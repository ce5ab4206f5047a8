"""A folder of DICOM files as a source: order, faults by reason, and no identifier is published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydicom.data import get_testdata_file

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.records import Modality
from bird_hf.data.sources.base import fingerprint
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

from .example_files import BORN, NAME, NUMBER, example, listed, segmentation, series


def test_slices_are_numbered_from_the_feet_with_one_grey_range(tmp_path):
    images = series(tmp_path, count=4, Modality="PT")
    segmentation(images).save_as(tmp_path / "seg.dcm")
    source = open_source(tmp_path)
    candidates, _ = listed(tmp_path)
    paths = [item.where["image"] for item in sorted(candidates, key=lambda item: item.info.image_id)]
    assert paths == ["8.dcm", "7.dcm", "6.dcm"]  # the lowest slice has no object
    assert len({tuple(item.where["range"]) for item in candidates}) == 1
    assert source.read(candidates[0]).info.modality is Modality.PET


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    segmentation(series(tmp_path / "good")).save_as(tmp_path / "seg.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "README").write_text("not looked at")
    whole = (tmp_path / "good" / "9.dcm").read_bytes()
    (tmp_path / "twice").write_bytes(whole)
    (tmp_path / "cut.dcm").write_bytes(whole[:300])
    (tmp_path / "noise.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000))
    for number, name in enumerate(("image_dfl.dcm", "SC_rgb_rle_2frame.dcm", "rtplan.dcm")):
        (tmp_path / f"sample{number}").write_bytes(Path(get_testdata_file(name, download=False)).read_bytes())
    burned = example("MR_small.dcm")
    burned.BurnedInAnnotation = "YES"
    burned.save_as(tmp_path / "burned")
    burned.BurnedInAnnotation, burned.Modality, burned.SOPInstanceUID = "NO", "NM", "1.2.9"
    burned.save_as(tmp_path / "nuclear")
    candidates, left_out = listed(tmp_path)
    assert len(candidates) == 3
    assert left_out == sorted(
        [Drop.UNREADABLE_IMAGE] * 4  # text, cut, noise, a compressed header
        # nuclear medicine, and a secondary capture of two frames
        + [Drop.DUPLICATE_ID, Drop.BURNED_IN, Drop.UNKNOWN_MODALITY, Drop.UNKNOWN_MODALITY]
    )


def test_nothing_that_is_published_names_the_patient(tmp_path):
    source = tmp_path / "source"
    images = []
    for number in range(4):
        changed = {"PatientID": f"{NUMBER}-{number}", "AccessionNumber": "ACC-99", "StudyDate": "20040119"}
        images += (made := series(source / f"s{number}", count=3, seed=number, **changed))
        segmentation(made).save_as(source / f"seg{number}.dcm")
    before = fingerprint(source)
    manifest = build(source, tmp_path / "out", BuildSettings(seed=1), workers=1)
    assert manifest["source"]["kind"] == "DICOM" and manifest["images"]["ct"]["dicom"]["train"]
    tables = []
    for path in sorted((tmp_path / "out").rglob("*.parquet")):
        tables.append(json.dumps(pq.read_table(path).drop_columns("image").to_pylist()))
    card = (tmp_path / "out" / "README.md").read_text()
    published = "".join(tables) + card + json.dumps(manifest)
    uids = [getattr(i, f"{kind}InstanceUID") for i in images for kind in ("SOP", "Series", "Study")]
    # Not "Doe" alone: questions may begin with "Does".
    for secret in (NAME, "Doe^", "Jane", NUMBER, BORN, "ACC-99", "20040119", *uids):
        assert secret not in published
        for path in (tmp_path / "out").rglob("*.sqlite"):
            assert str(secret).encode() not in path.read_bytes()
    assert "no name, number or date of a patient" in card
    (source / "s0" / "9.dcm").unlink()
    assert fingerprint(source) != before
