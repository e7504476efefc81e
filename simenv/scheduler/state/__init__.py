"""Data of the scheduler, and what keeps its invariants: also who is charged with a crash."""
