"""Queries: read-only requests of clients."""
