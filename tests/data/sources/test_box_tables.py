"""CSV files of boxes: own columns and published files, frames, cases, and files that are damaged or hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import MaskedImage
from bird_hf.data.sources import box_tables
from bird_hf.data.sources.base import Source
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_sources import details, listed, photograph

ABOUT = "dataset: hospital\nmodality: x_ray\nregion: chest\nannotations: boxes.csv\n"
OWN = "image,label,x1,y1,x2,y2\n"


def table(
    root: Path, text: str, about: str = ABOUT, exif: int = 1, height: int = 40, width: int = 60
) -> Path:
    """A folder with boxes.csv and the images a.png and b.png."""
    (root / "labels.yaml").write_text(about)
    (root / "boxes.csv").write_text(text)
    for seed, name in enumerate(("a", "b")):
        photograph(root / "images" / f"{name}.png", exif, height, width, seed)
    return root


def read(source: Source, name: str = "a") -> MaskedImage:
    return source.read(listed(source)[0][f"x_ray_00--hospital--{name}--2d_none"])


def boxes_of(image: MaskedImage) -> list[tuple[str, tuple[int, ...]]]:
    """(label, half-open pixels) of the objects."""
    height, width = image.pixels.shape[:2]
    return [(label, tuple(round(v) for v in box.to_pixels((width, height)))) for label, box in image.boxes]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (OWN + "a.png,nodule,10,5,30,20\n", ""),
        ("image,label,x,y,w,h\na.png,nodule,10,5,20,15\n", ""),
        (
            "label,y2,x2,y1,x1,image,note\nnodule,20,30,5,10,a,hello\n",
            "",
        ),  # any order, other columns, no ending
        ("\ufeff" + OWN + "a.png,nodule,10,5,30,20\n", ""),  # with a byte order mark, as Excel writes it
        (
            OWN.replace("\n", "\r\n") + "a.png,nodule,10,5,30,20\r\n\r\n",
            "",
        ),  # Windows ends of lines, an empty line
        (OWN + '"a.png","nodule","1e1",5.0,30.,20\n', ""),  # quoted, and other forms of the numbers
        (OWN + "a.png,nodule,10,5,30,20\na.png,nodule,10,5,30,20\n", ""),  # the same row twice is one object
        (OWN + "a.png,nodule,10,5,30,20\na.png,,,,,\n", ""),  # a row without a box adds nothing
        (
            "file,what,l,t,r,b\na.png,nodule,10,5,30,20\n",
            "{image: file, label: what, x1: l, y1: t, x2: r, y2: b}",
        ),
        ("file,label,x,y,w,h\na.png,nodule,10,5,20,15\n", "{image: file}"),  # the other names are ours
        (
            "image,label,x,y,w,h,x1,y1,x2,y2\na.png,nodule,10,5,20,15,0,0,1,1\n",
            "{x: x}",
        ),  # chosen by `columns`
    ],
)
def test_own_columns(tmp_path: Path, text: str, columns: str) -> None:
    about = ABOUT + (f"columns: {columns}\n" if columns else "")
    assert boxes_of(read(open_source(table(tmp_path, text, about)))) == [("nodule", (10, 5, 30, 20))]


def test_tabs_separate_the_columns_of_a_tsv_file(tmp_path: Path) -> None:
    table(tmp_path, "", ABOUT.replace(".csv", ".tsv"))
    (tmp_path / "boxes.tsv").write_text((OWN + "a.png,nodule,10,5,30,20\n").replace(",", "\t"))
    assert boxes_of(read(open_source(tmp_path))) == [("nodule", (10, 5, 30, 20))]


VINDR = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
MS_CXR = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height\n"
RSNA = "patientId,x,y,width,height,Target\n"
MIMIC = "files/p10/p10000032/s50414267/a.jpg"


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        # Readers that agree exactly give one object; others each their own.
        (
            VINDR
            + "a,R1,Lung Opacity,10,5,30,20\na,R2,Lung Opacity,10,5,30,20\na,R3,Lung Opacity,11,5,30,20\n",
            [("lung opacity", (10, 5, 30, 20)), ("lung opacity", (11, 5, 30, 20))],
        ),
        # One reader found nothing. The columns of the version with class numbers.
        (
            "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\na,No finding,14,R1,,,,\n"
            "a,Nodule/Mass,8,R2,1.0,2.0,9.0,8.0\n",
            [("nodule/mass", (1, 2, 9, 8))],
        ),
        (
            MS_CXR + f'a,Pneumonia,"opacity, left",{MIMIC},10,5,20,15,60,40\n',
            [("pneumonia", (10, 5, 30, 20))],
        ),
        (RSNA + "a,10.0,5.0,20.0,15.0,1\nb,,,,,0\n", [("pneumonia", (10, 5, 30, 20))]),
    ],
    ids=["vindr", "vindr class numbers", "ms-cxr", "rsna"],
)
def test_published_files_are_read_as_they_come(
    tmp_path: Path, text: str, objects: list[tuple[str, tuple[int, ...]]]
) -> None:
    source = open_source(table(tmp_path, text))
    assert boxes_of(read(source)) == objects
    assert not source.pixels_are_free


def test_a_number_is_named_by_the_labels_of_the_description(tmp_path: Path) -> None:
    about = ABOUT + "labels: {1: lung opacity}\n"
    assert read(open_source(table(tmp_path, RSNA + "a,10,5,20,15,1\n", about))).boxes[0][0] == "lung opacity"


def test_images_of_a_patient_or_study_are_one_case(tmp_path: Path) -> None:
    rows = (
        f"a,Edema,t,{MIMIC},10,5,20,15,60,40\nb,Edema,t,{MIMIC.replace('s50414267', 's2')},10,5,20,15,60,40\n"
    )
    table(tmp_path, MS_CXR + rows)
    cases = [candidate.info.case_id for candidate in listed(open_source(tmp_path))[0].values()]
    assert len({*cases}) == 1 and "10000032" not in cases[0]
    (tmp_path / "boxes.csv").write_text(
        OWN.replace("\n", ",subject_id\n") + "a,x ray,1,1,9,9,7\nb,x ray,1,1,9,9,8\n"
    )
    cases = [candidate.info.case_id for candidate in listed(open_source(tmp_path))[0].values()]
    assert len({*cases}) == 2
    (tmp_path / "labels.yaml").write_text(ABOUT + 'patient: "^(.)"\n')  # what the user says comes first
    assert {c.info.case_id for c in listed(open_source(tmp_path))[0].values()} == {"hospital/a", "hospital/b"}


def test_rows_of_an_image_with_two_patients_leave_it_out(tmp_path: Path) -> None:
    text = OWN.replace("\n", ",patient\n") + "a,nodule,1,1,9,9,Doe\na,nodule,2,2,9,9,Roe\n"
    source = open_source(table(tmp_path, text))
    assert listed(source)[1] == {"a": Drop.BAD_NAME} and details(source) == {"a": "its rows name 2 patients"}


SIZED = "image,label,x1,y1,x2,y2,image_width,image_height\n"
# (x1, y1, x2, y2) = (10, 5, 30, 20) of the 60 x 40 stored pixels, on the upright picture.
UPRIGHT = {
    1: (10, 5, 30, 20),
    2: (30, 5, 50, 20),
    3: (30, 20, 50, 35),
    4: (10, 20, 30, 35),
    5: (5, 10, 20, 30),
    6: (20, 10, 35, 30),
    7: (20, 30, 35, 50),
    8: (5, 30, 20, 50),
}


@pytest.mark.parametrize("exif", UPRIGHT)
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("declared", [None, "stored", "upright"])
def test_boxes_are_brought_onto_the_upright_picture(
    tmp_path: Path, exif: int, sized: bool, declared: str | None
) -> None:
    text = SIZED + f"a,nodule,10,5,30,20,{'60,40' if sized else ','}\n"
    about = ABOUT + (f"orientation: {declared}\n" if declared else "")
    source = open_source(table(tmp_path, text, about, exif))
    turned = exif >= 5  # only then does the size tell
    if exif > 1 and declared is None and not (sized and turned):
        expected: object = Drop.ORIENTATION_UNKNOWN
    elif sized and turned and declared == "upright":
        expected = Drop.SIZE_MISMATCH  # the user contradicts the size
    else:
        expected = (10, 5, 30, 20) if declared == "upright" else UPRIGHT[exif]
    if isinstance(expected, Drop):
        with pytest.raises(FaultyImageError) as caught:
            read(source)
        assert caught.value.reason is expected and caught.value.detail.startswith("row 2: ")
    else:
        assert boxes_of(read(source)) == [("nodule", expected)]


@pytest.mark.parametrize("exif", UPRIGHT)
def test_square_pictures_need_the_orientation(tmp_path: Path, exif: int) -> None:
    source = open_source(table(tmp_path, SIZED + "a,nodule,10,5,30,20,60,60\n", exif=exif, height=60))
    if exif == 1:
        assert boxes_of(read(source)) == [("nodule", (10, 5, 30, 20))]
    else:
        with pytest.raises(FaultyImageError, match="orientation_unknown"):
            read(source)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SIZED + "a,nodule,10,5,30,20,120,80\n", "row 2: marks of 120x80, picture of 60x40"),
        (SIZED + "a,nodule,10,5,30,20,40,60\n", "row 2: marks of 40x60, picture of 60x40"),
        (
            SIZED.replace("image_", "") + "a,nodule,10,5,30,20,120,80\n",
            "row 2: marks of 120x80, picture of 60x40",
        ),
        (MS_CXR + f"a,Edema,t,{MIMIC},10,5,20,15,2500,3000\n", "row 2: marks of 2500x3000, picture of 60x40"),
    ],
)
def test_boxes_of_another_size_are_left_out_with_both_sizes(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FaultyImageError) as caught:
        read(open_source(table(tmp_path, text)))
    assert caught.value.reason is Drop.SIZE_MISMATCH and caught.value.detail == says


BAD_ROWS = [
    ("a,nodule,nan,5,30,20", "row 2: 'nan' is not a number"),
    ("a,nodule,inf,5,30,20", "row 2: 'inf' is not a number"),
    ("a,nodule,10,5,1e400,20", "row 2: '1e400' is beyond any image"),  # infinite
    ("a,nodule,10,5,1e99,20", "row 2: '1e99' is beyond any image"),
    ("a,nodule,1_0,5,30,20", "row 2: '1_0' is not a number"),  # Python reads it as 10
    ("a,nodule,\u0661\u0660,5,30,20", "row 2: '\u0661\u0660' is not a number"),  # so are other digits
    ("a,nodule,10,5,30,", "row 2: '' is not a number"),
    ("a,nodule,10,5", "row 2: '' is not a number"),  # a row that is cut off
    ("a,nodule,,,,", "row 2: 'nodule' without a box"),
    ("a,,10,5,30,20", "row 2: no label"),
    ("a,nodule,30,5,10,20", "row 2: box 30, 5, 10, 20 is empty or inverted"),
    ("a,nodule,10,5,10,20", "row 2: box 10, 5, 10, 20 is empty or inverted"),
    ("a,nodule,10,5,62,20", "row 2: box 10, 5, 62, 20 is outside the 60x40 picture"),
    ("a,nodule,-1.5,5,30,20", "row 2: box -1.5, 5, 30, 20 is outside the 60x40 picture"),
    ("a,nodule,60,5,61,20", "row 2: box 60, 5, 61, 20 is outside the 60x40 picture"),
    ("a,nodule," + "9" * 9_000 + ",5,30,20", f"row 2: '{'9' * 40}...' is not a number"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS)
def test_a_bad_row_leaves_its_image_out_with_its_number(tmp_path: Path, row: str, says: str) -> None:
    source = open_source(table(tmp_path, OWN + row + "\nb,nodule,10,5,30,20\n"))
    left_out = listed(source)[1]
    if left_out:
        assert left_out == {"a": Drop.UNREADABLE_BOX} and details(source) == {"a": says}
    else:
        with pytest.raises(FaultyImageError) as caught:
            read(source)
        assert caught.value.reason is Drop.UNREADABLE_BOX and caught.value.detail == says
    assert len(read(source, "b").boxes) == 1


@pytest.mark.parametrize(("row", "says"), BAD_ROWS)
def test_a_bad_row_alone_is_dropped_and_its_label_is_not_absent(tmp_path: Path, row: str, says: str) -> None:
    text = OWN + row + "\na,fracture,1,1,9,9\nb,edema,10,5,30,20\n"
    image = read(open_source(table(tmp_path, text, ABOUT + "faulty: drop_object\nexhaustive: true\n")))
    assert [label for label, _ in image.boxes] == ["fracture"]
    # A box without a label may be one of any object.
    assert image.absent == (() if ",," in row and "nodule" not in row else ("edema",))


def test_a_box_up_to_a_pixel_outside_is_cut_at_the_border(tmp_path: Path) -> None:
    image = read(open_source(table(tmp_path, OWN + "a,nodule,-1,5,61,41\n")))
    assert boxes_of(image) == [("nodule", (0, 5, 60, 40))]


def test_labels_are_absent_only_if_the_table_is_exhaustive(tmp_path: Path) -> None:
    text = OWN + "a,nodule,10,5,30,20\nb,edema,10,5,30,20\n"
    assert read(open_source(table(tmp_path, text))).absent == ()
    assert read(open_source(table(tmp_path, text, ABOUT + "exhaustive: true\n"))).absent == ("edema",)


def test_unusable_labels_and_images_without_objects_are_left_out(tmp_path: Path) -> None:
    source = open_source(table(tmp_path, OWN + "a,class3,10,5,30,20\nb,No finding,,,,\n"))
    assert listed(source)[1] == {"a": Drop.UNNAMED_CLASS, "b": Drop.NO_MASKS}
    assert details(source)["a"] == "row 2: class 'class3' of hospital"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("c.jpg", "c"),
        ("c", "c"),  # an id
        ("C.JPG", "c"),
        ("train/deep/c.jpg", "c"),
        ("train\\deep\\c.jpg", "c"),
        ("elsewhere/c.jpg", "c"),  # one file fits, wherever it is
        ("../../etc/c.jpg", "c"),
        ("p1/same.png", "p1-same"),  # two files: their folders tell
        ("1.2.840.1", "1.2.840.1"),  # dots are no ending
        ("same.png", "2 files of this name"),
        ("p3/same.png", "2 files of this name"),
        ("c.png", "no file of this name"),  # a picture that was converted may have another size
        ("../../etc/passwd", "no file of this name"),
        ("/etc/passwd", "no file of this name"),
        ("..", "no file of this name"),
        ("", "no file of this name"),
        ("x" * 9_999, "no file of this name"),
    ],
)
def test_an_image_is_found_where_one_file_fits(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT)
    (tmp_path / "boxes.csv").write_text(OWN + f"{name},nodule,10,5,30,20\n")
    files = ("train/deep/c.jpg", "p1/same.png", "p2/same.png", "1.2.840.1.png")
    for seed, file in enumerate(files):
        photograph(tmp_path / file, seed=seed)
    source = open_source(tmp_path)
    if found.endswith("name"):
        assert [*listed(source)[1].values()] == [Drop.MISSING_IMAGE] and [*details(source).values()] == [
            found
        ]
    else:
        assert read(source, found).boxes


def test_several_names_of_one_file_are_one_image(tmp_path: Path) -> None:
    text = OWN + "a,nodule,10,5,30,20\na.png,nodule,10,5,30,20\nimages/a.png,edema,1,1,9,9\n"
    assert [label for label, _ in read(open_source(table(tmp_path, text))).boxes] == ["nodule", "edema"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has none"),
        ("image;label;x1;y1;x2;y2\n", "it has 'image;label;x1;y1;x2;y2'"),
        ("image,label,x1,y1,x2\n", "its columns must be image, label and x1, y1, x2, y2 or x, y, w, h"),
        ("x1,y1,x2,y2,label\n", "its columns must be image"),
        ("image,label,x,y,w,h,x1,y1,x2,y2\n", "name the columns of one of them"),
        (OWN.replace("\n", ",x1\n"), "two columns have one name"),
        (OWN + 'a,"nodule,1,1,9,9\n' + "b,nodule,1,1,9,9\n" * 3, "is a quotation mark not closed"),
        (OWN + 'a,"nodule,1,1,9,9\n' + "b,nodule,1,1,9,9\n" * 9_000, "is a quotation mark not closed"),
        (OWN + "a,no\0dule,1,1,9,9\n", "NUL"),
        (OWN + f"a,{'n' * 20_000},1,1,9,9\n", "line 2: a field of more than 10,000 characters"),
        (",".join(f"c{i}" for i in range(50)) + "\n", r"'c19', \.\.\."),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        open_source(table(tmp_path, text))
    assert "boxes.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (ABOUT + "columns: {picture: image}\n", "columns names 'picture', which can be image, label"),
        (ABOUT + "columns: {image: file}\n", "there is no column 'file' of `columns`"),
        (ABOUT.replace("boxes.csv", "../boxes.csv"), "must be a file beside labels.yaml"),
        (ABOUT.replace("boxes.csv", "none.csv"), "must be a file beside labels.yaml"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, about: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_source(table(tmp_path, OWN, about))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "")
    (tmp_path / "boxes.csv").write_bytes(OWN.encode() + b"a,n\xf6dule,1,1,9,9\n")
    with pytest.raises(ValueError, match="it is not UTF-8"):
        open_source(tmp_path)


def test_sizes_and_rows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path, OWN + "a,nodule,1,1,9,9\n" * 5)
    monkeypatch.setattr(box_tables, "MAX_ROWS", 4)
    with pytest.raises(ValueError, match="more than 4 rows; split it"):
        open_source(tmp_path)
    monkeypatch.setattr(box_tables, "MAX_TABLE_BYTES", 50)
    with pytest.raises(ValueError, match="larger than 50 bytes; split it"):
        open_source(tmp_path)


def dicom(path: Path, **fields: object) -> np.ndarray:
    """A radiograph as VinDr-CXR has them: pixels, and hardly anything of a header. Returns its stored values."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    header = pydicom.Dataset()
    header.file_meta = meta
    stored = np.random.default_rng(0).integers(0, 4096, (40, 60), np.uint16)
    header.Rows, header.Columns, header.SamplesPerPixel = 40, 60, 1
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelData = stored.tobytes()
    for name, value in fields.items():
        setattr(header, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return stored


@pytest.mark.parametrize("name", ["c.dcm", "c.dicom", "train/c.dicom"])
def test_dicom_pictures_are_read_on_their_stored_pixels(tmp_path: Path, name: str) -> None:
    table(tmp_path, VINDR + "c,R1,Edema,10,5,30,20\n")
    stored = dicom(tmp_path / "images" / name)
    image = read(open_source(tmp_path), "c")
    assert image.pixels.shape == (40, 60) and boxes_of(image) == [("edema", (10, 5, 30, 20))]
    assert np.corrcoef(stored.ravel(), image.pixels.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * 2 * 40 * 60)}, Drop.MULTI_FRAME),
        ({"BurnedInAnnotation": "YES"}, Drop.BURNED_IN),
        (
            {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            Drop.ORIENTATION_UNKNOWN,
        ),
        ({"PixelData": b"\0\0"}, Drop.UNREADABLE_IMAGE),
    ],
)
def test_dicom_files_that_are_no_radiographs_are_left_out(
    tmp_path: Path, fields: dict[str, object], reason: Drop
) -> None:
    table(tmp_path, VINDR + "c,R1,Edema,10,5,30,20\n")
    dicom(tmp_path / "images" / "c.dcm", **fields)
    with pytest.raises(FaultyImageError) as caught:
        read(open_source(tmp_path), "c")
    assert caught.value.reason is reason


