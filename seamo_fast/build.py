"""Compiles the native kernels for the torch that is installed.

python -m seamo_fast.build
SEAMO_FAST_BUILD=cuda python -m seamo_fast.build   # auto, none, cpu or cuda
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from seamo_fast.cli import Command, NoSettings, say
from seamo_fast.errors import SeaMoError
from seamo_fast.kernels import _native

COMMAND: Final = Command("build", NoSettings, __doc__)


def _run(_: NoSettings) -> None:
    try:
        failures = _native.build(say)
    except _native.BuildError as error:  # setup.py reads that module without this package
        raise SeaMoError(str(error)) from error
    for name, reason in failures.items():
        say(f"{name}: {reason or f'compiled into {_native.cache_folder(name)}'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return COMMAND.run(_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
