"""Compilation of the kernels by NVRTC: machine code for one compute capability, kept on disk.

Only the library of NVRTC is needed, no GPU and no CUDA toolkit. The result is always a cubin, never
PTX: a driver takes cubins of its own major version of CUDA, but refuses PTX of a newer compiler.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import hashlib
import re
import site
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from simulators.compiler.kernel import run_once
from simulators.errors import UnknownEngine

KERNELS = Path(__file__).parents[1] / "kernels"
# Each module is compiled separately, at its first use; see the end of kernels.cuh for the numbers.
MODULES = {
    "sweep_double": 1,
    "sweep_single": 2,
    "states_double": 3,
    "states_single": 4,
    "sweep_batch_double": 5,
    "sweep_batch_single": 6,
    "lines": 7,
}
OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)
_ONCE = "#pragma once\n"
_PATTERNS = ("libnvrtc.so.[0-9]*",)  # in a folder of wheels
_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12")  # of a CUDA toolkit


class CompiledModule(msgspec.Struct, frozen=True):
    """Machine code, and the compiler's report about each kernel."""

    cubin: bytes
    log: str


class KernelUsage(msgspec.Struct, frozen=True):
    """Resources of a kernel, as the assembler reports them."""

    name: str
    registers: int
    stack_bytes: int
    spilled_bytes: int  # stores


def module_of(kernel: str) -> str:
    if kernel.startswith("sweep_"):
        return kernel
    if kernel.startswith("sample_lines_"):
        return "lines"
    return "states_single" if kernel.endswith("_single") else "states_double"


@functools.cache
def kernel_source() -> str:
    """All kernels as one text: NVRTC reads no files."""
    seen: set[str] = set()

    def expand(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (KERNELS / name).read_text().replace(_ONCE, "")
        return _INCLUDE.sub(lambda match: expand(match[1]), text)

    return expand("kernels.cuh")


class RuntimeCompiler:
    """Library that compiles kernels, called by its C interface, whose names begin with `prefix`;
    that of machine code is `code`."""

    prefix: ClassVar[str]
    code: ClassVar[str]

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.version[0]}.{self.version[1]})"

    def _compiled(self, module: str, *options: str) -> CompiledModule:
        """Compile one of MODULES. Raises RuntimeError with the compiler's message."""
        program, size = ctypes.c_void_p(), 1 + len(options)
        words = (f"-DMODULE={MODULES[module]}", *options)
        argv = (ctypes.c_char_p * size)(*(word.encode() for word in words))
        source = kernel_source().encode()
        self._call("CreateProgram", ctypes.byref(program), source, b"kernels.cu", 0, None, None)
        try:
            failed = self._call("CompileProgram", program, size, argv)
            log = self._text(program, "ProgramLog").decode(errors="replace")
            if failed:
                raise RuntimeError(log)
            return CompiledModule(self._text(program, self.code), log)
        finally:
            self._call("DestroyProgram", ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, name: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{name}Size", program, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        self._call(f"Get{name}", program, room)
        return room.raw

    def _call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._library, self.prefix + name)(*arguments))


class Nvrtc(RuntimeCompiler):
    prefix, code = "nvrtc", "CUBIN"

    def compile(self, module: str, capability: tuple[int, int]) -> CompiledModule:
        """Compile one of MODULES. Raises UnknownEngine with the compiler's message."""
        architecture = f"sm_{capability[0]}{capability[1]}"
        try:
            return self._compiled(module, f"--gpu-architecture={architecture}", *OPTIONS)
        except RuntimeError as error:
            text = f"NVRTC {self.version[0]}.{self.version[1]} did not compile {module} for"
            text += f" {architecture}: {str(error)[:2000]}"
            raise UnknownEngine(text, hint="pip install --upgrade nvidia-cuda-nvrtc") from error


@functools.cache
def load_nvrtc() -> Nvrtc | None:
    """NVRTC of a wheel, else of a CUDA toolkit; None if there is neither."""
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    results = [
        path
        for folder in folders
        for pattern in _PATTERNS
        for path in sorted(glob.glob(f"{folder}/nvidia/*/lib/{pattern}"), reverse=True)
    ]
    for name in (*results, *_NAMES):
        try:
            return Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
    return None


def usage(log: str) -> tuple[KernelUsage, ...]:
    """Resources of each kernel, from the compiler's log."""
    results = []
    name, stack, spilled = "", 0, 0
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name = match[1]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            stack, spilled = int(match[1]), int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            results.append(KernelUsage(name, int(match[1]), stack, spilled))
    return tuple(results)


def source_digest() -> str:
    """Digest of the kernels and their compiler options; the first 16 characters of a SHA-256."""
    text = "\n".join([kernel_source(), *OPTIONS, *MODULES])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached_cubin(
    folder: Path, module: str, capability: tuple[int, int], nvrtc: Nvrtc | None
) -> Path:
    """File of a module's machine code, compiled into `folder` if necessary. Processes that need it
    at the same time compile it once. Raises UnknownEngine if it must be compiled and NVRTC is
    None."""
    place = folder / f"gpu-{source_digest()}-sm{capability[0]}{capability[1]}"
    target = place / f"{module}.cubin"
    if target.exists():
        return target
    if nvrtc is None:
        text = f"NVRTC is not installed, and {target} has not been compiled"
        hint = "pip install 'simenv[gpu-cu13]' (gpu-cu12 for a driver older than 580)"
        raise UnknownEngine(text, hint=hint)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with run_once(place / f"{module}.lock"):
            if not target.exists():
                temporary = target.with_suffix(".new")
                temporary.write_bytes(nvrtc.compile(module, capability).cubin)
                temporary.replace(target)
    except PermissionError:  # an isolated worker only reads the folder that all share
        own = Path(tempfile.gettempdir())
        if folder == own:
            raise
        return cached_cubin(own, module, capability, nvrtc)
    return target
