"""Ledger of reserved credits and rates, pure over its own data."""
