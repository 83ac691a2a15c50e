"""What tests of several parts do: hold locks, and watch memory."""

from __future__ import annotations

import os
import signal
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seamo_fast import files


@contextmanager
def locked_by_another(folder: Path) -> Iterator[int]:
    """Locks a folder in another process for a body; yields its number."""
    ready, done = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            with files.locked(folder, "OUT", "folder"):
                os.write(done, b".")
                time.sleep(60)
        finally:
            os._exit(1)  # a forked process must not return
    os.close(done)
    try:
        assert os.read(ready, 1), f"{folder} was not locked"
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(ready)


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    """Raises AssertionError if what Python allocates in a body comes to so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
