"""Message types of the wire protocol: a class here, and its handler in the service."""
