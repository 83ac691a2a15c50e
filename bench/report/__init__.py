"""What the benchmarks found, as tables: ``python -m bench.report FILE.json ...``."""

from __future__ import annotations
