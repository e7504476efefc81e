"""Commands that start, show and end environments."""
