"""Message types of the wire protocol."""
