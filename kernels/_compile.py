"""Runs compilers, several at a time. Imports nothing of the package: setup.py uses it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Report = Callable[[str], None]  # takes a line of text


class CompileError(RuntimeError):
    """A compiler is missing, or refused a source; ``output`` is all that it said."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def run(command: Sequence[str]) -> str:
    """Runs a compiler and returns what it said.

    Raises:
        CompileError: it failed; the message has its first error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise CompileError(f"{Path(command[0]).name} failed: {lines[0].strip()}", done.stderr)
    return done.stderr


def run_all(commands: Mapping[str, Sequence[str]], report: Report) -> None:
    """Runs commands, MAX_JOBS at a time (default: one for each processor).

    Args:
        commands: by the name of what each makes, in the order in which they start.
        report: gets a line when one is done: which, how many of all are done, its seconds.

    Raises:
        CompileError: one failed. Those that have not started are left out.
    """
    done = 0

    def make(name: str) -> None:
        nonlocal done
        begin = time.monotonic()
        run(commands[name])
        done += 1
        report(f"[{done:2}/{len(commands)}] {name}  {time.monotonic() - begin:.1f} s")

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        futures = [pool.submit(make, name) for name in commands]
        try:
            for future in futures:
                future.result()
        except CompileError:
            pool.shutdown(cancel_futures=True)
            raise
