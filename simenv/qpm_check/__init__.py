"""Conformance checks of QPM plugins, independent of simenv's own implementation."""

from __future__ import annotations

RPC_TIMEOUT_S = 30.0  # of calls of the DEFw double to clients; a real host's is 300
