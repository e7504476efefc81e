"""The one way to compile a kernel: explicit signature, cached on disk, interpreter lock released.

Invariant: a kernel has exactly one specialisation, compiled or loaded when its module is imported;
nothing is ever compiled by a call. No kernel starts threads: a caller with many cores calls
kernels on ranges from threads of its own (`crew`), so an idle process uses no CPU at all.

Numba's cache looks at a kernel's own file only, not at the files of the functions it calls. So the
cache lies in a folder named by the sources of all kernels together, and never mixes two versions.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.core.compiler import Compiler

_HERE = Path(__file__).parent


def _without_blas() -> None:
    """Let numba find no SciPy while it asks whether BLAS is there: no kernel calls it, and loading
    scipy.linalg only to learn that costs each process 0.2 s and 13 MB."""
    hidden = "scipy.linalg" not in sys.modules
    if hidden:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        if hidden:
            del sys.modules["scipy.linalg"]


_without_blas()

try:
    compiling: Any = importlib.import_module("simulators.compiling")
    _COMPILER, _undisturbed = compiling.COMPILER, compiling.undisturbed
except (AttributeError, ImportError):  # another numba than it was written for: its own way, slower
    _COMPILER, _undisturbed = Compiler, nullcontext
from simulators.kernel_time import booked  # noqa: E402
from simulators.locks import one_at_a_time  # noqa: E402

# Argument types, short because signatures are long. Read-only: views on received bytes.
BYTES = types.Bytes(types.uint8, 1, "C")
NAMES = types.Array(types.int64, 2, "C")  # the table of a circuit
U16 = types.Array(types.uint16, 1, "C", readonly=True)
I32 = types.Array(types.int32, 1, "C", readonly=True)
F64 = types.Array(types.float64, 1, "C", readonly=True)
F64_2 = types.Array(types.float64, 2, "C", readonly=True)
I64 = types.int64[::1]
WORDS2 = types.uint64[:, ::1]
INTS2 = types.int64[:, ::1]
INTS3 = types.int64[:, :, ::1]
REALS2 = types.float64[:, ::1]
U8 = types.uint8[::1]
U32 = types.uint32[::1]
U64 = types.uint64[::1]
REALS = types.float64[::1]
REALS3 = types.float64[:, :, ::1]
SINGLES = types.float32[::1]
INT = types.int64
WORD = types.uint64
REAL = types.float64


def sources_digest() -> str:
    """16 hex digits that name the kernels' sources and their compiler."""
    found = hashlib.blake2b(digest_size=8)
    found.update(f"{numba.__version__} {np.__version__}".encode())
    for path in sorted(_HERE.rglob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


# How kernels of large states are written: in explicit vectors, or in loops for any processor.
VECTORS, PLAIN = "vectors", "plain"
_FAMILY = "family"  # a file beside the folders of kernels that says which


def suits() -> str:
    """VECTORS where the processor multiplies and adds in one instruction, as these always do."""
    if numba.config.CPU_NAME == "generic":
        return PLAIN
    if platform.machine() in ("aarch64", "arm64", "ppc64le"):
        return VECTORS
    return VECTORS if binding.get_host_cpu_features().get("fma") else PLAIN


def chosen(folder: Path) -> str:
    """What was chosen for the kernels under `folder`; "" where they are as the processor likes."""
    try:
        said = (folder / _FAMILY).read_text().strip()
    except OSError:
        return ""
    return said if said in (VECTORS, PLAIN) else ""


def choose(folder: Path, family: str) -> None:
    """From now on kernels under `folder` are of this family; "": as the processor likes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if family:
        (folder / _FAMILY).write_text(family + "\n")
    else:
        (folder / _FAMILY).unlink(missing_ok=True)


def family() -> str:
    """Of the kernels of this process."""
    return _in_use[0]


def version(folder: Path) -> Path:
    """Where under `folder` the kernels of this version and family are."""
    which = chosen(folder) or suits()
    return folder / f"kernels-{sources_digest()}{'-plain' if which == PLAIN else ''}"


def use_cache(folder: Path) -> Path:
    """Keep compiled kernels under `folder`, in a folder of this version; return that.

    Works for kernels imported afterwards; `simulators.warm.warm_up` is the usual caller.
    """
    found = version(folder)
    _in_use[0] = chosen(folder) or suits()
    _kept[0] = found
    numba.config.CACHE_DIR = str(found)
    return found


_in_use = [""]
_kept = [_HERE / "__pycache__"]  # numba forgets its own where an environment variable changes

# Without numba's reference counts a kernel allocates nothing, enters in half the time, and its
# inner calls cost nothing (they took 50 ns a gate); scratch arrays come in as arguments.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "pipeline_class": _COMPILER}


def kernel(*signature: Any, returns: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """A function compiled for exactly these argument types, callable from Python.

    Processes that need it at the same time compile it once.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        numba.config.CACHE_DIR = str(_kept[0])
        begun = _kept[0] / "begun"
        name = f"{function.__module__}.{function.__qualname__}"
        with booked(), one_at_a_time(begun / name), _undisturbed():
            return numba.njit(returns(*signature), cache=True, no_cfunc_wrapper=True, **_OPTIONS)(
                function
            )

    return compiled


def entry(compiled: Any) -> Callable[..., Any]:
    """A kernel's compiled code itself, which takes its arguments for what they should be: a call
    without the question whether they are costs half. For callers that know."""
    (found,) = compiled.overloads.values()
    code: Callable[..., Any] = found.entry_point
    return code


def part(function: Callable[..., Any]) -> Any:
    """A function that only kernels call: becomes part of each of them."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def inner(function: Callable[..., Any]) -> Any:
    """A part so short, and called so often, that the call itself would be felt."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True, **_OPTIONS)(
        function
    )


if numba.config.CACHE_DIR:
    _kept[0] = Path(numba.config.CACHE_DIR)
else:
    use_cache(_HERE / "__pycache__")
