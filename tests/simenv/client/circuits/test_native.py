"""Compiled packing that gives other bytes than the walk, or takes what the walk must judge."""

import copy
import hashlib
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawing
import numpy as np
import pytest
from circuits import ladder
from hypothesis import HealthCheck, given, settings, strategies as st
from interpreter import python
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Clbit, Gate, Instruction, Parameter, Qubit, library
from qiskit.circuit.classical import expr, types

from simenv.client import result_data
from simenv.client.circuits import PackedCircuit, load, native
from simenv.client.circuits.encoder import pack
from simenv.client.circuits.text_checks import MAX_OPERANDS
from simenv.errors import ProtocolError, SimenvError
from simenv.model import Program

PACKER = native.build()  # fails with a Qiskit whose C interface is not known yet
EXAMPLES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def natively(circuit: QuantumCircuit) -> Program | None:
    loaded = PACKER.loaded(circuit._data)
    return None if loaded is None else loaded.program


def assert_same(circuit: QuantumCircuit) -> Program:
    found, expected = PACKER.loaded(circuit._data), pack(circuit).program
    assert found is not None, "left to the walk"
    assert (found.program, found.packed) == (expected, expected.packed())
    assert (found.num_qubits, found.measures) == (expected.num_qubits, "measure" in expected.names)
    return expected


def assert_left_to_the_walk(circuit: QuantumCircuit) -> None:
    assert natively(circuit) is None


def of(operation: Instruction) -> QuantumCircuit:
    circuit = QuantumCircuit(max(operation.num_qubits, 1), operation.num_clbits)
    circuit.append(operation, range(operation.num_qubits)[::-1], range(operation.num_clbits))
    return circuit


