"""Number of workers of each pool, and their nodes."""
