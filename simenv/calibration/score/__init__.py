"""Scores of device models against measured counts."""