def various(number: int) -> list[QuantumCircuit]:
    """Circuits of which most are like the one before; every tenth is left to the walk."""
    circuits = []
    for k in range(number):
        circuit = QuantumCircuit(2 + k // 30 % 3, 1 + k // 70 % 2, global_phase=k % 2)
        circuit.ry(0.1 * k, k % 2)
        if k % 10 == 9:
            circuit.unitary(np.eye(2), [0])
        if k // 50 % 2:
            circuit.measure(0, 0)
        circuits.append(circuit)
    return circuits


def test_many_circuits_are_packed_as_one_by_one() -> None:
    for number in (0, 1, 600, 600):  # again: the buffers expect the shape of the last
        circuits = various(number)
        found = PACKER.loaded_many(circuits)
        assert found == [PACKER.loaded(circuit._data) for circuit in circuits]
        assert [each is None for each in found] == [k % 10 == 9 for k in range(number)]


def test_many_circuits_with_a_free_phase_or_long_ones_are_packed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circuits = various(5)
    circuits[2].global_phase = Parameter("p")
    found = PACKER.loaded_many(circuits)
    assert [each is None for each in found] == [False, False, True, False, False]
    monkeypatch.setattr(native, "_KEPT_OPERATIONS", 1)
    assert PACKER.loaded_many(circuits) == found


def test_many_circuits_are_packed_in_calls_of_few_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []

    def walk(data: list[Any], phases: int, first: int, count: int, scratch: int) -> list[bytes]:
        counts.append(count)
        return PACKER._walk_many(data, phases, first, count, scratch)

    packer = native.NativePacker(PACKER._engine, PACKER._walk, walk, PACKER.counts_dict)
    circuits = various(40)
    expected = PACKER.loaded_many(circuits)
    monkeypatch.setattr(native, "_KEPT_OPERATIONS", 4 * max(map(len, circuits)))
    assert (packer.loaded_many(circuits), max(counts)) == (expected, 4)


@pytest.mark.parametrize("name", sorted(drawing.STANDARD))
def test_standard_gates_are_packed_as_by_python_encoder(name: str) -> None:
    kind = type(drawing.STANDARD[name])
    count = len(drawing.STANDARD[name].params)
    for angles in ([0.1 + k for k in range(count)], [-0.0] * count, [2**60 + 1] * count):
        gate = kind(*angles)
        assert_same(of(gate))
        if gate.inverse().name in drawing.STANDARD:
            assert_same(of(gate.inverse()))
        changed = gate.to_mutable()
        assert_same(of(changed))
        changed.label = "shown"
        assert_same(of(changed))


@pytest.mark.parametrize(
    "gate", [library.C3XGate(), library.C3SXGate(), library.GlobalPhaseGate(0.5)], ids=str
)
def test_standard_gates_of_other_names_are_packed_as_by_python_encoder(gate: Gate) -> None:
    assert_same(of(gate))


def test_barriers_resets_and_measurements_are_packed_as_by_python_encoder() -> None:
    circuit = QuantumCircuit(5, 2)
    for width in (5, 0, 2, 5, 1):
        circuit.append(library.Barrier(width, label="shown" if width == 2 else None), range(width))
        circuit.reset(width % 5)
        circuit.measure(width % 5, width % 2)
    assert_same(circuit)


@EXAMPLES
@given(drawing.circuits() | drawing.circuits(plain=True) | drawing.parametric())
def test_any_circuit_is_packed_as_by_python_encoder_or_left_to_it(circuit: QuantumCircuit) -> None:
    found = natively(circuit)
    try:
        expected = pack(circuit).program
    except SimenvError:
        assert found is None
        return
    assert found is None or found.packed() == expected.packed()


@EXAMPLES
@given(drawing.layouts(), st.floats(0, 6), st.data())
def test_packed_as_by_python(circuit: QuantumCircuit, phase: float, data: st.DataObject) -> None:
    circuit.global_phase = phase
    names = sorted(name for name in drawing.STANDARD if drawing.STANDARD[name].num_qubits <= 3)
    for name in data.draw(st.lists(st.sampled_from(names), max_size=12)):
        gate = drawing.STANDARD[name]
        angles = [data.draw(drawing.ANGLES) for _ in gate.params]
        on = data.draw(st.permutations(circuit.qubits))[: gate.num_qubits]
        circuit.append(type(gate)(*angles), on)
        if circuit.clbits and data.draw(st.booleans()):
            circuit.measure(
                on[:1] or circuit.qubits[:1], [data.draw(st.sampled_from(circuit.clbits))]
            )
    assert_same(circuit)


def test_bits_are_numbered_as_by_python_encoder() -> None:
    own, bits = ClassicalRegister(3, "own"), [Clbit(), Clbit()]
    layouts: list[list[Any]] = [
        [[Qubit()], bits, ClassicalRegister(bits=bits[::-1], name="c")],
        [[Qubit()], list(own), ClassicalRegister(bits=list(own)[::-1], name="c")],
        [[Qubit()], list(own), ClassicalRegister(bits=own[1:], name="c")],
        [QuantumRegister(2, "b"), [Qubit()], QuantumRegister(1, "a"), own, bits],
        [[Qubit()], bits[:1], own, bits[1:], ClassicalRegister(1, "d")],
        [[Qubit()], ClassicalRegister(0, "none"), own],
        [[Qubit()], ClassicalRegister(0, "none")],
        [],
    ]  # fmt: skip
    for pieces in layouts:
        circuit = QuantumCircuit(*pieces)
        for clbit in circuit.clbits:
            circuit.measure(circuit.num_qubits - 1, clbit)
        assert_same(circuit)


def test_wide_and_long_circuits_are_packed_as_by_python_encoder() -> None:
    wide = QuantumCircuit(65_535, 65_535)
    wide.cx(65_534, 0)
    wide.barrier()
    wide.measure([0, 65_534], [65_534, 0])
    assert_same(wide)
    assert_same(ladder(1000, 4))
    long = QuantumCircuit(4, 4)
    long.append(library.RXGate(0.5), [0])
    long.compose(long, inplace=True)
    for _ in range(16):
        long.compose(long, inplace=True)
    assert len(long.data) == 2**17
    assert_same(long)
    assert_same(ladder(4))  # after a circuit whose desk was given back


def test_changed_circuit_is_packed_with_its_changes() -> None:
    circuit = ladder(4)
    before = assert_same(circuit)
    twin = copy.deepcopy(circuit)
    circuit.append(library.HGate(), [2])
    assert (len(assert_same(circuit).ops), assert_same(twin)) == (len(before.ops) + 2, before)
    circuit.data.pop()
    assert assert_same(circuit) == before
    circuit.data[0] = circuit.data[1]
    assert assert_same(circuit) != before
    circuit.clear()
    assert assert_same(circuit).ops == b""


def test_bound_inverted_and_transpiled_circuits_are_packed_as_by_python_encoder() -> None:
    theta, weights = Parameter("theta"), Parameter("weights")
    free = QuantumCircuit(3, 3, global_phase=0.5)
    free.u(theta, 2 * theta + weights, 0.5, 0)
    free.cp(theta * weights, 2, 1)
    bound = free.assign_parameters({theta: 0.25, weights: 3})
    for circuit in (
        bound,
        bound.inverse(),
        bound.copy(),
        bound.reverse_ops(),
        bound.compose(ladder(3)),
        bound.repeat(2).decompose(),
        transpile(ladder(4), basis_gates=["rz", "sx", "cx"], optimization_level=2),
        transpile(ladder(4), coupling_map=[[0, 1], [1, 2], [2, 3]], seed_transpiler=1),
    ):
        assert_same(circuit)


def dynamic(add: Callable[[QuantumCircuit], Any]) -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    add(circuit)
    return circuit


def branch(circuit: QuantumCircuit) -> None:
    with circuit.if_test((0, True)):
        circuit.x(1)


def repeat(circuit: QuantumCircuit) -> None:
    with circuit.for_loop(range(2)):
        circuit.x(1)


def impostor(name: str) -> Instruction:
    body = QuantumCircuit(1, 1)
    body.x(0)
    made = Instruction(name, 1, 1, [])
    made.definition = body
    return made


class Finder(library.Measure):  # type: ignore[misc]
    """A measurement of someone's own."""


@pytest.mark.parametrize(
    "circuit",
    [
        dynamic(branch),
        dynamic(repeat),
        dynamic(lambda circuit: circuit.delay(5, 0)),
        dynamic(lambda circuit: circuit.unitary(np.eye(2), 0)),
        dynamic(lambda circuit: circuit.store(circuit.clbits[1], expr.lift(True))),
        dynamic(lambda circuit: circuit.add_var("v", expr.lift(1, types.Uint(4)))),
        dynamic(lambda circuit: circuit.append(impostor("measure"), [0], [0])),
        dynamic(lambda circuit: circuit.append(impostor("barrier"), [0], [0])),
        dynamic(lambda circuit: circuit.append(impostor("h"), [0], [0])),
        dynamic(lambda circuit: circuit.append(Finder(), [0], [0])),
        of(library.CXGate(ctrl_state=0)),
        of(library.HGate().control(2, annotated=True)),
        of(library.MCXGate(5)),
        of(library.MCPhaseGate(0.5, 3)),
        of(library.PauliGate("XY")),
        of(library.QFTGate(3)),
        of(library.UnitaryGate(np.eye(4))),
        of(library.RXGate(Parameter("a"))),
        of(library.RXGate(math.nan)),
        of(library.RXGate(-math.inf)),
        QuantumCircuit(1, global_phase=math.nan),
        QuantumCircuit(1, global_phase=Parameter("a")),
        QuantumCircuit(65_536),
        QuantumCircuit(1, 65_536),
    ],
)
def test_unsupported_circuits_are_left_to_python_encoder(circuit: QuantumCircuit) -> None:
    assert_left_to_the_walk(circuit)
    assert_same(ladder(2))  # nothing of it is left behind


def test_circuit_that_other_code_reads_is_left_to_python_encoder() -> None:
    """As one that another thread copies or transpiles: Qiskit would end the process."""
    circuit, found = ladder(2), []

    def called(_: Instruction) -> None:
        found.append((PACKER.loaded(circuit._data), PACKER.loaded_many([circuit, ladder(2)])))
        assert pack(circuit).program == PACKER.loaded(ladder(2)._data).program

    circuit._data.foreach_op(called)
    assert len(found) == len(circuit.data)
    for alone, (read, other) in found:
        assert alone is None
        assert read is None
        assert other is not None
    assert_same(circuit)


def test_registers_that_share_bits_are_left_to_python_encoder() -> None:
    first = ClassicalRegister(2, "first")
    circuit = QuantumCircuit([Qubit()], first, ClassicalRegister(bits=[first[1]], name="second"))
    assert_left_to_the_walk(circuit)
    circuit = QuantumCircuit(
        [Qubit()], first, [Clbit()], ClassicalRegister(bits=[first[1]], name="second")
    )
    assert_left_to_the_walk(circuit)


def test_unpickled_registers_without_their_bits_are_left_to_python_encoder() -> None:
    circuit = QuantumCircuit(1, 2)
    state = circuit._data.__reduce__()[2]
    for size in (2, 10_000_000):  # the latter would fill more than the buffer
        circuit._data.__setstate__((state[0], [ClassicalRegister(size, "far")], *state[2:]))
        assert_left_to_the_walk(circuit)
        assert PACKER.loaded_many([circuit]) == [None]


@pytest.mark.parametrize(
    "registers",
    [
        [("c", 2)], [("d", 2)], [("c", 1), ("d", 1)], [("d", 1), ("c", 1)], [("c", 0), ("d", 2)],
        [("c", 3)], [("a\u00e4\u6f22", 2)], [("c" * 5_000, 2)], [],
    ],
    ids=lambda found: "".join(name[:3] + str(size) for name, size in found),
)  # fmt: skip
@pytest.mark.parametrize("loose", [0, 2])
def test_each_keeps_its_own_registers(registers: list[tuple[str, int]], loose: int) -> None:
    circuit = QuantumCircuit([Qubit(), Qubit()], [Clbit() for _ in range(loose)])
    for name, size in registers:
        circuit.add_register(ClassicalRegister(size, name))
    for clbit in range(circuit.num_clbits):
        circuit.measure(clbit % 2, clbit)
    assert_same(circuit)


def test_register_names_too_odd_or_long_are_left_to_python_encoder() -> None:
    for name in ("a\0b", "a\\0b"):
        circuit = QuantumCircuit([Qubit()], ClassicalRegister(1, name))
        assert_left_to_the_walk(circuit)
        assert pack(circuit).program.registers == ((name, 1),)
    for count, taken in ((20, True), (200, False)):
        circuit = QuantumCircuit([Qubit()])
        for number in range(count):
            circuit.add_register(ClassicalRegister(1, f"{number:0500d}"))
        if taken:
            assert_same(circuit)
        else:
            assert_left_to_the_walk(circuit)


@pytest.mark.parametrize("count", [31, 32, 127, 128, 8191, 8192, 16_384])
def test_length_prefixes_are_encoded_as_by_python_encoder(count: int) -> None:
    circuit = QuantumCircuit(1)  # columns of 255, 256, 65,535 and 65,536 bytes, and those beside
    for k in range(count):
        circuit.rx(0.1 + k, 0)
    assert_same(circuit)
    circuit.x(0)
    assert_same(circuit)


def test_circuits_with_too_much_are_left_to_python_encoder() -> None:
    circuit = QuantumCircuit(300)
    for width in range(300):
        circuit.barrier(range(width))
        if len(circuit.data) == 256:
            assert_same(circuit)
    assert_left_to_the_walk(circuit)
    circuit = QuantumCircuit(65_535)
    circuit.barrier()
    data = circuit._data
    while len(data) < MAX_OPERANDS // 65_535:
        data.append(data[0])
    assert len(natively(circuit).qubits) == 2 * 65_535 * 128
    data.append(data[0])
    assert_left_to_the_walk(circuit)


def test_generated_llvm_ir_has_hash_of_c_source() -> None:
    source = Path(native.__file__).with_suffix(".c").read_bytes()
    head = Path(native.__file__).with_suffix(".ll").read_text().splitlines()[1]
    assert head.endswith(f" {hashlib.sha256(source).hexdigest()}"), "run scripts/native_ll.sh"


@pytest.mark.parametrize(("sizes", "width"), [((7,), 1), ((3, 5), 1), ((12,), 2), ((13,), 2)])
def test_compiled_dicts_of_many_counts_equal_those_made_in_python(
    sizes: tuple[int, ...], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    registers = tuple((f"c{k}", size) for k, size in enumerate(sizes))
    outcomes = np.arange(5, 1 << sum(sizes), 1 + (width == 2), f"<u{width}")
    numbers = 7_000 * outcomes.astype(np.uint32)
    made = []
    table = result_data._strings(sizes).table(1 << sum(sizes))
    assert len(table) == (1 << sum(sizes) if sum(sizes) < 13 else 0)
    for packer in (PACKER, None):
        monkeypatch.setattr(native.CHOICE, "packer", packer)
        made.append(result_data.counts(outcomes.tobytes(), width, numbers.tobytes(), registers))
    keys = list(result_data.keys(outcomes.tobytes(), width, registers))
    assert 4 * len(keys) >= result_data.MANY_BYTES
    for counts in made:
        assert list(counts.items()) == list(zip(keys, numbers.tolist(), strict=True))


def test_compiled_dict_refuses_outcome_that_is_not_in_its_table() -> None:
    with pytest.raises(IndexError):
        PACKER.counts_dict(["0", "1"], bytes((0, 1, 2)), 1, bytes(12), 3)


@pytest.mark.parametrize("packer", [PACKER, None])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (255, 1), (257, 1), (256, 2), (256, 0)])
def test_compiled_dict_is_not_made_of_more_counts_than_outcomes(
    rows: int, width: int, packer: native.NativePacker | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.CHOICE, "packer", packer)
    with pytest.raises(ProtocolError, match=f"1024 bytes of counts for {rows} bytes of outcomes"):
        result_data.counts(bytes(rows), width, bytes(4 * 256), (("c", 8),))


