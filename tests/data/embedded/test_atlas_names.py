"""The English names of the AAL atlas."""

from __future__ import annotations

import pytest

from bird_hf.data.embedded.atlas_names import AAL_LABELS, AAL_NAMES, english_name


def test_aal_names_are_unique_and_pairs_differ_in_the_side_only() -> None:
    assert len(AAL_NAMES) == len(set(AAL_LABELS.values())) == 116
    for aal, name in AAL_NAMES.items():
        if aal.endswith("_L"):
            assert name.startswith("left ")
            assert english_name(aal[:-1] + "R") == "right " + name.removeprefix("left ")
        elif not aal.endswith("_R"):
            assert aal.startswith("Vermis") and name.split()[0] == "vermis"
    assert [AAL_LABELS[n] for n in (71, 78, 116)] == ["left caudate", "right thalamus", "vermis lobule 10"]
    with pytest.raises(ValueError, match="Thalamus"):
        english_name("Thalamus")
