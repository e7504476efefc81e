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

from simulators.gpu.devices.device import MODULES, KernelUsage, kernel_source

# Debian's packages, which scripts/unpacked.sh unpacks, and their libraries: each before one that
# needs it. A machine with ROCm has its own.
PACKAGES = ("libamdhip64-5", "libhiprtc-builtins5")
FOLDER = Path(sys.prefix) / "var" / "simenv-hip"
_LIBRARIES = ("numa", "hsakmt", "amd_comgr", "hsa-runtime64", "hiprtc-builtins", "amdhip64")
# Without the last two the amplitudes of a thread are in memory, and not in registers.
OPTIONS = ("-std=c++17", "-O3", "-ffp-contract=off", "-mllvm", "-pragma-unroll-threshold=1000000")
_NOTE = b"AMDGPU\0\0"  # owner of the metadata in the machine code, after their size and type


class Hiprtc:
    """HIPRTC, called by its C interface, which is that of NVRTC by other names."""

    def __init__(self) -> None:
        """Load it. Raises OSError if it is neither unpacked nor installed."""
        unpacked = (FOLDER.glob(f"usr/lib/*/lib{name}.so.?") for name in _LIBRARIES)
        for path in list(itertools.chain(*unpacked)) or ["libamdhip64.so"]:
            self._library = ctypes.CDLL(str(path))

    def __repr__(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.hiprtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"Hiprtc({major.value}.{minor.value})"

    def compile(self, module: str, architecture: str) -> bytes:
        """Machine code of one of MODULES. Raises RuntimeError with the compiler's message."""
        hip, program = self._library, ctypes.c_void_p()
        options = [f"--offload-arch={architecture}", f"-DMODULE={MODULES[module]}", *OPTIONS]
        argv = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        source = kernel_source().encode()
        hip.hiprtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
        try:
            if hip.hiprtcCompileProgram(program, len(options), argv):
                raise RuntimeError(self._read(program, "ProgramLog").decode(errors="replace"))
            return self._read(program, "Code")
        finally:
            hip.hiprtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._library, f"hiprtcGet{name}Size")(program, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        getattr(self._library, f"hiprtcGet{name}")(program, room)
        return room.raw


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
