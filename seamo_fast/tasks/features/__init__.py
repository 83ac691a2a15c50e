"""Frozen features of labelled images: from files to cached tensors."""
