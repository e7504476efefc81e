"""Packing through Qiskit's C interface: ten times as quick as the walk in Python, and not for all.

Invariant: what comes out is, bit for bit, what the walk (`pack`) gives, or None: then the circuit
holds something that only the walk can judge. The code (`native.ll`) is compiled in this process
when it begins to pay; without Qiskit's C interface of a known version it never is. The interpreter
lock is held while it reads a circuit, and no pointer into one is kept.
"""

from __future__ import annotations

import ctypes
import mmap
import sysconfig
from array import array
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from simenv.client.circuits.limits import MAX_OPERANDS, MAX_OPERATIONS
from simenv.model import MAX_CLBITS, MAX_QUBITS, PROGRAM_FORMAT, Program

WALKED_FIRST = 2_000  # operations: compiling takes as long as walking some twenty thousand
KNOWN_VERSIONS = (0x0206,)  # of the C interface: major and minor; the layout of a view may change

_FUNCTIONS = (
    "qk_circuit_borrow_from_python",
    "qk_circuit_num_clbits",
    "qk_circuit_num_classical_registers",
    "qk_circuit_get_classical_register",
    "qk_classical_register_num_bits",
    "qk_classical_register_circuit_bits",
    "qk_circuit_num_instructions",
    "qk_circuit_instruction_kind",
    "qk_circuit_view_instruction",
    "qk_param_stride",
    "qk_param_kind",
    "qk_param_as_real",
)
_ROW_BYTES = 24  # name: 16, arities: 6, nothing: 2
_ROWS = 256
# The columns of a desk, as native.ll has them: room, bytes of an element.
_COLUMNS = (
    (_ROWS, _ROW_BYTES),
    (MAX_OPERATIONS, 2),
    (MAX_OPERANDS, 2),
    (MAX_OPERATIONS, 2),
    (4 * MAX_OPERATIONS, 8),
)
_TABLES = 256  # tables of operations that are remembered
_KEPT_OPERATIONS = 2**16  # the desk of a longer circuit is given back to the system

Walk = Callable[[Any, float, int], int]


class Desk:
    """Room for the columns of one circuit; memory is taken where it is written, not before."""

    __slots__ = ("_area", "_words", "address", "starts")

    def __init__(self) -> None:
        sizes = [room * width for room, width in _COLUMNS]
        sizes += [2 * (MAX_CLBITS + 1), 4 * (MAX_CLBITS + 1)]
        self.starts = [mmap.PAGESIZE * k for k in _pages(sizes)]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private: a forked child has its own
        self._area = mmap.mmap(-1, self.starts[-1], flags=flags)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._area))
        words: list[int] = []
        for start, (room, _) in zip(self.starts, _COLUMNS, strict=False):
            words += (base + start, room, 0)
        self._words = array("q", [*words, base + self.starts[5], base + self.starts[6]])
        self.address = self._words.buffer_info()[0]

    def operations(self) -> int:
        """How many were written."""
        return self._words[5]

    def columns(self) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """What the code wrote: rows, ops, qubits, clbits, params."""
        area, words = self._area, self._words
        rows, ops, qubits, clbits, params = self.starts[:5]
        return (
            area[rows : rows + _ROW_BYTES * words[2]],
            area[ops : ops + 2 * words[5]],
            area[qubits : qubits + 2 * words[8]],
            area[clbits : clbits + 2 * words[11]],
            area[params : params + 8 * words[14]],
        )


