"""All that the scheduler remembers, and helpers that keep its invariants."""
