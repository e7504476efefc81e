"""Small services of the event loop: ownership of the folder, logs, fault injection."""
