"""What each backend needs before it can run any operation, in words a user can act on."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil

import torch

from . import _native
from ._gpu import _cuda


@functools.cache
def obstacle(backend: str) -> str | None:
    """Why ``backend`` cannot run at all in this process; None if it can."""
    if backend == "cpu":
        return _text(_native.load())
    if backend == "cuda":
        return _old_device() or _text(_cuda.load())
    if backend == "triton":
        return _no_triton()
    return None


def interpreting() -> bool:
    """Whether Triton's interpreter runs kernels on the CPU: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: it comes with torch on Linux, or pip install triton"
    compilers = (os.environ.get("CC"), "gcc", "clang", "cc")
    if not interpreting() and not any(name and shutil.which(name) for name in compilers):
        return "it compiles its launchers: install gcc or clang, or set CC"
    return _old_device()


def _old_device() -> str | None:
    if torch.version.hip is None and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if major < 8:
            return f"it needs compute capability 8.0, but the device has {major}.{minor}"
    return None


def _text(loaded: object) -> str | None:
    return loaded if isinstance(loaded, str) else None
