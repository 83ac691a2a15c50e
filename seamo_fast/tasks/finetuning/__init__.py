"""Finetuning for every labelled dataset: data, models, losses, scores and the loop."""
