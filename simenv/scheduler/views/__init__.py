"""Read-only answers about the scheduler state."""
