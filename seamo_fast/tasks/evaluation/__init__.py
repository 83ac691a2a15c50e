"""What frozen features are worth: probes of checkpoints and baselines in one table."""
