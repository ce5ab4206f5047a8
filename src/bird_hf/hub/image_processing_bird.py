"""Pixels in: images -> the square tensor that the vision tower reads.

The square is reached by squashing (the aspect ratio is not kept), so a box in the unit frame stays valid.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

from .pixels import open_image, rgb_image, stretch_to_uint8


class BirdImageProcessor(PilBackend):
    r"""Squashes images to a square (bicubic), scales to [0, 1] and normalises by CLIP's mean and deviation.

    Returns `pixel_values` (num_images, 3, size, size) float. The paper's size is 448.
    """

    _auto_class = "AutoImageProcessor"  # saving copies this file into the folder
    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size: ClassVar[dict[str, int]] = {"height": 448, "width": 448}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Files are read by `open_image` (deep and odd modes survive); what else transformers can fetch, by it."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(source) for source in image_url_or_urls]
        if isinstance(image_url_or_urls, np.ndarray) and image_url_or_urls.ndim == 2:
            return np.stack([image_url_or_urls] * 3)  # (3, H, W): grey, where transformers expects channels
        if isinstance(image_url_or_urls, (bytes, os.PathLike)):
            return open_image(image_url_or_urls)
        if isinstance(image_url_or_urls, str) and os.path.isfile(image_url_or_urls):
            return open_image(image_url_or_urls)
        return super().fetch_images(image_url_or_urls)

    def process_image(self, image: Any, **kwargs: Any) -> np.ndarray:
        """One image, array or tensor -> (3, H, W)."""
        if isinstance(image, Image.Image):
            return np.moveaxis(np.asarray(rgb_image(image)), -1, 0)  # (H, W, 3) -> (3, H, W)
        image = np.asarray(image)
        if image.dtype.kind in "iu" and image.dtype.itemsize > 1:
            image = stretch_to_uint8(image)
        return super().process_image(image, **kwargs)


__all__ = ["BirdImageProcessor"]
