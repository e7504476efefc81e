"""Handlers of messages, which know all parts of a service: queries, changes, metrics."""
