"""Requests of QPM hosts, parsed and checked."""
