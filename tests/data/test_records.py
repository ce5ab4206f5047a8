"""Image names are written and parsed in one place; the published row has the stated columns, task and objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_hf.data.records import (
    SINGLE_TASKS,
    Axis,
    Dialogue,
    ImageInfo,
    ImageName,
    ImageRecord,
    Instance,
    MaskName,
    Modality,
    Task,
    Turn,
    dialogue_row,
    row_features,
    single_class_modalities,
)
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span

settings.register_profile("no deadline", deadline=None)  # the machine may be busy
settings.load_profile("no deadline")

COLUMNS = [
    "image_id", "image", "image_wh", "modality", "modality_detail", "region", "axis", "slice", "dataset", "case_id",
    "caption", "task", "messages", "forms", "independent", "objects", "synthetic", "teacher",
]  # fmt: skip
LIVER = Instance("liver_0", "liver", Box(0.1, 0.2, 0.3, 0.4), 0.04)
SPLEEN = Instance("spleen_0", "spleen", None, 0.0)
KIDNEY = Instance("kidney_0", "kidney", Box(0.5, 0.5, 1.0, 1.0), 0.2)
INFO = ImageInfo("mr_t1--d--c--z_0000", Modality.MR, "t1", "abdomen", Axis.CORONAL, 0, "d", "c", True)
RECORD = ImageRecord(INFO, (640, 480), (LIVER, SPLEEN, KIDNEY), "An MR image.")
WHERE = Turn(
    Task.VISUAL_GROUNDING,
    "Where is the liver?",
    "Here is the liver.",
    answer_spans=(Span("liver", 12, 17, (LIVER.box,)),),
    instance_ids=("liver_0",),
    form="vg/plain/where-is-the",
)
WHERE_NOT = Turn(Task.VISUAL_GROUNDING, "Find the spleen.", "There is no spleen.", instance_ids=("spleen_0",))
WHAT = Turn(
    Task.REFERRING_CLASSIFICATION,
    "What is this?",
    "The liver.",
    question_spans=(Span("this", 8, 12, (LIVER.box,)),),
    instance_ids=("liver_0",),
)


def dialogue(*turns: Turn) -> Dialogue:
    return Dialogue(RECORD, turns, "templates")


def test_a_row_has_exactly_the_columns_of_the_schema():
    assert list(dialogue_row(dialogue(WHERE))) == COLUMNS
    assert list(row_features()) == COLUMNS


def test_the_whole_row():
    assert dialogue_row(dialogue(WHERE), image="pixels") == {
        "image_id": "mr_t1--d--c--z_0000",
        "image": "pixels",
        "image_wh": [640, 480],
        "modality": "mr",
        "modality_detail": "t1",
        "region": "abdomen",
        "axis": "coronal",
        "slice": 0,
        "dataset": "d",
        "case_id": "c",
        "caption": "An MR image.",
        "task": "vg",
        "messages": [
            {"role": "user", "content": "Where is the liver?"},
            {"role": "assistant", "content": "Here is the <ref>liver</ref><box>(100,200),(300,400)</box>."},
        ],
        "forms": ["vg/plain/where-is-the"],
        "independent": True,
        "objects": [
            {
                "instance_id": "liver_0",
                "label": "liver",
                "box": [0.1, 0.2, 0.3, 0.4],
                "area": 0.04,
                "present": True,
            }
        ],
        "synthetic": True,
        "teacher": "templates",
    }


def test_values_are_plain_strings_not_enums():
    row = dialogue_row(dialogue(WHERE))
    assert {type(row[name]) for name in ("modality", "axis", "task")} == {str}


def test_an_absent_object_has_no_box():
    (item,) = dialogue_row(dialogue(WHERE_NOT))["objects"]
    assert item == {"instance_id": "spleen_0", "label": "spleen", "box": None, "area": 0.0, "present": False}


@pytest.mark.parametrize(
    ("turns", "task"),
    [((WHERE,), "vg"), ((WHAT,), "roc"), ((WHERE, WHAT), "chat"), ((WHERE, WHERE_NOT), "chat")],
)
def test_several_turns_are_a_chat(turns, task):
    assert dialogue_row(dialogue(*turns))["task"] == task


def test_turns_follow_each_other_as_user_and_assistant():
    messages = dialogue_row(dialogue(WHAT, WHERE))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[0]["content"] == "What is <ref>this</ref><box>(100,200),(300,400)</box>?"
    assert messages[2]["content"] == "Where is the liver?"


def test_objects_are_named_once_in_the_order_of_the_record():
    last = replace(WHERE_NOT, instance_ids=("kidney_0", "spleen_0"))
    ids = [item["instance_id"] for item in dialogue_row(dialogue(last, WHAT, WHERE))["objects"]]
    assert ids == ["liver_0", "spleen_0", "kidney_0"]


def test_a_row_survives_its_own_schema():
    from datasets import Dataset

    rows = [dialogue_row(dialogue(WHERE, WHERE_NOT)), dialogue_row(dialogue(WHAT))]
    assert Dataset.from_list(rows, features=row_features()).to_list() == rows


def test_an_image_that_is_not_a_slice_has_no_slice_number():
    planar = replace(RECORD, info=replace(INFO, axis=Axis.PLANAR, slice_index=None))
    row = dialogue_row(Dialogue(planar, (WHERE,), "templates"))
    assert (row["axis"], row["slice"]) == ("2d", None)


def test_present_and_absent_divide_the_instances():
    assert (RECORD.present, RECORD.absent) == ((LIVER, KIDNEY), (SPLEEN,))


def test_the_four_tasks_are_all_but_chat():
    assert set(SINGLE_TASKS) == set(Task) - {Task.CHAT}


def record(modality: Modality, *labels: str) -> ImageRecord:
    instances = [Instance(f"{label}_0", label, LIVER.box, 0.1) for label in labels]
    return ImageRecord(replace(INFO, modality=modality), (9, 9), (*instances, SPLEEN))


@pytest.mark.parametrize("modality", Modality)
def test_pet_and_fundus_images_with_one_label_get_no_classification(modality):
    assert record(modality, "liver", "kidney").allows_classification
    may_be_single = modality in (Modality.PET, Modality.FUNDUS)
    assert record(modality, "liver", "liver").allows_classification != may_be_single


def test_pet_or_fundus_with_one_label_in_the_dataset_is_single_class():
    pet, fundus, ct = (record(kind, "tumor") for kind in (Modality.PET, Modality.FUNDUS, Modality.CT))
    assert single_class_modalities([pet, pet, fundus, ct]) == {Modality.PET, Modality.FUNDUS}
    assert single_class_modalities([pet, record(Modality.PET, "bladder"), ct]) == set()
    assert not pet.allows_classification  # although the dataset has two labels
    assert single_class_modalities([record(Modality.PET)]) == set()


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("ct_00--LIDC--a.b--c--y_0042", ("ct_00", "LIDC", "a.b--c", Axis.CORONAL, 42)),
        ("mr_t1ce--BraTS--01--x_0000", ("mr_t1ce", "BraTS", "01", Axis.SAGITTAL, 0)),
        ("x_ray--covid_19--16660_5_1--2d_none", ("x_ray", "covid_19", "16660_5_1", Axis.PLANAR, None)),
        ("mr_t1--colin27--head--z_0090", ("mr_t1", "colin27", "head", Axis.AXIAL, 90)),
        ("ct_00--d--x--z_0001--z_0002", ("ct_00", "d", "x--z_0001", Axis.AXIAL, 2)),
        ("ct_00--d--2d_none--2d_none", ("ct_00", "d", "2d_none", Axis.PLANAR, None)),
        ("ct_00--d---o---z_123456", ("ct_00", "d", "-o-", Axis.AXIAL, 123_456)),
        (
            "xx--d--..--x_0001",
            ("xx", "d", "..", Axis.SAGITTAL, 1),
        ),  # any prefix: modalities are checked apart
    ],
)
def test_names_are_parsed_from_both_ends(stem, parts):
    assert ImageName.parse(stem) == ImageName(*parts)
    assert ImageName(*parts).write() == stem


@pytest.mark.parametrize(
    "stem",
    [
        "", "photo", "ct--x_0001", "ct--d--x_0001", "ct--d--o--w_0001", "ct--d--o--x_", "ct----o--x_1",
        "ct--d--o--2d_0001", "ct--d--o--z_none", "ct--d--o--z_1234567", "--d--o--z_0001", "ct--d--o--z_0001\n",
    ],
)  # fmt: skip
def test_other_names_are_refused(stem):
    with pytest.raises(ValueError, match="is not an SA-Med2D image name such as") as caught:
        ImageName.parse(stem)
    assert "\n" not in str(caught.value)


WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1)
PLAIN = WORDS.filter(lambda text: "--" not in text and not text.endswith("-"))
PLACES = st.one_of(
    st.tuples(st.sampled_from([Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL]), st.integers(0, 999_999)),
    st.just((Axis.PLANAR, None)),
)


@given(prefix=PLAIN, dataset=PLAIN, original=WORDS, place=PLACES)
def test_a_written_name_is_parsed_as_it_was(prefix, dataset, original, place):
    name = ImageName(prefix, dataset, original, *place)
    assert ImageName.parse(name.write()) == name


@given(modality=st.sampled_from(Modality), detail=st.from_regex("[A-Za-z0-9_]*", fullmatch=True))
def test_a_written_prefix_is_parsed_as_it_was(modality, detail):
    assert Modality.from_prefix(modality.prefix(detail)) == (modality, detail)


@pytest.mark.parametrize(
    ("prefix", "modality", "detail"),
    [
        ("ct_00", Modality.CT, "00"),
        ("mr_t1ce", Modality.MR, "t1ce"),
        ("x_ray", Modality.X_RAY, ""),
        ("fundus_photography", Modality.FUNDUS, "photography"),
    ],
)
def test_the_modality_is_the_prefix(prefix, modality, detail):
    assert Modality.from_prefix(prefix) == (modality, detail)


@pytest.mark.parametrize("prefix", ["", "x", "x_00", "cts", "CT_00", "ultra_sound"])
def test_a_prefix_of_no_modality_is_refused(prefix):
    with pytest.raises(ValueError, match="begins with no known modality; known are ct, mr, x_ray"):
        Modality.from_prefix(prefix)


def test_x_alone_means_x_ray():
    assert Modality.from_first_word("x") is Modality.X_RAY
    assert [Modality.from_first_word(modality.value) for modality in Modality] == [*Modality]
    with pytest.raises(ValueError, match="'xray'"):
        Modality.from_first_word("xray")


@pytest.mark.parametrize(
    ("dataset", "is_phantom"), [("phantom_ct", True), ("LIDC", False), ("my_phantom_", False)]
)
def test_phantoms_are_known_by_the_name_of_their_dataset(dataset, is_phantom):
    assert ImageName("ct_00", dataset, "case1").synthetic is is_phantom


@given(image_id=WORDS, class_id=st.integers(0, 999_999), instance=st.integers(0, 999_999))
def test_a_written_mask_name_is_parsed_as_it_was(image_id, class_id, instance):
    name = MaskName.of(image_id, class_id, instance)
    assert MaskName.parse(name.write()) == name
    assert (int(name.class_id), int(name.instance)) == (class_id, instance)


def test_mask_names_keep_the_digits_of_the_file():
    assert MaskName.of("ct--d--o--x_0001", 3, 0).write() == "ct--d--o--x_0001--0003_000"
    assert MaskName.parse("a--b--3_12") == MaskName("a--b", "3", "12")
    assert MaskName.parse("a--b--3_12").write() == "a--b--3_12"


@pytest.mark.parametrize(
    "stem", ["", "photo", "--0001_000", "a--0001", "a--1_2_3", "a--x_0001", "a--1234567_0"]
)
def test_other_mask_names_are_refused(stem):
    with pytest.raises(ValueError, match="is not an SA-Med2D mask name such as"):
        MaskName.parse(stem)
