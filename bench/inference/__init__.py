"""Benchmarks of inference: pytest bench/inference --benchmark-only."""

from __future__ import annotations
