"""Which dialect a model is asked in, and the words about one that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bird_hf import dialects
from bird_hf.asking.fitting import fitting_dialect

QWEN25 = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}
PIXELS = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 200704}


@pytest.mark.parametrize(
    ("wanted", "config", "expected", "remark"),
    [
        (None, {"model_type": "qwen3_vl"}, "qwen3-vl", ""),
        ("qwen3-vl", {"model_type": "qwen3_vl"}, "qwen3-vl", ""),
        # Said, with the right one.
        ("qwen2.5-vl", {"model_type": "qwen3_vl"}, "qwen2.5-vl", "says qwen3-vl; give --dialect qwen3-vl"),
        ("internvl", {"model_type": "paligemma"}, "internvl", "says paligemma; give --dialect paligemma"),
        # Nothing is known of the model: the user is believed.
        ("internvl", {"model_type": "llava"}, "internvl", ""),
        ("shikra", {}, "shikra", ""),
    ],
)
def test_a_dialect_that_does_not_fit_is_warned_about(
    wanted: str | None, config: dict[str, Any], expected: str, remark: str
) -> None:
    dialect, remarks = fitting_dialect(wanted, "M", config, {})
    assert dialect.name == expected
    assert [remark in each for each in remarks] == ([True] if remark else [])


@pytest.mark.parametrize(
    ("wanted", "config", "message"),
    [
        (None, {"model_type": "llava"}, "model type 'llava' tells none.*give --dialect, one of bird, "),
        (None, {}, "nothing tells it.*give --dialect"),
        ("qwen25-vl", {}, "the nearest is qwen2.5-vl"),
        ("none.json", {}, "none.json: no such file"),
    ],
)
def test_a_dialect_that_is_not_known_is_asked_for_in_one_line(
    wanted: str | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fitting_dialect(wanted, "M", config, {})
    assert "\n" not in str(caught.value)


def test_settings_come_from_the_processor_and_from_the_folder(tmp_path: Path) -> None:
    dialect, _ = fitting_dialect(None, "M", QWEN25, PIXELS)
    assert dialect == dialects.get("qwen2.5-vl", min_pixels=3136, max_pixels=200704)
    assert fitting_dialect("qwen2.5-vl", "M", QWEN25, PIXELS)[0] == dialect
    dialects.write_dialect(dialects.get("paligemma", decode_by=1024), tmp_path)
    for wanted in (None, "paligemma", str(tmp_path / "dialect.json")):
        kept, remarks = fitting_dialect(wanted, "M", {"model_type": "paligemma"}, {}, tmp_path)
        assert kept == dialects.get("paligemma", decode_by=1024) and remarks == []
    # Trained on another form than its family's: dialect.json knows better than the configuration.
    dialects.write_dialect(dialects.get("qwen2-vl"), tmp_path)
    assert fitting_dialect(None, "M", QWEN25, PIXELS, tmp_path) == (dialects.get("qwen2-vl"), [])
    _, (remark,) = fitting_dialect("qwen2.5-vl", "M", QWEN25, PIXELS, tmp_path)
    assert "its dialect.json says qwen2-vl" in remark


def test_a_view_that_the_processor_does_not_make_is_refused(tmp_path: Path) -> None:
    dialects.write_dialect(dialects.get("qwen2.5-vl"), tmp_path)  # of other limits than the processor's
    with pytest.raises(ValueError, match=r"the model's processor resizes by .*200704.*make the two agree"):
        fitting_dialect(None, "M", QWEN25, PIXELS, tmp_path)


def test_a_processor_that_cuts_pictures_is_warned_about() -> None:
    clip = {
        "do_center_crop": True,
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
    }
    _, (remark,) = fitting_dialect("llava-med", "M", {"model_type": "llava"}, clip)
    assert "what is outside the square is not seen" in remark
    # This one speaks of the square itself.
    assert fitting_dialect("maira-2", "M", {"model_type": "maira2"}, clip)[1] == []
    squeezes = clip | {"size": clip["crop_size"]}  # nothing is left to cut
    assert fitting_dialect("llava-med", "M", {"model_type": "llava"}, squeezes)[1] == []
