"""Doors of other frameworks into an environment; each is a client like any other."""

from __future__ import annotations
