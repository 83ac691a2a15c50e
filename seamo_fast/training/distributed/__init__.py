"""Several ranks: what they exchange, and how they share the model."""
