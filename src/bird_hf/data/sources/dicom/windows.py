"""The windows of DICOM headers: the values that are displayed between black and white."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...volumes import ct_window, suited_ct_window
from ..label_names import region_of_body_part

Window = tuple[float, float]  # centre, width


def windows_of(item: Any) -> list[Window]:
    """The usable windows of a header or of a functional group, in its order.

    A window without a width, with one that is not a number, or with one below the least that its function allows is
    not usable.
    """
    if item is None:
        return []
    try:
        centres, widths = (
            np.atleast_1d(item.get(tag)).astype(float) for tag in ("WindowCenter", "WindowWidth")
        )
        linear = str(item.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    except (TypeError, ValueError):  # elements are decoded when they are accessed
        return []
    pairs = [(float(c), float(w)) for c, w in zip(centres, widths, strict=False)]
    return [(c, w) for c, w in pairs if np.isfinite([c, w]).all() and (w >= 1 if linear else w > 0)]


def default_ct_range(body_part: str) -> tuple[float, float]:
    """The HU values that a CT image without labels displays as black and as white."""
    return ct_window(suited_ct_window(region_of_body_part(body_part) or "", ()))


def window_of(low: float, high: float) -> Window:
    """The window that displays `low` as black and `high` as white."""
    return (low + high) / 2, high - low
