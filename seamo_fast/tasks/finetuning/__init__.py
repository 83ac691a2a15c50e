"""Finetuning for every labelled dataset: classes, several classes, masks and changes."""
