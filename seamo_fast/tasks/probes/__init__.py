"""Simple classifiers on frozen features, and which labels they may see."""
