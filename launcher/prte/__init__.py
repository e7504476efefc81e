"""PRTE: one DVM for all workers of a block of nodes."""
