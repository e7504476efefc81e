"""Environments of this user: private and named ones, their start and end, and their list."""
