"""Submission: checks the arguments, packs the programs, and sends them to the service."""
