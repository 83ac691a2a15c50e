"""Generated scenes for tests, benchmarks and the first run."""
