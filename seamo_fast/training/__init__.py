"""Pretraining: configuration, schedule, loop, checkpoints, telemetry and reports."""
