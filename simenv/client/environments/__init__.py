"""Environments of this user: private ones, started ones, and where they are found."""
