"""Benchmarks and the audit of GPU kernels; not installed."""

from __future__ import annotations
