"""Benchmarks of tasks: pytest bench/tasks --benchmark-only --full."""
