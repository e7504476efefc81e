"""Encoding of circuits through Qiskit's C interface, ten times as fast as the encoder in Python;
and dicts of many counts, twice as fast.

Invariant: the program is, bit for bit, that of the encoder in Python (`circuits.encoder.pack`), or
None if only that encoder can handle the circuit. The code (`native.ll`, generated from `native.c`)
is compiled in this process, by a thread that starts with the first circuit of LARGE_CIRCUIT
operations or after WALKED_FIRST operations. Until it is ready, and with an unknown version of
Qiskit's C interface, circuits are encoded in Python. The interpreter lock is held while a circuit
is read, and no pointer into it is kept.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import struct
import sysconfig
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Timer, current_thread
from typing import Any, NamedTuple

import msgspec

from simenv.client.circuits.parameters import PackedCircuit
from simenv.client.circuits.text_checks import MAX_OPERANDS, MAX_OPERATIONS
from simenv.model import MAX_CLBITS, PROGRAM_FORMAT, Program

WALKED_FIRST = 2_000  # operations: compilation takes as long as encoding 20,000 in Python
LARGE_CIRCUIT = 300  # operations: after one circuit of this size more are likely
_DELAY_S = 0.02  # lets the first circuit be sent: the import of the compiler blocks Python
KNOWN_VERSIONS = (0x0206,)  # major and minor version of the C interface: layouts may change

_FUNCTIONS = (
    *("qk_circuit_borrow_from_python", "qk_circuit_num_qubits", "qk_circuit_num_clbits"),
    *("qk_circuit_num_classical_registers", "qk_circuit_get_classical_register"),
    *("qk_classical_register_num_bits", "qk_classical_register_name", "qk_str_free"),
    *("qk_classical_register_circuit_bits", "qk_circuit_num_instructions"),
    *("qk_circuit_instruction_kind", "qk_circuit_view_instruction", "qk_param_stride"),
    *("qk_param_kind", "qk_param_as_real"),
)
_PYTHON_FUNCTIONS = (
    *("PyBytes_AsString", "PyBytes_FromStringAndSize", "PyDict_SetItem", "PyErr_Clear"),
    *("PyList_Append", "PyList_GetItem", "PyList_New", "PyLong_FromUnsignedLong"),
    *("PyObject_VectorcallMethod", "PyUnicode_InternFromString", "Py_DecRef"),
)
_ROW_BYTES = 24  # name: 16, arities: 6, padding: 2
_ROWS = 256
_SHAPE_BYTES = 2**16  # longer names of registers are left to the encoder in Python
# Columns of a `Scratch` in native.c: capacity, bytes of an element.
_FLAT = ((MAX_OPERATIONS, 2), (MAX_OPERANDS, 2), (MAX_OPERATIONS, 2), (4 * MAX_OPERATIONS, 8))
_TAIL_BYTES = sum(capacity * width for capacity, width in _FLAT) + 32
_COLUMNS = ((_ROWS, _ROW_BYTES), *_FLAT, (_SHAPE_BYTES, 1), (_TAIL_BYTES, 1))
_TAIL_FIELDS = ("ops", "qubits", "clbits", "params")  # fields of a Program in _FLAT
_SHAPES = 256  # cached shapes
_KEPT_OPERATIONS = 2**16  # the buffers of a longer circuit are returned to the system
_AT_ONCE = 256  # circuits of one call of the code, which no other thread of Python interrupts; they
# have at most _KEPT_OPERATIONS in all

Walk = Callable[[Any, float, int], int]
WalkMany = Callable[[list[Any], int, int, int, int], list[bytes]]
CountsDict = Callable[[list[str], bytes | memoryview, int, bytes | memoryview, int], dict[str, int]]


class Scratch:
    """Buffers for the columns of one circuit. The system allocates pages when they are written."""

    __slots__ = ("_area", "_fields", "_key", "_starts", "address", "shape")

    def __init__(self) -> None:
        sizes = [capacity * width for capacity, width in _COLUMNS]
        sizes += [2 * (MAX_CLBITS + 1), 4 * (MAX_CLBITS + 1)]
        starts = [mmap.PAGESIZE * k for k in _pages(sizes)]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private: a forked child has its own
        self._area = mmap.mmap(-1, starts[-1], flags=flags)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._area))
        fields: list[int] = []
        for start, (capacity, _) in zip(starts, _COLUMNS, strict=False):
            fields += (base + start, capacity, 0)
        self._fields = array("q", [*fields, *(base + start for start in starts[7:9]), *[0] * 6])
        self._key = b""
        self.shape = ProgramShape(b"", b"", 0, False)  # of the programs of `encode_circuits`
        self._starts = starts[5], starts[6]
        self.address = self._fields.buffer_info()[0]

    def operations(self) -> int:
        """Return the number of operations that were written."""
        return self._fields[5]

    def written(self) -> tuple[bytes, bytes]:
        """Return the columns that the code wrote: shape and tail."""
        area, fields = self._area, self._fields
        shape, tail = self._starts
        return area[shape : shape + fields[17]], area[tail : tail + fields[20]]

    def expect(self, key: bytes, shape: ProgramShape) -> None:
        """Let `encode_circuits` make programs of this shape."""
        self._key, self.shape = key, shape  # own the data to which the fields point
        data = key, shape.head, shape.foot
        places = [ctypes.cast(ctypes.c_char_p(each), ctypes.c_void_p).value or 0 for each in data]
        self._fields[-6:] = array("q", [*places, *map(len, data)])


class ProgramShape(NamedTuple):
    """Data that circuits share which differ only in their flat arrays: the bytes of a Program's
    wire form before (`head`) and after (`foot`) these arrays."""

    head: bytes
    foot: bytes
    num_qubits: int
    measures: bool


class NativePacker:
    """The compiled encoder. Thread-safe: each thread uses buffers of its own."""

    __slots__ = ("_engine", "_scratches", "_shapes", "_walk", "_walk_many", "counts_dict")

    def __init__(
        self, engine: Any, walk: Walk, walk_many: WalkMany, counts_dict: CountsDict
    ) -> None:
        self._engine = engine  # owns the code
        self._walk = walk
        self._walk_many = walk_many
        self.counts_dict = counts_dict  # see native.c; raises IndexError
        self._scratches: list[Scratch] = []
        self._shapes: dict[bytes, ProgramShape] = {}

    def loaded(self, data: Any) -> PackedCircuit | None:
        """Return the program of a `QuantumCircuit._data`; None: it needs the encoder in Python."""
        phase = data.global_phase
        if type(phase) is not float:
            return None
        scratch = self._scratch()
        result = scratch.written() if self._walk(data, phase, scratch.address) else None
        self._keep(scratch)
        if result is None:
            return None
        key, tail = result
        head, suffix, num_qubits, measures = self._shape(key)
        return PackedCircuit(b"".join((head, tail, suffix)), num_qubits, measures)

    def loaded_many(self, circuits: Sequence[Any]) -> list[PackedCircuit | None]:
        """Return `loaded` of each QuantumCircuit."""
        results: list[PackedCircuit | None] = []
        data = [circuit._data for circuit in circuits]
        phases = [each.global_phase for each in data]
        is_plain = {float}.issuperset(map(type, phases))
        longest = max(map(len, data), default=0)
        if not is_plain or longest > _KEPT_OPERATIONS:
            return [self.loaded(each) for each in data]
        at_once = min(_AT_ONCE, _KEPT_OPERATIONS // max(longest, 1))
        floats = array("d", phases)
        address = floats.buffer_info()[0]
        scratch = self._scratch()
        while len(results) < len(data):
            head, foot, num_qubits, measures = scratch.shape
            count = min(at_once, len(data) - len(results))
            programs = self._walk_many(data, address, len(results), count, scratch.address)
            results += [
                PackedCircuit(packed, num_qubits, measures) if packed else None
                for packed in programs
            ]
            if len(programs) < count:  # the next one has another shape
                key, tail = scratch.written()
                head, foot, num_qubits, measures = shape = self._shape(key)
                scratch.expect(key, shape)
                results.append(PackedCircuit(head + tail + foot, num_qubits, measures))
        self._keep(scratch)
        return results

    def _scratch(self) -> Scratch:
        """Return buffers that no other thread uses, for `_keep`."""
        try:
            return self._scratches.pop()
        except IndexError:
            return Scratch()

    def _keep(self, scratch: Scratch) -> None:
        if scratch.operations() <= _KEPT_OPERATIONS:
            self._scratches.append(scratch)

    def _shape(self, key: bytes) -> ProgramShape:
        shape = self._shapes.get(key)
        if shape is not None:
            return shape
        shape = shape_of(key)
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        self._shapes[key] = shape
        return shape


def shape_of(key: bytes) -> ProgramShape:
    """Decode the column `shape`."""
    num_qubits, num_clbits, count = struct.unpack_from("<3q", key)
    at = 24
    registers: list[tuple[str, int]] = []
    for _ in range(count):
        end = key.index(0, at + 8)
        registers.append((key[at + 8 : end].decode(), *struct.unpack_from("<q", key, at)))
        at = end + 1
    unregistered = num_clbits - sum(size for _, size in registers)
    if unregistered:
        registers.append(("", unregistered))
    rows = [key[k : k + _ROW_BYTES] for k in range(at, len(key), _ROW_BYTES)]
    names = tuple([row[:16].rstrip(b"\0").decode() for row in rows])
    arities = b"".join([row[16:22] for row in rows])
    blank = Program(
        PROGRAM_FORMAT, num_qubits, num_clbits, tuple(registers), names, arities, b"", b"", b"", b""
    )
    fields = Program.__struct_fields__
    first = fields.index(_TAIL_FIELDS[0])
    last = first + len(_TAIL_FIELDS)
    encode = msgspec.msgpack.encode
    suffix = b"".join([encode(getattr(blank, field)) for field in fields[last:]])
    tail = encode(b"") * len(_TAIL_FIELDS)
    return ProgramShape(
        blank.packed().removesuffix(tail + suffix), suffix, num_qubits, blank.measures
    )


class EncoderSelector:
    """Choice between the encoder in Python and the compiled one, for one process."""

    __slots__ = ("_building", "_left", "_starting", "_thread", "build_error", "packer")

    def __init__(self) -> None:
        self._left = WALKED_FIRST
        self._starting, self._building = Lock(), Lock()
        self._thread: Timer | None = None  # the compilation
        self.packer: NativePacker | None = None
        self.build_error = ""  # reason why there will never be a packer

    def loaded(self, circuit: Any) -> PackedCircuit | None:
        """Return the program of a QuantumCircuit; None: use the encoder in Python."""
        data = circuit._data
        packer = self.packer
        if packer is not None:
            return packer.loaded(data)
        self._left -= len(data)
        if self._left < 0 or len(data) >= LARGE_CIRCUIT:
            self._begin()
        return None

    def loaded_many(self, circuits: Sequence[Any]) -> list[PackedCircuit | None]:
        """Return the programs of QuantumCircuits; None where `loaded` is to be asked."""
        packer = self.packer
        return [None] * len(circuits) if packer is None else packer.loaded_many(circuits)

    def _begin(self) -> None:
        """Start the compilation in a thread, after a delay."""
        with self._starting:
            if self._thread is None and not self.build_error:
                timer = Timer(_DELAY_S, self.prepare)
                timer.daemon = True
                timer.start()
                self._thread = timer

    def wait(self) -> None:
        """Wait for the compilation, if one is running."""
        thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join()

    def close(self) -> None:
        """Start no compilation any more, and wait for a running one: it must not outlive Python."""
        if self._thread is not None:
            self._thread.cancel()
            self.wait()

    def prepare(self) -> bool:
        """Compile now, unless a compilation is running; return whether there is a packer."""
        if self.packer is None and not self.build_error and self._building.acquire(blocking=False):
            try:
                self.packer = build()
            except (ImportError, AttributeError, OSError, RuntimeError) as error:
                self.build_error = str(error) or type(error).__name__
            finally:
                self._building.release()
        return self.packer is not None


def build() -> NativePacker:
    """Compile the code, in 20 ms. Raises ImportError, AttributeError or RuntimeError if the
    versions of Qiskit, Python and llvmlite do not permit it."""
    from llvmlite import binding as llvm
    from qiskit import capi

    version = capi.qk_api_version()
    if version >> 16 not in KNOWN_VERSIONS:
        raise ImportError(f"Qiskit's C interface has the unknown version {version:#x}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ImportError("this Python has no interpreter lock")
    for name in _FUNCTIONS:
        llvm.add_symbol(name, ctypes.cast(getattr(capi, name), ctypes.c_void_p).value)
    for name in _PYTHON_FUNCTIONS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    new_dict = getattr(ctypes.pythonapi, "_PyDict_NewPresized", ctypes.pythonapi.PyDict_New)
    llvm.add_symbol("_PyDict_NewPresized", ctypes.cast(new_dict, ctypes.c_void_p).value)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(Path(__file__).with_suffix(".ll").read_text())
    # Without optimization: it compiles much faster and runs as fast, since Qiskit takes the time.
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.PYFUNCTYPE(  # unlike CFUNCTYPE it keeps the interpreter lock
        ctypes.c_int, ctypes.py_object, ctypes.c_double, ctypes.c_void_p
    )
    of_counts = ctypes.PYFUNCTYPE(
        *(ctypes.py_object, ctypes.py_object, ctypes.c_char_p, ctypes.c_int64),
        *(ctypes.c_char_p, ctypes.c_int64),
    )
    of_many = ctypes.PYFUNCTYPE(
        *(ctypes.py_object, ctypes.py_object, ctypes.c_void_p, ctypes.c_int64),
        *(ctypes.c_int64, ctypes.c_void_p),
    )
    return NativePacker(
        engine,
        prototype(engine.get_function_address("encode_circuit")),
        of_many(engine.get_function_address("encode_circuits")),
        of_counts(engine.get_function_address("counts_dict")),
    )


def _pages(sizes: list[int]) -> list[int]:
    """Return the first page of each piece, and the page after the last one."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // mmap.PAGESIZE))
    return starts


CHOICE = EncoderSelector()

# A child forked while the thread holds a lock of the compiler could never compile.
os.register_at_fork(before=lambda: CHOICE.wait())
atexit.register(lambda: CHOICE.close())
