"""Benchmarks of training: pytest bench/training --benchmark-only."""
