"""Accounts of users, usage of ended tasks, and the receipts of single tasks."""
