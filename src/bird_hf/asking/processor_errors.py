"""Why a processor of transformers could not be loaded, in words that say what to install."""

from __future__ import annotations

import re
from importlib.util import find_spec

_INSTALL = re.compile(r"pip install ([A-Za-z0-9][\w.\[\]-]*[\w\]])")
_LONGEST = 160  # characters of an error


def why_not_loaded(error: Exception) -> str:
    """What goes behind "the processor": that it needs a package, or cannot be loaded, in one line.

    Some processors name the package in their error (SmolVLM: num2words). Those with a part for videos need torchvision,
    and without it some fail with an AttributeError that does not say so.
    """
    if isinstance(error, ImportError) and (named := _INSTALL.search(str(error))):
        return f"needs a package that is not installed; pip install {named[1]}"
    reason = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]})"
    if find_spec("torchvision") is None:
        return f"{reason}; pip install torchvision, which processors with a part for videos need"
    return reason
