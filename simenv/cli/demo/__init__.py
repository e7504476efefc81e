"""What `simenv demo` runs and draws."""
