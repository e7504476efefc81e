"""Answers to QPM hosts: status, results, capabilities."""
