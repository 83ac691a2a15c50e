"""Importing libraries of Hugging Face past the folder `kernels/` of this repository."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast


@contextmanager
def kernels_hidden() -> Iterator[None]:
    """Hides our folder `kernels/` while the body imports transformers, or what imports it.

    In the repository's root transformers takes the folder for Hugging Face's package of that name,
    and fails. That package itself is not hidden.
    """
    modules = cast(dict[str, Any], sys.modules)
    if "kernels" in modules or not _is_ours():
        yield
        return
    modules["kernels"] = None  # not to be found
    try:
        yield
    finally:
        del modules["kernels"]


def _is_ours() -> bool:
    spec = importlib.util.find_spec("kernels")
    return bool(spec and spec.origin and Path(spec.origin).with_name("tm_attention").is_dir())
