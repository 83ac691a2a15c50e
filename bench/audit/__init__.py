"""The audit of GPU kernels: ``python -m bench.audit``."""

from __future__ import annotations
