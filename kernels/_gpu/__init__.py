"""What the kernels of GPUs share: how they are loaded and started, casts, sums of rows."""

from __future__ import annotations
