"""See `cupy`."""

from __future__ import annotations


class CUDADriverError(Exception):
    """Raised as CuPy's."""
