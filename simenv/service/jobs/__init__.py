"""Durable jobs, in the journal."""
