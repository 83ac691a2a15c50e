"""Checks of the inputs of kernels: every message names the tensor, what was expected, what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shape(name: str, tensor: Tensor, dims: str, expected: Sequence[int | None]) -> None:
    """Checks the shape of a tensor.

    Args:
        name: name of the tensor in the message.
        tensor: the tensor.
        dims: letters of the dimensions, such as "B, T, K".
        expected: sizes; None where any size will do.

    Raises:
        ValueError: the shape differs.
    """
    actual = tensor.shape
    if len(actual) == len(expected):
        for got, want in zip(actual, expected, strict=True):
            if want is not None and got != want:
                break
        else:
            return
    wanted = ", ".join("*" if size is None else str(int(size)) for size in expected)
    raise ValueError(
        f"{name} must have shape [{dims}] = [{wanted}], but got {[int(n) for n in actual]}"
    )


def rank(name: str, tensor: Tensor, dims: str, least: int) -> None:
    """Raises ValueError if a tensor ``[..., *dims]`` has fewer than ``least`` dimensions."""
    if tensor.dim() < least:
        raise ValueError(
            f"{name} must have shape [..., {dims}], but got {[int(n) for n in tensor.shape]}"
        )


def floating(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless the tensor has a floating-point dtype."""
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} must be a floating-point tensor, but got {tensor.dtype}")


def integer(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless the tensor is int32 or int64."""
    if tensor.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be int32 or int64, but got {tensor.dtype}")


def boolean(name: str, tensor: Tensor) -> None:
    """Raises TypeError unless the tensor is bool."""
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, but got {tensor.dtype}")


def same_device(name: str, tensor: Tensor, device: torch.device) -> None:
    """Raises ValueError unless the tensor is on ``device``, where the first input is."""
    if tensor.device != device:
        raise ValueError(
            f"{name} must be on {device} like the first input, but got {tensor.device}"
        )


def same_dtype(name: str, tensor: Tensor, first: str, dtype: torch.dtype) -> None:
    """Raises TypeError unless the tensor has the dtype of the input named ``first``."""
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like {first}, but got {tensor.dtype}")


def constant(name: str, tensor: Tensor, op: str) -> None:
    """Raises ValueError if a gradient would be asked of an input that ``op`` gives none for."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} must not require grad: {op} gives no gradient for it")


def in_range(name: str, tensor: Tensor, size: int) -> None:
    """Raises IndexError if a CPU tensor of patch numbers leaves ``[0, size)``.

    On other devices nothing is checked: that would wait for the device.
    """
    if tensor.device.type != "cpu" or tensor.numel() == 0:
        return
    low, high = (int(value) for value in tensor.aminmax())
    if low < 0 or high >= size:
        got = low if low < 0 else high
        raise IndexError(f"{name} must hold patch numbers in [0, {size}), but got {got}")
