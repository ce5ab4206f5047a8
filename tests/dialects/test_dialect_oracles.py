"""What the models' own code in transformers makes of boxes, against the dialects."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace

import pytest

from bird_hf import Box, GroundedText, Span, dialects
from bird_hf.dialects.families.qwen2_5_vl import smart_resize

torch = pytest.importorskip("torch")
kosmos2 = pytest.importorskip("transformers.models.kosmos2.processing_kosmos2")
florence2 = pytest.importorskip("transformers.models.florence2.processing_florence2")
paligemma = pytest.importorskip("transformers.models.paligemma.processing_paligemma")
qwen2_vl = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")

TEXT = "The left kidney and a cyst are seen."
SIZES = [(800, 600), (512, 512), (37, 1999), (1, 1), (640, 3)]


def random_boxes(image_wh: tuple[int, int], count: int = 40) -> list[Box]:
    """Boxes of whole pixels, some of one pixel, and the whole picture."""
    draw = random.Random(str(image_wh))
    found = [Box(0, 0, 1, 1)]
    for _ in range(count):
        x, y = (sorted(draw.sample(range(side + 1), 2)) for side in image_wh)
        found.append(Box.from_pixels((x[0], y[0], x[1], y[1]), image_wh))
    return found


def answer_of(boxes: list[Box]) -> GroundedText:
    spans = Span("left kidney", 4, 15, tuple(boxes[:-1])), Span("a cyst", 20, 26, tuple(boxes[-1:]))
    return GroundedText(TEXT, spans)


@pytest.mark.parametrize("image_wh", SIZES)
def test_kosmos_2_writes_and_reads_as_its_processor(image_wh):
    dialect, boxes = dialects.get("kosmos-2"), random_boxes(image_wh)
    text = dialect.write(answer_of(boxes), image_wh=image_wh)
    cells = [int(cell) for cell in re.findall(r"patch_index_(\d{4})", text)]
    assert cells == [cell for box in boxes for cell in kosmos2.coordinate_to_patch_index(box.xyxy, 32)]
    clean, entities = kosmos2.clean_text_and_extract_entities_with_bboxes(text)
    found = dialect.read(text, image_wh=image_wh)
    assert found.text == clean
    for span, (phrase, place, theirs) in zip(found.spans, entities, strict=True):
        assert (span.phrase, (span.start, span.end)) == (phrase, place)
        assert [box.xyxy for box in span.boxes] == [pytest.approx(xyxy) for xyxy in theirs]


def test_kosmos_2_reads_a_caption_as_its_processor():
    text = (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> by"
        "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
    )
    clean, entities = kosmos2.clean_text_and_extract_entities_with_bboxes(text)
    found = dialects.get("kosmos-2").read(text, image_wh=(640, 480))
    assert (found.text.strip(), found.issues) == (clean, ())
    assert [span.phrase for span in found.spans] == [phrase for phrase, _, _ in entities]
    assert [box.xyxy for box in found.boxes] == [xyxy for _, _, boxes in entities for xyxy in boxes]


@pytest.mark.parametrize("image_wh", SIZES)
def test_florence_2_writes_and_reads_as_its_processor(image_wh):
    processor = florence2.Florence2PostProcessor({}, SimpleNamespace(all_special_tokens=[]))
    dialect, boxes = dialects.get("florence-2"), random_boxes(image_wh)
    width, height = image_wh
    pixels = torch.tensor([box.to_pixels(image_wh) for box in boxes], dtype=torch.float64)
    bins = processor.quantize(pixels, image_wh).tolist()
    for box, (x1, y1, x2, y2) in zip(boxes, bins, strict=True):
        if x1 < x2 and y1 < y2:  # theirs lets a thin box become empty, ours keeps it a bin wide
            # Theirs divides by the width of a bin, ours multiplies: floats differ where a box ends on a bin's edge.
            ours = dialect.numbers(box, dialect.view(image_wh))
            assert max(abs(a - b) for a, b in zip(ours, (x1, y1, x2, y2), strict=True)) <= 1
            on_edge = any(
                round(side) * 1000 % size == 0
                for side, size in zip(box.to_pixels(image_wh), (width, height) * 2, strict=True)
            )
            assert on_edge or ours == (x1, y1, x2, y2)
    text = dialect.write(answer_of(boxes), image_wh=image_wh)
    theirs = processor.parse_phrase_grounding_from_text_and_spans(text, image_wh)
    found = dialect.read(text, image_wh=image_wh)
    assert [span.phrase for span in found.spans] == [item["cat_name"] for item in theirs]
    whole = [[int(side + 1e-9) for side in box.to_pixels(image_wh)] for box in found.boxes]
    wanted = [box for item in theirs for box in item["bbox"]]
    assert all(
        abs(a - b) <= (a != b) for x, y in zip(whole, wanted, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize(
    ("phrase", "is_read"),
    [
        ("left kidney (5.2 mm), old?", True),
        ("Läsion", False),  # read as Lsion
        ("肝", False),  # read as a box without a phrase
        ("nodule <5 mm", False),  # read as 5 mm
        ("left\nkidney", False),  # not read
        ("", False),
    ],
)
def test_florence_2_writes_only_the_phrases_that_its_processor_reads(phrase, is_read):
    processor = florence2.Florence2PostProcessor({}, SimpleNamespace(all_special_tokens=[]))
    tokens = "<loc_250><loc_150><loc_625><loc_550>"
    theirs = processor.parse_phrase_grounding_from_text_and_spans(phrase + tokens, (800, 600))
    assert ([item["cat_name"] for item in theirs] == [phrase]) is is_read
    dialect, box = dialects.get("florence-2"), Box.from_pixels((200, 90, 500, 330), (800, 600))
    answer = GroundedText(phrase, (Span(phrase, 0, len(phrase), (box,)),))
    if is_read:
        assert dialect.write(answer, image_wh=(800, 600)) == phrase + tokens
    else:
        with pytest.raises(ValueError, match="florence-2's own processor"):
            dialect.write(answer, image_wh=(800, 600))


def test_paligemma_writes_tokens_of_its_vocabulary():
    dialect = dialects.get("paligemma")
    for image_wh in SIZES:
        text = dialect.write(answer_of(random_boxes(image_wh)), image_wh=image_wh)
        assert set(re.findall(r"<loc\d+>", text)) <= set(paligemma.EXTRA_TOKENS)
    whole = GroundedText("lung", (Span("lung", 0, 4, (Box(0, 0, 1, 1),)),))
    assert dialect.write(whole, image_wh=(5, 5)) == "<loc0000><loc0000><loc1023><loc1023> lung"


@pytest.mark.parametrize("factor", [28, 32])
def test_the_resizing_of_qwen_is_its_image_processors(factor):
    draw = random.Random(factor)
    sizes = [(draw.randint(1, 4000), draw.randint(1, 4000)) for _ in range(300)] + [
        (9, 1800),
        (1, 1),
        (1, 200),
    ]
    for width, height in sizes:
        if max(width, height) > 200 * min(width, height):
            continue
        for limits in ((3136, 1_003_520), (200_000, 300_000)):
            theirs = qwen2_vl.smart_resize(height, width, factor, *limits)
            assert smart_resize((width, height), factor, *limits) == theirs[::-1]


def test_qwen_refuses_what_the_dialect_refuses():
    with pytest.raises(ValueError, match="200"):
        qwen2_vl.smart_resize(20_000, 9)
    with pytest.raises(ValueError, match=r"9x20000 .* ratio above 200"):
        dialects.get("qwen2.5-vl").view((9, 20_000))
