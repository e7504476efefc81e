"""Processes and sockets behind the actions of the scheduler."""
