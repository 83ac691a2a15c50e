"""The shard format: plain arrays beside a manifest, written and read."""
