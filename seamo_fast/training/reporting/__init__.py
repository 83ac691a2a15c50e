"""What a run shows: metrics, throughput, figures."""
