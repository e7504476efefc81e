"""Accounts of users, and usage of ended tasks."""
