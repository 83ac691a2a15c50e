"""What commands of this folder show; imports nothing of the package, which mutants replace."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Shows a line at once, from any thread."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
