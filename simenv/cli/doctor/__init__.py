"""Checks of an installation: launchers, folders, keys, host."""
