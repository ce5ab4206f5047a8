"""The names of the teachers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bird_hf.data.teachers.batch import BatchTeacher
from bird_hf.data.teachers.chat import ChatTeacher
from bird_hf.data.teachers.open import open_teacher
from bird_hf.data.teachers.templates import TemplateTeacher


def test_templates_need_no_model(tmp_path: Path) -> None:
    assert isinstance(open_teacher("templates", 0, tmp_path), TemplateTeacher)


@pytest.mark.parametrize(("batch", "kind"), [(False, ChatTeacher), (True, BatchTeacher)])
def test_a_chat_model_gets_its_settings(tmp_path: Path, batch: bool, kind: type) -> None:
    teacher = open_teacher("openai", 5, tmp_path, "m", "http://127.0.0.1/v1", batch, {"hash": "wrong"})
    assert type(teacher) is kind and teacher.name == "m"
    settings = teacher.settings
    assert (settings.base_url, settings.seed, settings.rejected) == (
        "http://127.0.0.1/v1",
        5,
        {"hash": "wrong"},
    )
    assert teacher.store.folder == tmp_path


@pytest.mark.parametrize(
    ("name", "says"), [("parrot", "use templates or openai"), ("openai", "no model name")]
)
def test_an_unknown_teacher_or_model_is_refused(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_teacher(name, 0, tmp_path)