class NativePacker:
    """The compiled walk. Any number of threads may use one: each takes a desk of its own."""

    __slots__ = ("_desks", "_engine", "_tables", "_walk")

    def __init__(self, engine: Any, walk: Walk) -> None:
        self._engine = engine  # owns the code
        self._walk = walk
        self._desks: list[Desk] = []
        self._tables: dict[bytes, tuple[tuple[str, ...], bytes]] = {}

    def program(self, data: Any) -> Program | None:
        """The Program of a `QuantumCircuit._data`; None if the walk in Python must judge it."""
        phase = data.global_phase
        num_qubits, num_clbits = data.num_qubits, data.num_clbits
        if type(phase) is not float or num_qubits > MAX_QUBITS or num_clbits > MAX_CLBITS:
            return None
        desks = self._desks
        try:
            desk = desks.pop()
        except IndexError:
            desk = Desk()
        columns = desk.columns() if self._walk(data, phase, desk.address) else None
        if desk.operations() <= _KEPT_OPERATIONS:
            desks.append(desk)
        if columns is None:
            return None
        rows, ops, qubits, clbits, params = columns
        names, arities = self._tables.get(rows) or self._table(rows)
        registers = _registers(data.cregs, num_clbits)
        return Program(
            PROGRAM_FORMAT, num_qubits, num_clbits, registers, names, arities, ops, qubits, clbits,
            params,
        )  # fmt: skip

    def _table(self, rows: bytes) -> tuple[tuple[str, ...], bytes]:
        starts = range(0, len(rows), _ROW_BYTES)
        names = tuple([rows[k : k + 16].rstrip(b"\0").decode() for k in starts])
        table = names, b"".join([rows[k + 16 : k + 22] for k in starts])
        if len(self._tables) >= _TABLES:
            self._tables.clear()
        self._tables[rows] = table
        return table


class Choice:
    """Between the walk and the code, for one process."""

    __slots__ = ("_left", "_lock", "packer", "why_not")

    def __init__(self) -> None:
        self._left = WALKED_FIRST
        self._lock = Lock()
        self.packer: NativePacker | None = None
        self.why_not = ""  # there will never be a packer

    def program(self, circuit: Any) -> Program | None:
        """The Program of a QuantumCircuit; None: walk it."""
        data = circuit._data
        packer = self.packer
        if packer is None:
            self._left -= len(data)
            if self._left >= 0 or not self.prepare():
                return None
            packer = self.packer
        return packer.program(data) if packer is not None else None

    def prepare(self) -> bool:
        """Compile now, if nobody else is at it; True if there is a packer."""
        if self.packer is None and not self.why_not and self._lock.acquire(blocking=False):
            try:
                self.packer = build()
            except (ImportError, AttributeError, OSError, RuntimeError) as error:
                self.why_not = str(error) or type(error).__name__
            finally:
                self._lock.release()
        return self.packer is not None


def build() -> NativePacker:
    """Compile the code: some 20 ms. ImportError, AttributeError, RuntimeError: not with these
    versions of Qiskit, Python and llvmlite."""
    from llvmlite import binding as llvm
    from qiskit import capi

    version = capi.qk_api_version()
    if version >> 16 not in KNOWN_VERSIONS:
        raise ImportError(f"Qiskit's C interface has the unknown version {version:#x}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ImportError("this Python has no interpreter lock")
    for name in _FUNCTIONS:
        llvm.add_symbol(name, ctypes.cast(getattr(capi, name), ctypes.c_void_p).value)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(Path(__file__).with_suffix(".ll").read_text())
    # Unoptimised it is as quick, since its time goes by inside of Qiskit, and there much sooner.
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.PYFUNCTYPE(  # as opposed to CFUNCTYPE it keeps the interpreter lock
        ctypes.c_int, ctypes.py_object, ctypes.c_double, ctypes.c_void_p
    )
    return NativePacker(engine, prototype(engine.get_function_address("pack")))


def _registers(registers: Any, num_clbits: int) -> tuple[tuple[str, int], ...]:
    sizes = [(register.name, register.size) for register in registers]
    loose = num_clbits
    for _, size in sizes:
        loose -= size
    if loose:
        sizes.append(("", loose))
    return tuple(sizes)


def _pages(sizes: list[int]) -> list[int]:
    """Where each piece begins, in pages; last, where all end."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // mmap.PAGESIZE))
    return starts


CHOICE = Choice()
