"""Patches as pictures: what was visible, what was hidden, and what was predicted."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from seamo_fast import pictures
from seamo_fast.modalities import Modality
from seamo_fast.model.config import NormPix

_HIDDEN: Final = 0.55  # grey of what is not shown


def composite(patches: Tensor, modality: Modality, patch_size: int) -> np.ndarray:
    """Returns patches [N, C*p*p] as an image [S, S, 3 or 1] in stored units."""
    mean, scale = modality.normalization()
    side = round(len(patches) ** 0.5)
    values = patches.float().cpu().reshape(side, side, len(modality.bands), patch_size, patch_size)
    channels = []
    for name in pictures.shown_bands(modality):
        band = modality.band_names.index(name)
        image = values[:, :, band].permute(0, 2, 1, 3).reshape(side * patch_size, -1)
        channels.append(image.numpy() / scale[band] + mean[band])
    return pictures.composite(channels)


def hide(image: np.ndarray, shown: np.ndarray, patch_size: int) -> np.ndarray:
    """Returns a picture with the patches grey that are not in `shown` (patch numbers)."""
    side = image.shape[0] // patch_size
    keep = np.zeros(side * side, bool)
    keep[shown] = True
    mask = keep.reshape(side, side).repeat(patch_size, axis=0).repeat(patch_size, axis=1)
    return np.where(mask[..., None], image, _HIDDEN)


def filled(
    full: Tensor, hidden: Tensor, prediction: Tensor, norm_pix: NormPix, bands: int
) -> Tensor:
    """Returns the patches [N, P] with the hidden ones [Kh] in the place of their predictions.

    With `norm_pix` a prediction [Kh, P] is brought back with its true patch's mean and standard
    deviation (of each band, see `ModelConfig`), as in the figures of MAE (arXiv 2111.06377).
    """
    result, number = full.clone(), hidden.long()
    prediction = prediction.to(full)
    if norm_pix:
        parts = bands if norm_pix == "bands" else 1
        target, prediction = (x.unflatten(-1, (parts, -1)) for x in (full[number], prediction))
        spread = (target.var(-1, keepdim=True) + 1e-6).sqrt()
        prediction = (prediction * spread + target.mean(-1, keepdim=True)).flatten(-2)
    result[number] = prediction
    return result


def triptych(
    full: Tensor,
    visible: Tensor,
    hidden: Tensor,
    prediction: Tensor,
    modality: Modality,
    patch_size: int,
    norm_pix: NormPix,
) -> list[np.ndarray]:
    """Returns three pictures of one group: the region, what was visible, what was predicted.

    Args:
        full: [N, P], all patches in normalised units.
        visible: [K], numbers of the visible patches.
        hidden: [Kh], numbers of the decoded patches.
        prediction: [Kh, P].
        modality: Whose bands they are.
        patch_size: p.
        norm_pix: Whether and how predictions are normalised within their patch.
    """
    image = composite(full, modality, patch_size)
    low, high = pictures.limits(modality, [image])
    region = pictures.stretched(image, low, high)
    guess = composite(
        filled(full, hidden, prediction, norm_pix, len(modality.bands)), modality, patch_size
    )
    seen = visible.cpu().numpy()
    shown = torch.cat([visible, hidden]).cpu().numpy()
    return [
        region,
        hide(region, seen, patch_size),
        hide(pictures.stretched(guess, low, high), shown, patch_size),
    ]
