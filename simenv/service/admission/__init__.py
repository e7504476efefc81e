"""Validation of submits before the scheduler sees them."""
