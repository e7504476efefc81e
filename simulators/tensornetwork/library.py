"""quimb, imported so that what it compiles is kept beside our own kernels, and found again.

Its functions are compiled when first called (half a minute on a new machine). Their cache lies in a
folder of quimb's version, apart from that of our kernels, which changes with our sources.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numba

from simulators import jit  # noqa: F401  # it says where kernels are kept

_OURS = numba.config.CACHE_DIR
numba.config.CACHE_DIR = str(Path(_OURS).parent / f"quimb-{version('quimb')}-{numba.__version__}")
try:
    from quimb.tensor import CircuitMPS
finally:
    numba.config.CACHE_DIR = _OURS

__all__ = ["CircuitMPS"]
