"""Interfaces of other frameworks to an environment; each is an ordinary client."""

from __future__ import annotations
