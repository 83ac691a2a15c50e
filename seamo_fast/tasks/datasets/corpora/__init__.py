"""Labelled parts of what `pack` knows as sources: bands and units are those of its mappings."""
