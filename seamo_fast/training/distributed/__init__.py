"""Several ranks: what they tell each other, and how they share the model."""
