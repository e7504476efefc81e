"""QPI: a C library for compiled programs, over the wire protocol of the Python client.

The header is `include/simenv_qpi.h`, the Fortran module `fortran/simenv_qpi.f90`; `build` compiles
the library with the system's C compiler.
"""

from __future__ import annotations

from simenv.frontends.qpi.build import InstalledLibrary, build

__all__ = ["InstalledLibrary", "build"]
