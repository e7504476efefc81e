"""Plain processes: start, signals, binding to their parent's life, start on other nodes."""
