"""cuStateVec, NVIDIA's library of gates on statevectors, by ctypes: one matrix in each call.

Prototypes and constants are those of custatevec.h 1.15 and of CUDA's library_types.h. The wheels
custatevec-cu13 and custatevec-cu12 have the library; it needs cuBLAS (nvidia-cublas).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.peers.fused_gates import MatrixGate
from simulators.gpu.devices.device import COMPLEX, Buffer, Device

LIBRARY = "libcustatevec.so.1"
INSTALL_COMMAND = "pip install custatevec-cu13 nvidia-cublas (custatevec-cu12 nvidia-cublas-cu12)"
_IN_WHEEL = Path("cuquantum") / "lib" / LIBRARY

SUCCESS = 0  # custatevecStatus_t
CUDA_C_32F, CUDA_C_64F = 4, 5  # cudaDataType_t
COMPUTE_32F, COMPUTE_64F = 1 << 2, 1 << 4  # custatevecComputeType_t
LAYOUT_ROW = 1  # custatevecMatrixLayout_t
_TYPES = {"double": (CUDA_C_64F, COMPUTE_64F), "single": (CUDA_C_32F, COMPUTE_32F)}

_HANDLE, _POINTER = ctypes.c_void_p, ctypes.c_void_p
_INTEGERS = ctypes.POINTER(ctypes.c_int32)
_SIZES = ctypes.POINTER(ctypes.c_size_t)
_ENUM = ctypes.c_int
# Of each function that is used: its result, and its parameters in their order.
PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "custatevecCreate": (_ENUM, (ctypes.POINTER(_HANDLE),)),
    "custatevecDestroy": (_ENUM, (_HANDLE,)),
    "custatevecGetErrorString": (ctypes.c_char_p, (_ENUM,)),
    "custatevecGetVersion": (ctypes.c_size_t, ()),
    "custatevecApplyMatrixGetWorkspaceSize": (
        _ENUM,
        (
            *(_HANDLE, _ENUM, ctypes.c_uint32, _POINTER, _ENUM, _ENUM, ctypes.c_int32),
            *(ctypes.c_uint32, ctypes.c_uint32, _ENUM, _SIZES),
        ),
    ),
    "custatevecApplyMatrix": (
        _ENUM,
        (
            *(_HANDLE, _POINTER, _ENUM, ctypes.c_uint32, _POINTER, _ENUM, _ENUM, ctypes.c_int32),
            *(_INTEGERS, ctypes.c_uint32, _INTEGERS, _INTEGERS, ctypes.c_uint32, _ENUM),
            *(_POINTER, ctypes.c_size_t),
        ),
    ),
}


class NotInstalled(Exception):
    """The library cannot be loaded; the message says why."""


class CustatevecError(Exception):
    """A call failed; the message has its name and the library's words."""


class _Call(msgspec.Struct, frozen=True, eq=False):
    """The arguments of a gate, made before the clock runs."""

    matrix: Buffer
    targets: ctypes.Array[ctypes.c_int32]
    controls: ctypes.Array[ctypes.c_int32]


def load(folders: Sequence[str] = sys.path) -> ctypes.CDLL:
    """The library of a wheel in one of these folders, else the one that the loader finds."""
    inside = [str(path) for folder in folders if (path := Path(folder) / _IN_WHEEL).exists()]
    try:
        library = ctypes.CDLL((inside or [LIBRARY])[0])
    except OSError as error:
        text = str(error) if inside else f"{LIBRARY} is not here"
        raise NotInstalled(f"cuStateVec is not installed: {text}; {INSTALL_COMMAND}") from error
    for name, (result, parameters) in PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(parameters)
    return library


class CuStateVec:
    """A handle of the library, for states of one precision on one device."""

    def __init__(self, device: Device, precision: str, library: ctypes.CDLL | None = None) -> None:
        """Raises NotInstalled, CustatevecError."""
        self._library = library or load()
        self._device = device
        self._dtype = COMPLEX[precision]
        self._type, self._compute = _TYPES[precision]
        self._handle = ctypes.c_void_p()
        self._check("custatevecCreate", ctypes.byref(self._handle))

    def close(self) -> None:
        """Release the handle."""
        self._check("custatevecDestroy", self._handle)

    @property
    def version(self) -> str:
        """Version of the library, for example "1.15.0"."""
        number = self._library.custatevecGetVersion()
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def prepared(self, num_qubits: int, gates: Iterable[MatrixGate]) -> Callable[[Buffer], None]:
        """A function that applies the gates to a state of 2^n numbers on the device."""
        calls = [self._call(gate) for gate in gates]
        size = max([1, *(self._workspace_bytes(num_qubits, call) for call in calls)])
        workspace = self._device.empty(size, np.uint8)

        def apply(state: Buffer) -> None:
            for call in calls:
                self._apply(num_qubits, state, call, workspace, size)

        return apply

    def _call(self, gate: MatrixGate) -> _Call:
        matrix = self._device.upload(np.ascontiguousarray(gate.matrix, self._dtype).ravel())
        return _Call(matrix, _integers(gate.targets), _integers(gate.controls))

    def _workspace_bytes(self, num_qubits: int, call: _Call) -> int:
        result = ctypes.c_size_t()
        self._check(
            "custatevecApplyMatrixGetWorkspaceSize",
            *(self._handle, self._type, num_qubits, address(call.matrix), self._type, LAYOUT_ROW),
            *(0, len(call.targets), len(call.controls), self._compute, ctypes.byref(result)),
        )
        return result.value

    def _apply(
        self, num_qubits: int, state: Buffer, call: _Call, workspace: Buffer, size: int
    ) -> None:
        self._check(
            "custatevecApplyMatrix",
            *(self._handle, address(state), self._type, num_qubits),
            *(address(call.matrix), self._type, LAYOUT_ROW, 0),
            *(call.targets, len(call.targets), call.controls, None, len(call.controls)),
            *(self._compute, address(workspace), size),
        )

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != SUCCESS:
            text = self._library.custatevecGetErrorString(status).decode()
            raise CustatevecError(f"{name}: {text} ({status})")


def zero_state(device: Device, num_qubits: int, precision: str) -> Buffer:
    """|0...0> on the device."""
    state: NDArray[Any] = np.zeros(1 << num_qubits, COMPLEX[precision])
    state[0] = 1.0
    return device.upload(state)


def address(buffer: Buffer) -> int:
    """Return the address of a buffer in the memory of its device."""
    if isinstance(buffer, np.ndarray):
        return int(buffer.ctypes.data)
    return int(buffer.data.ptr)


def _integers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(values))(*values)
