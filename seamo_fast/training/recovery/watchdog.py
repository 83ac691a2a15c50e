"""Reports where a run hangs: the stacks of all threads, once no step has ended for too long."""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

_LOG: Final = logging.getLogger(__name__)


class Watchdog:
    """While open, one thread waits for steps that do not end; it never ends the run.

    Each stall is written once, to `stall-<host>-<process>.txt` in the run folder, and logged once.

    Args:
        folder: The run folder.
        seconds: How long no step may end; None never looks.
        step: Steps that the run has done.
    """

    def __init__(self, folder: Path, seconds: float | None, step: int) -> None:
        self.path = folder / f"stall-{platform.node()}-{os.getpid()}.txt"
        self._seconds = seconds
        self._step = step
        self._last = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._last = time.monotonic()
        if self._seconds is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._seconds is not None:
            self._thread.join()

    def beat(self, step: int) -> None:
        """Notes that the run's step `step` has ended."""
        self._step, self._last = step, time.monotonic()

    def _watch(self) -> None:
        assert self._seconds is not None
        reported = None
        while True:
            last = self._last
            # a reported stall is looked at again only to see whether it has ended
            left = self._seconds if last == reported else last + self._seconds - time.monotonic()
            if self._closed.wait(max(left, 0.0)):
                return
            if self._last == last != reported:
                self._report()
                reported = last

    def _report(self) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%F %T')}: no step after {self._step}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        _LOG.warning(
            f"no step has ended for {self._seconds:g} s after step {self._step}; the stacks of all "
            f"threads are in {self.path}"
        )
