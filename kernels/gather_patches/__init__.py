"""gather_patches: raw bands to normalised patches in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _checks
from .._registry import define, implement

_MOST_PIXELS = 2**24  # of a side
_MOST = torch.finfo(torch.float32).max
_BAND_DTYPES = (
    torch.uint16,
    torch.int16,
    torch.uint8,
    torch.float16,
    torch.float32,
    torch.float64,
)


def _fake(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    order: Sequence[int],
    image_size: Sequence[int],
    patch_size: int,
    nodata: float | None,
    whole_pixel: bool,
    limit: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    patch = len(order) * patch_size * patch_size
    return index.new_empty((*index.shape, patch), dtype=dtype), index.new_empty(
        index.shape, dtype=torch.bool
    )


def _check(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    order: Sequence[int],
    image_size: Sequence[int],
    patch_size: int,
    nodata: float | None,
    whole_pixel: bool,
    limit: float,
    dtype: torch.dtype,
) -> None:
    channels = _check_tensors(bands, boxes, index, shift, scale)
    _check_sizes(image_size, patch_size, dtype)
    if not 0 < limit <= _MOST:
        raise ValueError(
            f"limit must be positive and at most {_MOST:.9g}, as float32 is, but got {limit}"
        )
    if sorted(order) != list(range(channels)):
        raise ValueError(f"order must be a permutation of 0..{channels - 1}, but got {order}")


def _check_tensors(
    bands: Sequence[Tensor], boxes: Tensor, index: Tensor, shift: Tensor, scale: Tensor
) -> int:
    if len(bands) == 0:
        raise ValueError("bands must hold at least one tensor [B, T, Cg, Hg, Wg], but is empty")
    _checks.shape("bands[0]", bands[0], "B, T, Cg, Hg, Wg", (None,) * 5)
    batch, seasons = bands[0].shape[:2]
    device = bands[0].device
    channels = 0
    for number, band in enumerate(bands):
        name = f"bands[{number}]"
        _checks.shape(name, band, "B, T, Cg, Hg, Wg", (batch, seasons, None, None, None))
        _checks.same_device(name, band, device)
        _checks.constant(name, band, "gather_patches")
        if band.dtype not in _BAND_DTYPES:
            expected = ", ".join(str(dtype) for dtype in _BAND_DTYPES)
            raise TypeError(f"{name} must be one of {expected}, but got {band.dtype}")
        if band.shape[3] == 0 or band.shape[4] == 0:
            raise ValueError(f"{name} must have pixels, but got shape {list(band.shape)}")
        if max(band.shape[3:]) > _MOST_PIXELS:
            raise ValueError(
                f"{name} must have at most {_MOST_PIXELS} pixels a side (positions are float32), "
                f"but got shape {list(band.shape)}"
            )
        channels += band.shape[2]
    _checks.shape("boxes", boxes, "B, T, 4", (batch, seasons, 4))
    _checks.shape("index", index, "B, T, K", (batch, seasons, None))
    _checks.shape("shift", shift, "C", (channels,))
    _checks.shape("scale", scale, "C", (channels,))
    _checks.integer("index", index)
    for name, tensor in (("boxes", boxes), ("shift", shift), ("scale", scale)):
        _checks.floating(name, tensor)
        _checks.same_device(name, tensor, device)
    _checks.same_device("index", index, device)
    return channels


def _check_sizes(size: Sequence[int], patch_size: int, dtype: torch.dtype) -> None:
    if len(size) != 2:
        raise ValueError(f"image_size must be one number or (height, width), but got {size}")
    if patch_size < 1 or any(side < 1 or side % patch_size for side in size):
        raise ValueError(
            f"patch_size must be positive and divide image_size {size}, but got {patch_size}"
        )
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be floating-point, but got {dtype}")


_forward = define(
    "gather_patches",
    "forward",
    "gather_patches(Tensor[] bands, Tensor boxes, Tensor index, Tensor shift, Tensor scale, "
    "int[] order, int[2] image_size, int patch_size, float? nodata, bool whole_pixel, "
    "float limit, ScalarType dtype) -> (Tensor, Tensor)",
    _fake,
    check=_check,
)
implement(__name__, "reference", "cpu", "triton", "cuda")


def gather_patches(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    *,
    order: Sequence[int] | None = None,
    image_size: int | tuple[int, int],
    patch_size: int,
    nodata: float | None = None,
    whole_pixel: bool = False,
    limit: float = _MOST,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Crops, resamples, normalises and cuts into patches; only wanted patches are computed.

    Along each axis, pixel i of an image of S pixels over a grid of H pixels lies at::

        i' = S - 1 - i if extent < 0 else i
        y = clamp(start * H + (i' + 0.5) * (|extent| * H / S) - 0.5, 0, H - 1)

    Values are bilinear between the four neighbours, then ``(value - shift) * scale``. Positions and
    values are computed in float32, in float64 if a band or ``dtype`` is float64. A full box over a
    grid of the image's size gives the stored values unchanged.

    A value is lost if a neighbour of non-zero weight is ``nodata``, NaN, or larger than ``limit``
    in magnitude. Lost values become 0, the mean of the band, and their patch is not valid. No
    gradient is given. Autocast changes nothing.

    With ``whole_pixel`` a neighbour that is ``nodata`` is lost only where its pixel is ``nodata``,
    NaN or too large in every channel. Of a grid of H' pixels, row y of one of H pixels then means
    row (2 y + 1) H' // (2 H), where its centre is; columns likewise.

    Equivalent to (without nodata and negative extents, all bands on one grid)::

        y = top + (arange(S) + 0.5) / S * height   # fractions of the tile; x likewise
        image = F.grid_sample(band, 2 * stack([x, y], -1) - 1, align_corners=False,
                              padding_mode="border")
        patches = F.unfold((image - shift) * scale, p, stride=p).mT[index]

    Args:
        bands: the grids of one modality, each [B, T, Cg, Hg, Wg]; uint16, int16, uint8, float16,
            float32 or float64; stored values.
        boxes: [B, T, 4], float: region as top, left, height, width in fractions of the tile. A
            negative height or width flips that axis of [top, top + |height|].
        index: [B, T, K], int32 or int64: patch numbers, row by row in the image.
        shift: [C], float: subtracted from each channel, in the order of the output.
        scale: [C], float: then multiplied.
        order: channel c of the output is channel order[c] of the concatenated grids; None for as
            they come.
        image_size: pixels (height, width) of the region after resampling; one number if square.
        patch_size: p, pixels; divides both sizes.
        nodata: stored value that means "no measurement"; for floating-point bands it is rounded to
            their dtype.
        whole_pixel: whether ``nodata`` in some channels alone is a value like others.
        limit: the largest magnitude of a measurement, compared in float32 (float64 for float64
            bands); by default only NaN and infinity are none. Bands of integers that can be larger
            are read as float32, which takes a copy of them.
        dtype: dtype of the patches.

    Returns:
        patches: [B, T, K, P] with P = C * p * p in the order (C, p, p) of a Conv2d weight.
        valid: bool [B, T, K], False where a value of the patch was lost.

    Raises:
        ValueError: wrong shape, order, size, limit or device, or a band requires grad.
        TypeError: wrong dtype.
        IndexError: a patch number outside the image (on the CPU; elsewhere undefined).
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    order = tuple(range(shift.numel()) if order is None else order)
    return _forward(
        list(bands), boxes, index, shift, scale, order, size, patch_size, nodata, whole_pixel,
        limit, dtype,
    )  # fmt: skip
