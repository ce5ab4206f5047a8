"""The paper's tables: every average is recomputed from its cells, and the file holds what is printed."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bird_hf.eval.published import published

TABLES = published()
_TASK_CELLS = {  # Table 3, its last column: the number of cells of each row
    "vg": 8,
    "roc": 6,  # neither PET nor fundus
    "rc": 8,
    "mia": 8,
}


def test_every_average_of_tables_1_and_3_is_the_mean_of_its_cells_but_one():
    assert len(TABLES.averages) == 5 + 4 + 8
    slips = [each for each in TABLES.averages if each.is_slip]
    assert [(each.place, str(each.printed), str(each.recomputed)) for each in slips] == [
        ("Table 3, ct", "43.03", "42.03")
    ]


def test_averages_are_recomputed_from_the_cells_here_too():
    """The same by hand: sums of hundredths, so that no rounding of floats takes part."""
    for model in TABLES.models:
        if model.average:
            hundredths = sum(int(100 * score) for score in model.scores.values())
            assert abs(hundredths / 4 - float(100 * model.average.printed)) <= 0.5, model
    for name, average in TABLES.modality_averages.items():
        cells = [int(100 * row[name]) for row in TABLES.scores.values() if name in row]
        assert len(cells) == (3 if name in ("pet", "fundus") else 4)
        assert (abs(sum(cells) / len(cells) - float(100 * average.printed)) <= 0.5) == (name != "ct")
    for task, average in TABLES.task_averages.items():
        cells = [int(100 * score) for score in TABLES.scores[task].values()]
        assert len(cells) == _TASK_CELLS[task]
        assert abs(sum(cells) / len(cells) - float(100 * average.printed)) <= 0.5


@pytest.mark.parametrize(
    ("place", "printed", "shown"),
    [
        ("Table 3, endoscopy", "51.99", "51.99"),  # the mean is 51.995: rounded down, no slip
        ("Table 3, ROC", "65.33", "65.33"),  # 65.325: rounded up
        ("Table 3, ct", "43.03", "42.03"),  # the slip: the recomputed one is shown
        ("Table 1, LLaVa-Med on Med-GRIT-Test30k", "5.53", "5.53"),
    ],
)
def test_what_a_report_shows(place, printed, shown):
    (average,) = (each for each in TABLES.averages if each.place == place)
    assert (str(average.printed), str(average.value)) == (printed, shown)


def test_table_1_and_table_3_agree_on_the_largest_model():
    (largest,) = (each for each in TABLES.models if each.turns == 240_000)
    assert dict(largest.scores) == {task: each.printed for task, each in TABLES.task_averages.items()}


def test_rows_without_a_figure_have_none():
    rows = [each for each in TABLES.models if each.test_set == "LLaVa-Med-qa0.2k"]
    assert [(each.model, dict(each.scores), each.average) for each in rows] == [
        ("LLaVa-Med", {"mia": Decimal("20.04")}, None),
        ("BiRD-Med-GRIT-270k", {"mia": Decimal("10.55")}, None),
    ]


def test_capabilities_are_those_of_table_2():
    rows = {each.model: (each.tasks, each.modalities) for each in TABLES.capabilities}
    assert rows["BiRD"] == ({"vg", "roc", "rc", "mia"}, 8)
    assert rows["RadFM"] == rows["Med-palm m"] == ({"mia"}, 6)
    assert rows["LLaVa-Med"] == ({"mia"}, 5)
    assert all(each.source for each in TABLES.capabilities)
