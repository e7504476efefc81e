"""Usage of ended tasks, and the receipts of single tasks."""
