"""What a model does on the test part, as pictures."""
