"""From datasets on disk to shards."""
