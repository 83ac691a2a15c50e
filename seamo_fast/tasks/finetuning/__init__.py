"""Finetuning: a backbone with a head, trained on labels of any dataset that can be read."""