@pytest.mark.parametrize("packer", [PACKER, None])
def test_compiled_dict_is_not_made_of_a_part_of_a_count(
    packer: native.NativePacker | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native.CHOICE, "packer", packer)
    with pytest.raises(ProtocolError, match="258 bytes of counts for 129 bytes of outcomes"):
        result_data.counts(bytes(129), 2, bytes(258), (("c", 8),))


TEXT = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
rx(0.5) q[1];
cx q[1],q[0];
measure q -> c;
"""


def packed(loaded: PackedCircuit | None) -> bytes:
    assert loaded is not None, "left to the walk"
    return loaded.packed


def branched() -> QuantumCircuit:
    circuit = ladder(2)
    with circuit.if_test((0, True)):
        circuit.x(1)
    return circuit


def free() -> QuantumCircuit:
    circuit = ladder(2)
    circuit.rx(Parameter("a"), 0)
    return circuit


def test_concurrent_threads_pack_correct_bytes() -> None:
    circuits = [ladder(2 + k % 7, 1 + k % 5) for k in range(40)]
    expected = [pack(circuit).program.packed() for circuit in circuits]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(30):
            wrong.extend(
                k for k, c in enumerate(circuits) if packed(PACKER.loaded(c._data)) != expected[k]
            )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_native_packer_holds_interpreter_lock() -> None:
    data = ladder(10, 2000)._data
    scratch = native.Scratch()
    turns, stop = [0], threading.Event()

    def spin() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # lets go of the interpreter lock

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody gets the lock unless it is let go
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        before = turns[0]
        for _ in range(50):
            assert PACKER._walk(data, 0.0, scratch.address)
        after = turns[0]
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after == before


def test_cache_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_SHAPES", 8)
    packer = native.build()
    for width in range(1, 40):
        circuit = QuantumCircuit(width)
        circuit.barrier()
        assert packed(packer.loaded(circuit._data)) == pack(circuit).program.packed()
    assert len(packer._shapes) <= 8


def test_packer_is_compiled_after_enough_operations_were_packed_in_python() -> None:
    choice = native.EncoderSelector()
    circuit = ladder(5, 10)  # 105 operations
    walked = 0
    while walked <= native.WALKED_FIRST:
        choice.wait()  # for nothing: no thread has begun
        assert choice.loaded(circuit) is None
        walked += len(circuit.data)
    choice.wait()
    assert packed(choice.loaded(circuit)) == pack(circuit).program.packed()


def test_large_circuit_begins_compilation_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release, began = threading.Event(), []

    def build() -> native.NativePacker:
        began.append(threading.current_thread())
        assert release.wait(60.0)
        return PACKER

    monkeypatch.setattr(native, "build", build)
    choice = native.EncoderSelector()
    circuit = ladder(10, native.LARGE_CIRCUIT // 20)
    for _ in range(3):
        assert choice.loaded(circuit) is None  # while it compiles, which is once
    release.set()
    choice.wait()
    assert len(began) == 1
    assert began[0] is not threading.current_thread()
    assert packed(choice.loaded(circuit)) == pack(circuit).program.packed()
    small = native.EncoderSelector()
    assert small.loaded(ladder(3)) is None
    small.wait()
    assert small.packer is None


def test_fork_waits_for_the_thread_that_compiles() -> None:
    done = python("-c", FORK, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


FORK = """
import os, threading
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native

