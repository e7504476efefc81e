"""cuStateVec, NVIDIA's library of gates on statevectors, by ctypes: one matrix in each call, for
which gates are fused to matrices on a few qubits.

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

from bench.peers.base import Gate, matrix
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


# --- matrices -------------------------------------------------------------------------------------

_CONTROLLED = {"cx": "x", "cz": "z", "cp": "p"}  # gates on the last of their qubits


class MatrixGate(msgspec.Struct, frozen=True, eq=False):
    """A matrix complex128[2^k, 2^k]; bit j of its index is the qubit `targets[j]`."""

    matrix: NDArray[np.complex128]
    targets: tuple[int, ...]
    controls: tuple[int, ...] = ()


def gate_by_gate(gates: Iterable[Gate]) -> list[MatrixGate]:
    results = []
    for name, qubits, angles in gates:
        if name in _CONTROLLED:
            on_last = matrix(_CONTROLLED[name], angles)
            results.append(MatrixGate(on_last, qubits[1:], qubits[:1]))
        else:
            results.append(MatrixGate(matrix(name, angles), qubits))
    return results


def fused(gates: Iterable[Gate], width: int) -> list[MatrixGate]:
    """Matrices on at most `width` qubits: each gate goes to the last block that acts on one of its
    qubits, if that has room, else it begins a block."""
    members: list[list[Gate]] = []
    qubits_of: list[tuple[int, ...]] = []
    last: dict[int, int] = {}  # block of a qubit
    for gate in gates:
        qubits = gate[1]
        block = max((last.get(qubit, -1) for qubit in qubits), default=-1)
        union = () if block < 0 else tuple(dict.fromkeys(qubits_of[block] + qubits))
        if block < 0 or len(union) > width:
            block, union = len(members), qubits
            members.append([])
            qubits_of.append(())
        members[block].append(gate)
        qubits_of[block] = union
        last |= dict.fromkeys(qubits, block)
    return [
        MatrixGate(_product(inside, qubits), qubits)
        for inside, qubits in zip(members, qubits_of, strict=True)
    ]


def _product(gates: list[Gate], qubits: tuple[int, ...]) -> NDArray[np.complex128]:
    """Gates in their order, as one matrix."""
    size = len(qubits)
    result = np.eye(1 << size, dtype=np.complex128).reshape((2,) * size + (1 << size,))
    for name, on, angles in gates:
        axes = [size - 1 - qubits.index(qubit) for qubit in reversed(on)]
        count = len(on)
        factor = matrix(name, angles).reshape((2,) * (2 * count))
        result = np.tensordot(factor, result, (range(count, 2 * count), axes))
        result = np.moveaxis(result, range(count), axes)
    return np.ascontiguousarray(result.reshape(1 << size, 1 << size))


# --- the library ----------------------------------------------------------------------------------


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
        self._check("custatevecDestroy", self._handle)

    @property
    def version(self) -> str:
        """Version of the library, for example "1.15.0"."""
        number = self._library.custatevecGetVersion()
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def prepared(self, num_qubits: int, gates: Iterable[MatrixGate]) -> Callable[[Buffer], None]:
        """A function that applies the gates to a state of 2^n numbers on the device."""
        calls, size = [], ctypes.c_size_t(1)
        for gate in gates:
            numbers = self._device.upload(np.ascontiguousarray(gate.matrix, self._dtype).ravel())
            needed = ctypes.c_size_t()
            matrix_of = address(numbers), self._type, LAYOUT_ROW, 0
            self._check(
                "custatevecApplyMatrixGetWorkspaceSize", self._handle, self._type, num_qubits,
                *matrix_of, len(gate.targets), len(gate.controls), self._compute,
                ctypes.byref(needed),
            )  # fmt: skip
            size.value = max(size.value, needed.value)
            targets, controls = _integers(gate.targets), _integers(gate.controls)
            on = targets, len(targets), controls, None, len(controls), self._compute
            calls.append((numbers, (*matrix_of, *on)))
        workspace = self._device.empty(size.value, np.uint8)

        def apply(state: Buffer) -> None:
            where = self._handle, address(state), self._type, num_qubits
            for _, call in calls:  # made before the clock runs
                words = *where, *call, address(workspace), size.value
                self._check("custatevecApplyMatrix", *words)

        return apply

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != SUCCESS:
            text = self._library.custatevecGetErrorString(status).decode()
            raise CustatevecError(f"{name}: {text} ({status})")


def zero_state(device: Device, num_qubits: int, precision: str) -> Buffer:
    state: NDArray[Any] = np.zeros(1 << num_qubits, COMPLEX[precision])
    state[0] = 1.0
    return device.upload(state)


def address(buffer: Buffer) -> int:
    if isinstance(buffer, np.ndarray):
        return int(buffer.ctypes.data)
    return int(buffer.data.ptr)


def _integers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(values))(*values)
