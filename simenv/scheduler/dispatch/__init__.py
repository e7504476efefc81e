"""Assignment of waiting tasks to workers."""
