"""The session with the service: requests, pending tasks, reconnects."""
