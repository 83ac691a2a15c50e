"""Runs the CUDA backend: on a GPU where there is one, else on the CPU under guard.

On the CPU the tensors of every call lie between poisoned zones: a kernel that writes beside one
fails, and in "checked" mode also one that reads beside it, races, or reads what nobody wrote.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor
from torch.utils._pytree import tree_map_only

from seamo_fast.kernels._gpu import _cuda
from seamo_fast.kernels.gather_patches import reference as gather_patches
from tests.cuda_on_host import host
from tests.cuda_on_host.host import guarded_by

_running: host.Executor | None = None


@functools.cache
def _executor(mode: host.Mode) -> host.Executor:
    return host.Executor(mode)


@contextmanager
def on_host(mode: host.Mode = "plain") -> Iterator[host.Executor]:
    """Makes the CUDA kernels run on the CPU."""
    global _running
    running_before, _running = _running, _executor(mode)
    before = _cuda.use(_running.path)
    try:
        yield _running
    finally:
        _running = running_before
        _cuda.use(before)


def device() -> str:
    """The device of the tensors that the kernels take."""
    return "cuda" if _running is None else "cpu"


def orders() -> Iterator[None]:
    """Goes through several orders of blocks and threads; on a GPU they differ by themselves."""
    for order in (1, 2, 0):
        if _running is not None:
            _running.order(order)
        yield


def checked(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test on the CPU only, with every access to memory checked."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        reason = host.why_not()
        if reason is not None:
            pytest.skip(reason)
        with on_host("checked"):
            test(*arguments, **named)

    return run


class Guarded:
    """A module whose functions run under guard when they run on the CPU."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)

        def call(*arguments: Any) -> Any:
            gather_patches.output_channels.cache_clear()  # what another guard knew
            with guarded_by(_running and _running.functions) as guard:
                # what shares memory with itself cannot be copied as it is
                return function(
                    *tree_map_only(
                        Tensor, lambda x: x if 0 in x.stride() else guard.tensor(x), arguments
                    )
                )

        return call
