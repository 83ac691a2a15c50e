"""BigEarthNet, both releases."""
