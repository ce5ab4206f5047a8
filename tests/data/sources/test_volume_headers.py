"""Hostile and unusual volume files: one line for each, bounded memory, and no file opened that a header names."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from bird_hf.data.sources.volume_files import read_stored, read_volume

from ..marked_volume import patient

NRRD_HEADER = {
    "type": "int16",
    "dimension": "3",
    "space": "RAS",
    "sizes": "4 5 6",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)",
    "endian": "little",
    "encoding": "raw",
}


def nrrd_bytes(content: bytes | None = None, end: str = "\n", **fields: str | None) -> bytes:
    """An NRRD file; fields: with `_` for a space, None to leave one out."""
    given = NRRD_HEADER | {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
    content = patient().tobytes("F") if content is None else content
    return ("NRRD0005\n" + "\n".join(lines) + "\n" + end).encode() + content


def nifti_bytes(change: Callable[[np.ndarray], object] = lambda header: None, tail: bytes = b"") -> bytes:
    """A NIfTI file whose header `change` alters. tail: bytes behind its voxels."""
    image = nib.Nifti1Image(patient(), np.diag([1, 2, 3, 1]))
    whole = bytearray(image.to_bytes())
    header = np.frombuffer(whole[:348], nib.Nifti1Header.template_dtype).copy()
    change(header)
    whole[:348] = header.tobytes()
    return bytes(whole) + tail


def setting(**values: object) -> Callable[[np.ndarray], object]:
    def change(header: np.ndarray) -> None:
        for name, value in values.items():
            header[name] = value

    return change


BIG = [3, 2000, 2000, 2000, 1, 1, 1, 1]
LYING = [3, 600, 600, 600, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        # Voxels in another file, however a header spells it.
        *(
            ("v.nrrd", nrrd_bytes(b"").replace(b"encoding", line + b"\nencoding"), "in a separate file")
            for line in (
                b"data file: secret.raw",
                b"datafile: /etc/passwd",
                b"DATA FILE:../secret.raw",
                b"Data  File : secret.raw",
                b"data\tfile: secret.raw",
                b"data file: LIST\nsecret.raw",
                b"data file: s%03d.raw 1 9 1",
                b"data file:=secret.raw",
            )
        ),
        ("v.nii", nifti_bytes(setting(magic=b"ni1")), "in a separate file"),
        # Sizes that lie.
        ("v.nii", nifti_bytes(setting(dim=BIG)), "more than the limit"),
        ("v.nii", nifti_bytes(setting(dim=LYING)), "is it complete"),
        ("v.nii.gz", gzip.compress(nifti_bytes(setting(dim=LYING)), mtime=0), "is it complete"),
        ("v.nii", nifti_bytes(setting(dim=[3, -4, 5, 6, 1, 1, 1, 1])), "no voxels|is it complete"),
        ("v.nii", nifti_bytes(setting(dim=[2, 4, 30, 1, 1, 1, 1, 1])), "not a 3-D volume"),
        ("v.nii", nifti_bytes(setting(dim=[5, 2, 5, 3, 2, 2, 1, 1])), "not a 3-D volume"),
        ("v.nrrd", nrrd_bytes(sizes="2000 2000 2000"), "more than the limit"),
        ("v.nrrd", nrrd_bytes(sizes="600 600 600"), "is it complete"),
        (
            "v.nrrd",
            nrrd_bytes(gzip.compress(bytes(240), mtime=0), sizes="600 600 600", encoding="gz"),
            "is it complete",
        ),
        ("v.nrrd", nrrd_bytes(bz2.compress(bytes(240)), sizes="40 50 60", encoding="bz2"), "is it complete"),
        ("v.nrrd", nrrd_bytes(sizes="0 5 6"), "no voxels"),
        ("v.nrrd", nrrd_bytes(sizes="-4 -5 6"), "no voxels"),
        ("v.nrrd", nrrd_bytes(sizes=f"4 5 {10**30}"), "no voxels|is it complete"),
        ("v.nrrd", nrrd_bytes(sizes="4 30"), "is it complete"),
        ("v.nrrd", nrrd_bytes(byte_skip="9999999999"), "are skipped"),
        ("v.nrrd", nrrd_bytes(encoding="text"), "is it complete"),
        ("v.nrrd", b"NRRD0005\n" + b"a" * 2**21, "is it complete"),  # no line ends
        # Where the voxels begin.
        *(
            ("v.nii", nifti_bytes(setting(vox_offset=offset)), "is it complete")
            for offset in (0, 8, -352, 1e30, np.nan, np.inf)
        ),
        # Affines that are none.
        ("v.nii", nifti_bytes(setting(srow_x=[np.nan, 0, 0, 0])), "degenerate"),
        ("v.nii", nifti_bytes(setting(srow_x=[np.inf, 0, 0, 0])), "degenerate"),
        ("v.nii", nifti_bytes(setting(srow_x=[1e30, 0, 0, 0])), "degenerate"),
        ("v.nii", nifti_bytes(setting(srow_x=[0, 0, 0, 0])), "degenerate"),
        ("v.nrrd", nrrd_bytes(space_directions="(inf,0,0) (0,2,0) (0,0,3)"), "degenerate"),
        ("v.nrrd", nrrd_bytes(space_directions="(nan,0,0) (0,2,0) (0,0,3)"), "degenerate|is it complete"),
        ("v.nrrd", nrrd_bytes(space_directions="(1e300,0,0) (0,2,0) (0,0,3)"), "degenerate"),
        ("v.nrrd", nrrd_bytes(space_directions="none (0,2,0) (0,0,3)"), "not a 3-D volume"),
        # Types.
        ("v.nrrd", nrrd_bytes(type="block"), "is it complete"),
        ("v.nrrd", nrrd_bytes(endian=None), "is it complete"),
        ("v.nrrd", nrrd_bytes(encoding="zip"), "is it complete"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / "secret.raw").write_bytes(patient().tobytes("F"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_volume(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.nii", nifti_bytes()),
        ("v.nii", gzip.compress(nifti_bytes(), mtime=0)),  # packed, whatever its name
        ("v.nii.gz", nifti_bytes()),  # not packed, whatever its name
        ("v.nii.gz", gzip.compress(nifti_bytes(setting(dim=[5, 4, 5, 6, 1, 1, 1, 1])), mtime=0)),
        ("v.nrrd", nrrd_bytes()),
        ("v.nrrd", nrrd_bytes(end="\r\n")),
        ("v.nrrd", nrrd_bytes(patient().astype(">i2").tobytes("F"), endian="big")),
        ("v.nrrd", nrrd_bytes(gzip.compress(patient().tobytes("F"), mtime=0), encoding="gzip")),
        ("v.nrrd", nrrd_bytes(bz2.compress(patient().tobytes("F")), encoding="bzip2")),
        ("v.nrrd", nrrd_bytes(" ".join(map(str, patient().ravel("F"))).encode(), encoding="ascii")),
        (
            "v.nrrd",  # an axis of one channel
            nrrd_bytes(dimension="4", sizes="1 4 5 6", space_directions="none (1,0,0) (0,2,0) (0,0,3)"),
        ),
    ],
)
def test_every_way_to_store_voxels_is_the_same_volume(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.voxels, patient())
    assert np.allclose(volume.affine, np.diag([1, 2, 3, 1]))


def test_voxels_alone_are_read_without_an_orientation(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(nrrd_bytes(space=None, space_directions=None))
    (tmp_path / "v.nii").write_bytes(nifti_bytes(setting(sform_code=0, qform_code=0)))
    for name in ("v.nrrd", "v.nii"):
        stored = read_stored(tmp_path / name)
        assert stored.affine is None and np.array_equal(stored.voxels, patient())
        with pytest.raises(ValueError, match="orientation"):
            read_volume(tmp_path / name)


def test_a_scaled_nifti_file_is_read_in_its_unit(tmp_path: Path) -> None:
    (tmp_path / "v.nii").write_bytes(nifti_bytes(setting(scl_slope=0.5, scl_inter=-3)))
    volume = read_volume(tmp_path / "v.nii")
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, patient() * np.float32(0.5) - 3)


def peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


EXTENDED = struct.pack("<ii", -16, 4)  # an extension that reaches to the end of the file


@pytest.mark.parametrize("kind", ["nifti", "nrrd gzip", "nrrd bzip2", "extension"])
def test_what_unpacks_larger_than_its_header_says_is_not_unpacked(tmp_path: Path, kind: str) -> None:
    zeros = bytes(2**26)
    if kind == "nifti":
        path, content = tmp_path / "v.nii.gz", gzip.compress(nifti_bytes(tail=zeros), 1, mtime=0)
    elif kind == "extension":
        whole = nifti_bytes(setting(vox_offset=352 + 16))
        whole = whole[:348] + b"\1\0\0\0" + EXTENDED + bytes(8) + whole[352:] + zeros
        path, content = tmp_path / "v.nii.gz", gzip.compress(whole, 1, mtime=0)
    else:
        pack = gzip.compress if kind.endswith("gzip") else bz2.compress
        packed = pack(patient().tobytes("F") + zeros, 1)
        path, content = tmp_path / "v.nrrd", nrrd_bytes(packed, encoding=kind.split()[1])
    path.write_bytes(content)
    read_volume(path)  # imports the reader's library
    assert peak_bytes(lambda: read_volume(path)) < 2**23
    assert np.array_equal(read_volume(path).voxels, patient())


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd first", "nrrd last"])
def test_of_a_volume_with_channels_one_is_kept_in_memory(tmp_path: Path, kind: str) -> None:
    channels, shape = 48, (64, 64, 64)
    one_bytes = 2 * 64**3
    film = np.random.default_rng(0).integers(0, 4, (*shape, channels)).astype(np.int16)
    path = tmp_path / f"v.{kind.split()[0]}"
    if kind == "nii.gz":
        nib.save(nib.Nifti1Image(film, np.eye(4)), path)
    else:
        first = kind.endswith("first")
        none, rows = [np.nan] * 3, np.eye(3).tolist()
        directions = np.array([none, *rows] if first else [*rows, none])
        voxels = np.moveaxis(film, -1, 0) if first else film
        nrrd.write(str(path), voxels, {"space": "RAS", "space directions": directions}, compression_level=1)
    found = read_volume(path, channel=7)
    assert np.array_equal(found.voxels, film[..., 7])
    del film, found
    assert peak_bytes(lambda: read_volume(path, channel=7)) < 2 * one_bytes + 2**23 < channels * one_bytes


def test_a_broken_checksum_is_found(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(nifti_bytes(), mtime=0))
    packed[-5] ^= 1
    (tmp_path / "v.nii.gz").write_bytes(bytes(packed))
    with pytest.raises(ValueError, match="is it complete"):
        read_volume(tmp_path / "v.nii.gz")


def test_a_pipe_is_no_volume(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.nii")
    with pytest.raises(ValueError, match="no such file"):
        read_volume(tmp_path / "v.nii")
