"""Chains of tensors: blocks of gates, their evolution, and trials of how far its bonds grow."""
