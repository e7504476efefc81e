"""Sockets: local IPC, remote TCP with CURVE keys, in memory."""
