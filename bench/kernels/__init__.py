"""Benchmarks of the kernels against PyTorch: ``pytest bench/ --benchmark-only``."""

from __future__ import annotations
