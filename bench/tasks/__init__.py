"""Benchmarks of what is done with features."""
