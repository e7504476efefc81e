"""One PRTE DVM for all workers of a block of nodes."""
