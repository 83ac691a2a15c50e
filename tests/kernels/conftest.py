"""Fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


def _poisoning(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        if type(tensor) is Tensor and tensor.dtype.is_floating_point:
            tensor.data.fill_(torch.nan)
        return tensor

    return poisoned


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """New memory holds NaN: a value that a kernel does not write shows."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (torch, "empty_strided"),
            (Tensor, "new_empty"),
        ):
            patch.setattr(owner, name, _poisoning(getattr(owner, name)))
        yield
