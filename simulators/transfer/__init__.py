"""Exact outcome probabilities of small noisy circuits, with their derivatives."""
