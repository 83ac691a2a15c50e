"""Whether the first images that a model gets look like what their modalities say."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Final

import torch
from torch import Tensor

from seamo_fast import kernels
from seamo_fast.errors import UnitError, UnitWarning
from seamo_fast.modalities import Modality
from seamo_fast.units import Look, complaint, doubt_values

_PLACES: Final = 4  # of a batch
_SEASONS: Final = 2
_PIXELS: Final = 24  # along either side of an image
_PATIENCE: Final = 8  # a batch that says something takes 4 of it, one of zeros 1


class UnitCheck:
    """Compares the first batches of each modality with its unit and statistics, and warns once.

    A few thousand values of the first two batches are looked at. Nothing waits for a GPU: what a
    batch on a GPU looks like is judged when a later one comes; with `strict` it is waited for.
    What is compiled, exported, traced or transformed (vmap) is not looked at. Copies and pickles
    remember what was judged.

    Attributes:
        strict: Raise `UnitError` instead of warning.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self._patience: dict[str, int] = {}
        self._coming: dict[str, _Copy] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_patience": dict(self._patience), "_coming": {}}

    def forget(self, name: str) -> None:
        """Looks at a modality as if it was new."""
        self._patience.pop(name, None)
        self._coming.pop(name, None)

    def __call__(self, modality: Modality, images: Tensor, valid: Tensor | None = None) -> None:
        """Looks at a batch, if it is among the first.

        Args:
            modality: What the images should be.
            images: Stored values [B, T, C, H, W].
            valid: bool [B, T], images that exist; None if all do.

        Raises:
            UnitError: They look like another unit, and `strict` is set.
        """
        name = modality.name
        if self._patience.get(name, _PATIENCE) <= 0 or not _can_be_read(images):
            return
        if name in self._coming:
            copy = self._coming.get(name)
            if copy is None or not copy.has_arrived() or self._coming.pop(name, None) is None:
                return  # later, or another thread has it
            self._judge(modality, copy.values)
            if self._patience[name] <= 0:
                return
        found = _measure(images.detach(), valid, modality.nodata, modality.limit)
        if self.strict or not _is_asynchronous(images):
            self._judge(modality, found.cpu())
        else:
            self._coming[name] = _Copy(found)

    def _judge(self, modality: Modality, values: Tensor) -> None:
        count, low, high, mean, std, whole, *rest = values.double().numpy()
        lost, absurd = (int(each.sum()) for each in rest)
        look = Look(count, low, high, mean, std, bool(whole.all()), lost, absurd)
        doubt = doubt_values(modality, look)
        left = self._patience.get(modality.name, _PATIENCE)
        self._patience[modality.name] = left - (4 if look.says_something else 1)
        if doubt is None:
            return
        message = complaint(modality, look, doubt)
        if self.strict:
            self._patience[modality.name] = left
            raise UnitError(message)
        self._patience[modality.name] = 0
        warnings.warn(message, UnitWarning, stacklevel=_levels_to_the_user())


class _Copy:
    """A small tensor on its way from a GPU to the host; nobody waits for it."""

    def __init__(self, tensor: Tensor) -> None:
        stream = torch.cuda.current_stream(tensor.device)
        self.values = tensor.to("cpu", non_blocking=True)
        self._done = stream.record_event()

    def has_arrived(self) -> bool:
        return bool(self._done.query())


def _is_asynchronous(images: Tensor) -> bool:
    return images.is_cuda


def _can_be_read(images: Tensor) -> bool:
    if not kernels.has_numbers(images) or not images.numel():
        return False
    return not (images.is_cuda and torch.cuda.is_current_stream_capturing())


@torch.no_grad()
def _measure(images: Tensor, valid: Tensor | None, nodata: float | None, limit: float) -> Tensor:
    """Returns [8, C], float32 on the images' device: what `Look` names, in its order.

    Values beyond `limit` are left out, unless most are: they then show which unit it is.
    """
    B, T, _, H, W = images.shape
    places, seasons = -(-B // _PLACES), -(-T // _SEASONS)
    rows, columns = -(-H // _PIXELS), -(-W // _PIXELS)
    some = images[::places, ::seasons, :, ::rows, ::columns].float()
    there = torch.ones_like(some, dtype=torch.bool)
    if valid is not None:
        there &= valid[::places, ::seasons, None, None, None]
    finite = some.isfinite()
    measured = there & finite if nodata is None else there & finite & (some != nodata)
    absurd = measured & (some.abs() > limit)
    absurd &= 2 * absurd.sum() <= measured.sum()
    measured &= ~absurd
    axes = (0, 1, 3, 4)
    kept = torch.where(measured, some, 0)
    count = measured.sum(axes)
    mean = kept.sum(axes) / count.clamp(min=1)
    away = torch.where(measured, some - mean[:, None, None], 0)
    std = (away.square().sum(axes) / count.clamp(min=1)).sqrt()
    low = torch.where(measured, some, torch.inf).amin(axes)
    high = torch.where(measured, some, -torch.inf).amax(axes)
    whole = (kept == kept.round()).flatten(3).all(-1).all(0).all(0)
    lost = (there & ~finite).sum(axes)
    found = [count, low, high, mean, std, whole, lost, absurd.sum(axes)]
    return torch.stack([each.float() for each in found])


def _levels_to_the_user() -> int:
    """Returns the `stacklevel` of the first caller outside of this package and of torch."""
    frame, level = sys._getframe(1), 1
    inside = ("seamo_fast", "torch")
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    return level
