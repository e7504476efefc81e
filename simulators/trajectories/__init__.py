"""Error patterns of noisy circuits and the tree of their prefixes, for engines of trajectories."""
