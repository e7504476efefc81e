"""Chains of tensors: blocks of gates, their evolution, and trials of the growth of bonds."""
