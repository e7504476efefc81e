"""Plain processes: started, signalled, bound to their parent's life, reached on other nodes."""
