"""What the QPM contract says, independent of any implementation."""
