"""From a journal to a running scheduler."""
