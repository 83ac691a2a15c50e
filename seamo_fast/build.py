"""`python -m seamo_fast.build`: compiles the native kernels for the torch that is installed."""

from __future__ import annotations

import sys

from seamo_fast.kernels import _native


def main() -> int:
    """Compiles what SEAMO_FAST_BUILD asks for; returns the exit code of the command."""
    try:
        failures = _native.build(_report)
    except _native.BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for name, reason in failures.items():
        sys.stdout.write(f"{name}: {reason or f'compiled into {_native.cache_folder(name)}'}\n")
    return 0


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
