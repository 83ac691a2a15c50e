"""Smooth random fields and small image filters, in plain numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Integral of the squared cubic B-spline: variance of one axis of a unit-variance lattice.
_SPLINE_POWER = 151 / 315


@lru_cache(maxsize=64)
def _spline(size: int, cell: float) -> Floats:
    """Cubic B-spline weights [size, knots] of pixels on a lattice with `cell` pixels a knot."""
    position = (np.arange(size) + 0.5) / cell
    knots = np.arange(-1, int(position[-1]) + 3)
    distance = np.abs(position[:, None] - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, count: int, size: int, cells: Sequence[float], roughness: float = 0.5
) -> Floats:
    """Returns independent smooth fields [count, size, size] of mean 0 and variance 1.

    Args:
        rng: Where the randomness comes from.
        count: How many fields.
        size: Edge in pixels.
        cells: Size in pixels of the features of each octave, coarsest first.
        roughness: Amplitude of an octave relative to the one before it.
    """
    amplitudes = roughness ** np.arange(len(cells))
    amplitudes /= np.sqrt((amplitudes**2).sum())
    total = np.zeros((count, size, size), np.float32)
    for cell, amplitude in zip(cells, amplitudes, strict=True):
        weights = _spline(size, cell)
        knots = weights.shape[1]
        lattice = rng.standard_normal((count, knots, knots), np.float32)
        lattice *= np.float32(amplitude / _SPLINE_POWER)
        for field, values in zip(total, lattice, strict=True):
            field += _product(_product(weights, values), weights.T)
    return total


def _product(left: Floats, right: Floats) -> Floats:
    """Returns left @ right, in blocks too small for BLAS to start threads, which slow it here."""
    blocks = left.reshape(-1, math.gcd(len(left), 12), left.shape[1])
    result: Floats = (blocks @ right).reshape(len(left), -1)
    return result


def smoothstep(value: Floats, low: float | Floats, high: float | Floats) -> Floats:
    """Returns 0 below `low`, 1 above `high` and an S-curve between."""
    x = np.clip((value - low) / (high - low), 0, 1)
    result: Floats = x * x * (3 - 2 * x)
    return result


def blur(image: Floats, centre: float) -> Floats:
    """Returns [..., H, W] filtered by (1, centre, 1) along both axes, edges repeated."""
    for axis in (-2, -1):
        image = np.moveaxis(image, axis, -1)
        result = image * np.float32(centre / (centre + 2))
        side = image * np.float32(1 / (centre + 2))
        result[..., 1:] += side[..., :-1]
        result[..., :-1] += side[..., 1:]
        result[..., 0] += side[..., 0]
        result[..., -1] += side[..., -1]
        image = np.moveaxis(result, -1, axis)
    return image


def area_mean(image: Floats, factor: int) -> Floats:
    """Returns [..., H / factor, W / factor]: the mean of each factor x factor block."""
    if factor == 1:
        return image
    # Faster than a mean over axes of a reshaped view, which numpy walks in tiny steps.
    rows = image[..., ::factor, :].copy()
    for row in range(1, factor):
        rows += image[..., row::factor, :]
    total = rows[..., ::factor].copy()
    for column in range(1, factor):
        total += rows[..., column::factor]
    total /= factor**2
    return total
