"""Make src/bird_hf/assets/volumes from the raw files: `python tools/embed_volumes.py RAW_FOLDER [OUT]`.

RAW_FOLDER contains ch2.nii.gz, aal.nii.gz, aal.nii.txt (mricron-data) and the {lung,brain,breast}*.nrrd files
(pyradiomics); the MNI152 head is read from the installed nilearn package. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bird_hf.data.embedded.atlas_names import AAL_LABELS, english_name
from bird_hf.data.sources.volume_files import read_volume
from bird_hf.data.volumes import Volume, mr_window, to_uint8

HU_SLOPE, HU_LOWEST = 6.0, -1024.0  # uint8 covers -1024..506 HU in steps of 6: lung and soft-tissue windows
CT_PIXEL_MM = 1.5  # in plane; the slice distance of 5 mm is kept
MARGIN_MM = 4.0  # of background around the body
AIR_HU = -400.0  # below: air or lung
TRACHEA_HU = -900.0  # below: open air, not lung tissue
MIN_LUNG_ML = 300.0
TUMOR, LEFT_LUNG, RIGHT_LUNG = 1, 2, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, help="folder with the raw volumes")
    default = Path(__file__).parents[1] / "src/bird_hf/assets/volumes"
    parser.add_argument("out", type=Path, nargs="?", default=default)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    check_atlas(args.raw / "aal.nii.txt")
    aal = read_volume(args.raw / "aal.nii.gz")
    embed_head(args.out, "colin27", read_volume(args.raw / "ch2.nii.gz"), aal)
    embed_head(args.out, "mni152", read_volume(mni152_file()), aal)
    for name in ("brain1", "brain2", "breast1"):
        embed_tumor_mr(args.out, name, *read_pair(args.raw, name))
    for name in ("lung1", "lung2"):
        embed_chest(args.out, name, *read_pair(args.raw, name))
    size = sum(file.stat().st_size for file in args.out.glob("*.nii.gz"))
    print(f"{args.out}: {size / 1e6:.1f} MB")


def read_pair(raw: Path, name: str) -> tuple[Volume, Volume]:
    return read_volume(raw / f"{name}_image.nrrd"), read_volume(raw / f"{name}_label.nrrd")


def mni152_file() -> Path:
    import nilearn

    return Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def check_atlas(table: Path) -> None:
    """Raises ValueError if the names in the package differ from those in the atlas's own table."""
    for line in filter(str.strip, table.read_text().splitlines()):
        value, name = line.split()[:2]
        if AAL_LABELS[int(value)] != english_name(name):
            raise ValueError(
                f"{table}: {value} is {name}, not {AAL_LABELS[int(value)]!r}; correct atlas_names"
            )


def embed_head(out: Path, name: str, head: Volume, aal: Volume) -> None:
    """Save a T1 head in MNI space, and the atlas resampled to it by the two affines, nearest voxel.

    AAL was drawn on Colin27, whose brain is a little larger than the MNI152 average: labels outside of the head are
    removed.
    """
    labels = np.where(head.voxels > 0, onto_grid(aal, head), 0)
    box = crop_box(head, (head.voxels > 12) | (labels > 0))
    save(out / f"{name}.nii.gz", head.voxels[box].astype(np.uint8), shifted(head.affine, box))
    save(out / f"{name}_aal.nii.gz", labels[box].astype(np.uint8), shifted(head.affine, box))


def onto_grid(labels: Volume, grid: Volume) -> np.ndarray:
    """Returns the label values at the voxels of another volume in the same space; 0 outside of the labels."""
    matrix = np.linalg.inv(labels.affine) @ grid.affine
    return ndimage.affine_transform(labels.voxels, matrix, output_shape=grid.voxels.shape, order=0)


def embed_tumor_mr(out: Path, name: str, image: Volume, tumor: Volume) -> None:
    grey = to_uint8(image.voxels, *mr_window(image.voxels))
    box = crop_box(image, (grey > 40) | (tumor.voxels > 0))
    save(out / f"{name}.nii.gz", grey[box], shifted(image.affine, box))
    save(out / f"{name}_labels.nii.gz", (tumor.voxels[box] > 0).astype(np.uint8), shifted(image.affine, box))


def embed_chest(out: Path, name: str, image: Volume, tumor: Volume) -> None:
    """Save a CT at CT_PIXEL_MM in plane, as uint8 with the scale to HU in the header, and its three labels."""
    hu, affine = coarser(image, smooth=True)
    tumor_share, _ = coarser(Volume(tumor.voxels > 0, tumor.spacing_mm, tumor.affine), smooth=False)
    spacing = (CT_PIXEL_MM, CT_PIXEL_MM, image.spacing_mm[2])
    labels, body = lungs_of(hu, spacing)
    labels[tumor_share > 0.5] = TUMOR
    box = crop_box(Volume(hu, spacing, affine), body)
    stored = np.clip(np.rint((hu[box] - HU_LOWEST) / HU_SLOPE), 0, 255).astype(np.uint8)
    save(out / f"{name}.nii.gz", stored, shifted(affine, box), (HU_SLOPE, HU_LOWEST))
    save(out / f"{name}_labels.nii.gz", labels[box], shifted(affine, box))


