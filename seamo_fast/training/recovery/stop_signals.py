"""SIGTERM and SIGINT as a request to stop after the current step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from seamo_fast.training.distributed import ranks


class StopRequest:
    """While open, the first SIGTERM or SIGINT only sets `signal`; a second one acts as usual.

    Attributes:
        signal: The signal that came, None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def agree(self) -> signal.Signals | None:
        """Returns a signal that came to any rank; all ranks ask at the same moment."""
        agreed = ranks.largest(int(self.signal or 0))
        return signal.Signals(agreed) if agreed else None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
