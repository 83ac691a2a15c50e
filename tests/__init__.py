"""The tests of seamo_fast."""