def coarser(volume: Volume, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns voxels and affine at CT_PIXEL_MM in plane; the outer edges stay where they are."""
    factor = np.array([CT_PIXEL_MM / volume.spacing_mm[0], CT_PIXEL_MM / volume.spacing_mm[1], 1.0])
    voxels = volume.voxels.astype(np.float32)
    if smooth:  # by about half a new pixel, against aliasing
        voxels = ndimage.gaussian_filter(voxels, (0.4 * factor[0], 0.4 * factor[1], 0))
    shape = tuple(int(n) for n in np.array(voxels.shape) / factor)
    step = np.diag([*factor, 1.0])
    step[:3, 3] = factor / 2 - 0.5
    return ndimage.affine_transform(voxels, step, output_shape=shape, order=1), volume.affine @ step


def lungs_of(hu: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lung fields (uint8 labels) and the body (bool) of a chest CT in RAS+ order."""
    body = body_of(hu)
    air = (hu < AIR_HU) & body
    trachea = trachea_of(hu, air, spacing)
    lungs = air & ~ndimage.binary_dilation(trachea, disk(2)[:, :, None])
    lungs = ndimage.binary_opening(lungs, disk(1)[:, :, None])
    sides = split_sides(lungs, body, spacing)
    labels = np.zeros(hu.shape, np.uint8)
    for value in (LEFT_LUNG, RIGHT_LUNG):
        for z in range(hu.shape[2]):  # vessels are part of the lung field
            closed = ndimage.binary_closing(np.pad(sides[:, :, z] == value, 6), disk(3))[6:-6, 6:-6]
            filled = ndimage.binary_fill_holes(closed) & body[:, :, z] & ~trachea[:, :, z]
            labels[:, :, z][filled & (labels[:, :, z] == 0)] = value
        labels[(labels == value) & ~largest(ndimage.binary_opening(labels == value, disk(1)[:, :, None]))] = 0
    return labels, body


def largest(mask: np.ndarray) -> np.ndarray:
    """Returns the largest connected component of a mask."""
    pieces, _ = ndimage.label(mask)
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1


def body_of(hu: np.ndarray) -> np.ndarray:
    """Returns the patient without the table: per slice the largest solid component, with cavities filled."""
    body = np.zeros(hu.shape, bool)
    for z in range(hu.shape[2]):
        solid = ndimage.binary_opening(hu[:, :, z] > AIR_HU, disk(2))
        if solid.any():
            body[:, :, z] = ndimage.binary_fill_holes(largest(solid))
    return body


def trachea_of(hu: np.ndarray, air: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Returns the air that is connected with the round hole near the middle of the topmost slices."""
    open_air = ndimage.binary_opening((hu < TRACHEA_HU) & air, disk(1)[:, :, None])
    middle = np.argwhere(air)[:, 0].mean()
    trachea = np.zeros(hu.shape, bool)
    previous: np.ndarray | None = None
    for z in range(hu.shape[2] - 1, -1, -1):
        pieces, number = ndimage.label(open_air[:, :, z])
        found = np.zeros(hu.shape[:2], bool)
        for i in range(1, number + 1):
            piece = pieces == i
            mm2 = piece.sum() * spacing[0] * spacing[1]
            near = abs(np.argwhere(piece)[:, 0].mean() - middle) * spacing[0] < 30
            linked = near if previous is None else bool((piece & previous).any())
            if linked and 40 < mm2 < 700:
                found |= piece
        trachea[:, :, z] = found
        if found.any():
            previous = ndimage.binary_dilation(found, disk(2))
        elif trachea.any(axis=(0, 1)).sum() < 5:  # that was the throat: the trachea starts further down
            previous = None
        else:
            break
    return trachea


def split_sides(lungs: np.ndarray, body: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Returns left and right lung by the patient's sides; touching lungs are separated at their thinnest place."""
    core = ndimage.binary_erosion(lungs, disk(2)[:, :, None])
    pieces, number = ndimage.label(core)
    millilitres = np.bincount(pieces.ravel(), minlength=number + 1) * np.prod(spacing) / 1000
    middle = np.argwhere(body)[:, 0].mean()
    seeds = np.zeros(lungs.shape, np.uint8)
    for i in np.flatnonzero(millilitres[1:] >= MIN_LUNG_ML) + 1:
        piece = pieces == i
        seeds[piece] = RIGHT_LUNG if np.argwhere(piece)[:, 0].mean() > middle else LEFT_LUNG
    if set(np.unique(seeds)) != {0, LEFT_LUNG, RIGHT_LUNG}:
        raise ValueError("the two lungs cannot be separated; check the volume and the thresholds")
    nearest = ndimage.distance_transform_edt(seeds == 0, spacing, return_distances=False, return_indices=True)
    reach = ndimage.binary_dilation(seeds > 0, disk(4)[:, :, None])
    return np.where(lungs & reach, seeds[tuple(nearest)], 0)


def disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius + 1


def crop_box(volume: Volume, inside: np.ndarray) -> tuple[slice, slice, slice]:
    """Returns the bounding box of `inside`, enlarged by MARGIN_MM on every side."""
    lows, highs = [], []
    for axis, spacing in enumerate(volume.spacing_mm):
        hit = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        margin = round(MARGIN_MM / spacing)
        lows.append(max(0, int(hit[0]) - margin))
        highs.append(min(inside.shape[axis], int(hit[-1]) + 1 + margin))
    return slice(lows[0], highs[0]), slice(lows[1], highs[1]), slice(lows[2], highs[2])


def shifted(affine: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Returns the affine of a crop."""
    step = np.eye(4)
    step[:3, 3] = [part.start for part in box]
    return affine @ step


def save(
    path: Path, voxels: np.ndarray, affine: np.ndarray, scale: tuple[float, float] | None = None
) -> None:
    """Write .nii.gz without a date in it, so that the same voxels give the same bytes."""
    image = nib.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    data = bytearray(image.to_bytes())
    if scale:  # set in the bytes, because nibabel would rescale the voxels, which are integers already
        data[112:120] = np.array(scale, image.header.endianness + "f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(gzip.compress(bytes(data), 9, mtime=0))
    print(f"{path.name}: {voxels.shape} {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
