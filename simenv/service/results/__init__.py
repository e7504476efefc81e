"""Completions, retention and files of results."""
