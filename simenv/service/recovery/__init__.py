"""Restoration of the scheduler from the journal, and of damaged results."""
