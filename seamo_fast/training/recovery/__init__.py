"""What makes a run survive: checkpoints, resume, the run folder, signals, watchdog."""
