"""Downstream tasks: datasets with labels, probes, finetuning and metrics."""
