"""Circuits, queues, events and reservations of a QPM instance."""
