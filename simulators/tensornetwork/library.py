"""quimb, imported without letting it compile anything.

It has numba compile its splits of matrices when they are first called: most of a minute on a new
machine, for functions that spend their time in LAPACK either way. Left as Python they are no
slower, and the first task waits a second.
"""

from __future__ import annotations

import numba

from simulators import philox  # noqa: F401  # our kernels first: they are to be compiled

numba.config.DISABLE_JIT = 1
try:
    from quimb.tensor import CircuitMPS
finally:
    numba.config.DISABLE_JIT = 0

__all__ = ["CircuitMPS"]
