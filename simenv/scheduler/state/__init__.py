"""Data of the scheduler, and helpers that keep its invariants."""
