"""Ledger of reserved credits and rates; a pure state machine over its own data."""
