"""Tables in Markdown."""

from bird_hf.markdown import Markup, table


def test_a_row_is_a_line_and_integers_have_thousands_separators():
    assert table(["modality", "n"], [["ct", 3000], ["mr", 0.5]]) == (
        "| modality | n |\n| --- | --- |\n| ct | 3,000 |\n| mr | 0.5 |"
    )


def test_a_label_cannot_break_out_of_its_cell_or_become_markup():
    rows = table(["label"], [["a | b\n| <b>c</b>"], ["*x*"], [""]]).splitlines()[2:]
    assert rows == ["| a \\| b \\| \\<b\\>c\\</b\\> |", "| \\*x\\* |", "| (none) |"]


def test_markup_stays_as_it_is():
    assert table([""], [[Markup("**mean**")]]).endswith("| **mean** |")
