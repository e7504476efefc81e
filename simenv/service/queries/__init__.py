"""Read-only requests of clients."""
