"""HIPRTC, which compiles the kernels of the engine `gpu` for AMD GPUs, on a machine without one.

Only registers and spills are read of what it makes: nothing here runs it.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import sys
from pathlib import Path

import msgspec

from simulators.gpu.devices.nvrtc import KernelUsage, RuntimeCompiler

# Debian's packages, which scripts/unpacked.sh unpacks, and their libraries: each before one that
# needs it. A machine with ROCm has its own.
PACKAGES = ("libamdhip64-5", "libhiprtc-builtins5")
FOLDER = Path(sys.prefix) / "var" / "simenv-hip"
_LIBRARIES = ("numa", "hsakmt", "amd_comgr", "hsa-runtime64", "hiprtc-builtins", "amdhip64")
# Without the last two the amplitudes of a thread are in memory, and not in registers.
OPTIONS = ("-std=c++17", "-O3", "-ffp-contract=off", "-mllvm", "-pragma-unroll-threshold=1000000")
_NOTE = b"AMDGPU\0\0"  # owner of the metadata in the machine code, after their size and type


class Hiprtc(RuntimeCompiler):
    prefix, code = "hiprtc", "Code"

    def __init__(self) -> None:
        """Load it. Raises OSError if it is neither unpacked nor installed."""
        unpacked = (FOLDER.glob(f"usr/lib/*/lib{name}.so.?") for name in _LIBRARIES)
        paths = [str(path) for path in itertools.chain(*unpacked)] or ["libamdhip64.so"]
        *_, last = [ctypes.CDLL(path) for path in paths]
        super().__init__(last)

    def compile(self, module: str, architecture: str) -> bytes:
        """Machine code of one of MODULES. Raises RuntimeError with the compiler's message."""
        return self._compiled(module, f"--offload-arch={architecture}", *OPTIONS).cubin


def usage(code: bytes) -> tuple[KernelUsage, ...]:
    """Resources of each kernel: vector registers, and memory of a thread."""
    at = code.index(_NOTE)
    (size,) = struct.unpack_from("<I", code, at - 8)
    begin = at + len(_NOTE)
    kernels = msgspec.msgpack.decode(code[begin : begin + size])["amdhsa.kernels"]
    return tuple(
        KernelUsage(
            each[".name"], each[".vgpr_count"], each[".private_segment_fixed_size"],
            4 * each[".vgpr_spill_count"],
        )
        for each in kernels
    )  # fmt: skip
