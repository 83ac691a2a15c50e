"""The loop of a finetuning: steps, validation, the best weights, and its state on the disk."""
