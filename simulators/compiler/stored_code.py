"""Machine code of kernels on disk, loaded without numba's compiler.

numba's own cache sets its compiler up before it loads a kernel: 0.15 s in each process, and then
four times the time of this module for each kernel. A file holds the machine code and the
descriptions that numba needs to call it, for the processor that it was compiled for.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm
from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python

_DIGEST_BYTES = 16


@functools.cache
def _processor() -> str:
    """Name of the instruction set for which numba compiles here, 8 hex digits."""
    target = repr(cpu_target.target_context.codegen().magic_tuple())
    return hashlib.blake2b(target.encode(), digest_size=4).hexdigest()


@functools.cache
def _define_helpers() -> None:
    """Make numba's functions that check and unpack arguments known to the linker."""
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def path(folder: Path, kernel: str) -> Path:
    """File of a kernel's code for this processor."""
    return folder / f"{kernel}.{_processor()}.code"


def read(file: Path) -> Any:
    """Read the code as numba's result of a compilation; None if there is none, or it is damaged.

    The file's content runs as code: no other user may be able to write to the folder.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(body):
        return None
    _define_helpers()
    return CompileResult._rebuild(cpu_target.target_context, *pickle.loads(body))  # noqa: S301


def write(file: Path, compiled: Any) -> None:
    """Store numba's result of a compilation. A full disk is no error: the next process that needs
    the kernel compiles it."""
    body = serialize.dumps(compiled._reduce())
    begun = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        begun.write_bytes(_digest(body) + body)
        begun.replace(file)
    except OSError:
        with suppress(OSError):
            os.unlink(begun)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
