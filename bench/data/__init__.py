"""Benchmarks of reading: pytest bench/data --benchmark-only."""