build = native.build
def slow():
    began.set()
    forking.wait(60)
    return build()
native.build = slow
began, forking = threading.Event(), threading.Event()
circuit = QuantumCircuit(2)
for _ in range(native.LARGE_CIRCUIT):
    circuit.h(0)
load(circuit)
assert began.wait(60)
os.register_at_fork(before=forking.set)  # handlers run in reverse order of registration
child = os.fork()
if not child:
    os._exit(0 if native.CHOICE.packer is not None else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_prepare_returns_while_another_caller_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = native.EncoderSelector()
    entries: list[bool] = []

    def build() -> native.NativePacker:
        entries.append(choice.prepare())
        return PACKER

    monkeypatch.setattr(native, "build", build)
    assert choice.prepare()
    assert entries == [False]


@pytest.mark.parametrize("fault", ["no interface", "no function", "other version", "no compiler"])
def test_falls_back_to_python_encoder(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit import capi

    if fault == "no interface":
        monkeypatch.delattr("qiskit.capi")
        monkeypatch.setitem(sys.modules, "qiskit.capi", None)
    elif fault == "no function":
        monkeypatch.delattr(capi, "qk_circuit_view_instruction")
    elif fault == "other version":
        monkeypatch.setattr(capi, "qk_api_version", lambda: 0x020700F0)
    else:
        monkeypatch.setitem(sys.modules, "llvmlite", None)
        monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    choice = native.EncoderSelector()
    assert not choice.prepare()
    assert choice.build_error
    assert choice.loaded(ladder(10, 200)) is None
    monkeypatch.setattr(native, "CHOICE", choice)
    assert load(ladder(3)).program == pack(ladder(3)).program


def test_load_gives_bytes_of_before_after_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    circuits: list[Any] = [ladder(3), branched(), free(), TEXT]
    monkeypatch.setattr(native, "CHOICE", native.EncoderSelector())
    before = [load(circuit) for circuit in circuits]
    assert native.CHOICE.packer is None
    assert native.CHOICE.prepare()
    after = [load(circuit) for circuit in circuits]
    assert [loaded.packed for loaded in after] == [loaded.packed for loaded in before]
    assert [loaded.program for loaded in after] == [loaded.program for loaded in before]
    assert [loaded.parameters for loaded in after] == [(), (), ("a",), ()]
    assert after[0].bind().tolist() == [[]]


PROGRAM = """
import atexit, os, sys, threading
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native

circuit = QuantumCircuit(2, 2)
circuit.h(0)
circuit.measure(0, 1)
expected = load(circuit).packed
assert native.CHOICE.prepare()
assert load(circuit).packed == expected
(scratch,) = native.CHOICE.packer._scratches
before = scratch.written()
child = os.fork()
if not child:
    other = QuantumCircuit(2)
    other.cz(1, 0)
    os._exit(load(other).packed == expected)
assert os.waitpid(child, 0)[1] == 0
assert scratch.written() == before

def forever():
    while True:
        load(circuit)

threading.Thread(target=forever, daemon=True).start()
atexit.register(lambda: print(load(circuit).packed == expected))
"""


def test_process_with_compiled_packer_forks_and_exits_cleanly() -> None:
    run = python("-W", "ignore", "-c", PROGRAM, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True\n", "")
