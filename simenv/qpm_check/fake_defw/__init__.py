"""A stand-in for DEFw: loads a plugin as DEFw does and passes calls and events over a socket.

The plugin runs in a process of its own (`__main__`), which has modules under DEFw's bare names
(`fakes`); a client here (`client`) sends YAML documents (`wire`) to it. Written from what a plugin
can observe of DEFw; what DEFw does wrong (it sends without a lock) is counted instead of suffered.
"""

from __future__ import annotations
