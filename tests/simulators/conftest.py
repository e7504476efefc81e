"""Kernels are kept where the environments under test keep theirs, so they are compiled once."""

import sys
from pathlib import Path

from simulators.compiler import warmup

KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
warmup.prepare(KERNELS)
