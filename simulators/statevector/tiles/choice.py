"""Rows in explicit vectors, or in plain loops where `jit` was told so."""

from __future__ import annotations

import importlib
from typing import Any

from simulators import jit

_NAMES = {jit.PLAIN: "plain_rows", jit.VECTORS: "vector_rows"}
rows: Any = importlib.import_module(f"simulators.statevector.tiles.{_NAMES[jit.family()]}")