@pytest.mark.parametrize("text", [OWN, VINDR, MS_CXR, RSNA], ids=["own", "vindr", "ms-cxr", "rsna"])
def test_a_table_is_built(tmp_path: Path, text: str) -> None:
    rows = {
        OWN: "{},Nodule,10,5,30,20\n",
        VINDR: "{},R1,Nodule,10,5,30,20\n",
        MS_CXR: "{},Nodule,t," + MIMIC.replace("p10000032", "p1000{}") + ",10,5,20,15,60,40\n",
        RSNA: "{},10,5,20,15,1\n",
    }[text]
    src = tmp_path / "src"
    for number in range(1000, 1012):
        photograph(src / "images" / f"{number}.png", height=40, width=60, seed=number)
    (src / "labels.yaml").write_text(ABOUT)
    (src / "boxes.csv").write_text(
        text + "".join(rows.format(number, number) for number in range(1000, 1012))
    )
    manifest = build(src, tmp_path / "out", BuildSettings(pixels=True), workers=1)
    assert not manifest["dropped"] and manifest["source"]["kind"] == "CSV of boxes"
    assert "Boxes are those of the source" in (tmp_path / "out" / "README.md").read_text()
    built = [row for split in ("train", "test") for row in open_folder(tmp_path / "out", "vg", split)]
    boxes = [thing["box"] for row in built for thing in row["objects"]]
    assert len(boxes) >= 12
    assert np.allclose(boxes, (10 / 60, 5 / 40, 30 / 60, 20 / 40), atol=1e-6)
