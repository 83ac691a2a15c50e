"""The phases of a training step, those of the forward pass found by hooks on the model's parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from seamo_fast.model.seamo import SeaMo
from seamo_fast.training.reporting.meter import Stopwatch

_REST = "targets and loss"


class Phases:
    """Divides time into phases that follow one another, for the clock and for torch.profiler.

    Args:
        device: Whose time it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._watch = Stopwatch(device)
        self._open = ExitStack()
        self._names: dict[str, str] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Adds what happens inside to a phase, or to those that hooks begin inside."""
        self._begin(self._names.get(phase, phase))
        try:
            yield
        finally:
            self._open.close()

    def _begin(self, phase: str) -> None:
        self._open.close()
        self._open.enter_context(record_function(phase))
        self._open.enter_context(self._watch.time(phase))

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase since the last call; waits for the device."""
        return self._watch.totals()

    def attach(self, model: SeaMo) -> None:
        """Makes the parts of the forward pass phases of their own.

        What comes before the encoder, `embed`, gathers the visible patches and projects them. What
        comes after it and is neither fusion nor decoder gathers the hidden patches and computes
        the loss.
        """
        self._names["forward"] = "embed"
        parts: dict[str, nn.Module] = {"encoder": model.encoder}
        if model.fusion is not None:
            parts["fusion"] = model.fusion
        parts |= {f"decoder {name}": decoder for name, decoder in model.decoders.items()}
        for name, part in parts.items():
            part.register_forward_pre_hook(partial(self._hook, name))
            part.register_forward_hook(partial(self._hook, _REST))

    def _hook(self, phase: str, *_: Any) -> None:
        self._begin(phase)
