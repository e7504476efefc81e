"""A resident simulator: receives chunks, runs circuits, answers; nothing else."""
