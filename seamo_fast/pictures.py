"""Bands as pictures: true colour for optical modalities, a composite for radar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from seamo_fast.modalities import Modality

NODATA: Final = (0.85, 0.2, 0.5)  # a colour that no scene has much of
_PERCENTILES: Final = (2.0, 98.0)


def shown_bands(modality: Modality) -> tuple[str, ...]:
    """Returns the bands of a picture: `modality.composite`, or else the first band."""
    return modality.composite or modality.band_names[:1]


def composite(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the `shown_bands`, each [H, W], as [H, W, 1 or 3].

    Of two bands, such as VV and VH in dB, the difference is the third channel.
    """
    channels = list(bands)
    if len(channels) == 2:
        channels.append(channels[0] - channels[1])
    return np.stack(channels, axis=-1)


def limits(modality: Modality, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is shown as black and as white, [channels] each, for all images alike.

    True colour has one stretch for all bands, which keeps hues; radar has one for each channel.

    Args:
        modality: What the images show.
        images: Composites [H, W, channels]; NaN does not count.
    """
    pixels = np.concatenate([image.reshape(-1, image.shape[-1]) for image in images])
    axis = 0 if len(modality.composite) == 2 else None
    low, high = np.nanpercentile(pixels, _PERCENTILES, axis=axis)
    shape = pixels.shape[-1:]
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def stretched(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns a composite as float [H, W, 3] in 0..1, pixels with NaN in the colour `NODATA`."""
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1)
    unknown = np.isnan(scaled).any(axis=-1)
    scaled = np.broadcast_to(scaled, (*scaled.shape[:2], 3)).copy()
    scaled[unknown] = NODATA
    return scaled
