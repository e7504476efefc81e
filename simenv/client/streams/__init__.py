"""Streams of circuits over one or several devices, with queues of completions and of events.

The order of deliveries is decided in `delivery`, which does no I/O.
"""
