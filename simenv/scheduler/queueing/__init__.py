"""The order of waiting tasks."""
