"""The 116 structures of the AAL atlas in English: `Caudate_L` -> "left caudate".

AAL: Tzourio-Mazoyer et al., "Automated anatomical labeling of activations in SPM", NeuroImage 15, 2002.
The side comes from the suffix of the AAL name, never from the position of a structure.
"""

from __future__ import annotations

# In the order of the atlas: the pair at index n has the label values 2n + 1 (left) and 2n + 2 (right).
PAIRED: tuple[tuple[str, str], ...] = (
    ("Precentral", "precentral gyrus"),
    ("Frontal_Sup", "superior frontal gyrus"),
    ("Frontal_Sup_Orb", "superior orbitofrontal gyrus"),
    ("Frontal_Mid", "middle frontal gyrus"),
    ("Frontal_Mid_Orb", "middle orbitofrontal gyrus"),
    ("Frontal_Inf_Oper", "inferior frontal operculum"),
    ("Frontal_Inf_Tri", "inferior frontal triangularis"),
    ("Frontal_Inf_Orb", "inferior orbitofrontal gyrus"),
    ("Rolandic_Oper", "rolandic operculum"),
    ("Supp_Motor_Area", "supplementary motor area"),
    ("Olfactory", "olfactory cortex"),
    ("Frontal_Sup_Medial", "medial superior frontal gyrus"),
    ("Frontal_Med_Orb", "medial orbitofrontal gyrus"),
    ("Rectus", "gyrus rectus"),
    ("Insula", "insula"),
    ("Cingulum_Ant", "anterior cingulate gyrus"),
    ("Cingulum_Mid", "middle cingulate gyrus"),
    ("Cingulum_Post", "posterior cingulate gyrus"),
    ("Hippocampus", "hippocampus"),
    ("ParaHippocampal", "parahippocampal gyrus"),
    ("Amygdala", "amygdala"),
    ("Calcarine", "calcarine cortex"),
    ("Cuneus", "cuneus"),
    ("Lingual", "lingual gyrus"),
    ("Occipital_Sup", "superior occipital gyrus"),
    ("Occipital_Mid", "middle occipital gyrus"),
    ("Occipital_Inf", "inferior occipital gyrus"),
    ("Fusiform", "fusiform gyrus"),
    ("Postcentral", "postcentral gyrus"),
    ("Parietal_Sup", "superior parietal lobule"),
    ("Parietal_Inf", "inferior parietal lobule"),
    ("SupraMarginal", "supramarginal gyrus"),
    ("Angular", "angular gyrus"),
    ("Precuneus", "precuneus"),
    ("Paracentral_Lobule", "paracentral lobule"),
    ("Caudate", "caudate"),
    ("Putamen", "putamen"),
    ("Pallidum", "pallidum"),
    ("Thalamus", "thalamus"),
    ("Heschl", "Heschl gyrus"),
    ("Temporal_Sup", "superior temporal gyrus"),
    ("Temporal_Pole_Sup", "superior temporal pole"),
    ("Temporal_Mid", "middle temporal gyrus"),
    ("Temporal_Pole_Mid", "middle temporal pole"),
    ("Temporal_Inf", "inferior temporal gyrus"),
    ("Cerebelum_Crus1", "cerebellum crus 1"),  # the atlas spells it with one l
    ("Cerebelum_Crus2", "cerebellum crus 2"),
    ("Cerebelum_3", "cerebellum lobule 3"),
    ("Cerebelum_4_5", "cerebellum lobule 4-5"),
    ("Cerebelum_6", "cerebellum lobule 6"),
    ("Cerebelum_7b", "cerebellum lobule 7b"),
    ("Cerebelum_8", "cerebellum lobule 8"),
    ("Cerebelum_9", "cerebellum lobule 9"),
    ("Cerebelum_10", "cerebellum lobule 10"),
)
# Structures of the vermis are in the middle and have no side. Their values follow those of the pairs.
MIDLINE: tuple[tuple[str, str], ...] = tuple(
    (f"Vermis_{lobule.replace('-', '_')}", f"vermis lobule {lobule}")
    for lobule in ("1-2", "3", "4-5", "6", "7", "8", "9", "10")
)

AAL_NAMES: dict[str, str] = {
    **{f"{aal}_{side[0].upper()}": f"{side} {name}" for aal, name in PAIRED for side in ("left", "right")},
    **dict(MIDLINE),
}
AAL_LABELS: dict[int, str] = dict(enumerate(AAL_NAMES.values(), start=1))


def english_name(aal_name: str) -> str:
    """The English name of an AAL structure. Raises ValueError if the atlas has no such name."""
    if aal_name not in AAL_NAMES:
        raise ValueError(f"{aal_name!r} is not an AAL structure; names look like Caudate_L or Vermis_4_5")
    return AAL_NAMES[aal_name]
