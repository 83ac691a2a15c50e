"""`python -m seamo_fast.profile`: where a training step's time goes, and whether losses agree."""
