"""A QuantumCircuit that cannot be carried and is not refused by name."""

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Instruction, Parameter
from qiskit.circuit.library import UnitaryGate
from qiskit.quantum_info import Kraus, Pauli

from simenv.client.circuits import load, native, to_qiskit
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import Program, decode_program

DAMPING = Kraus([[[1, 0], [0, 0.6]], [[0, 0.8], [0, 0]]])
NAN, INF = float("nan"), float("inf")


def test_boxes_and_opaque_gates_are_refused() -> None:
    circuit = QuantumCircuit(1)
    body = QuantumCircuit(1)
    body.x(0)
    circuit.box(body, [0], [])
    assert fails(ProgramError, "control flow 'box' is not carried", load, circuit).hint
    for name in ("break_loop", "if", "end", "case"):
        circuit = QuantumCircuit(1)
        circuit.append(Gate(name, 1, []), [0])
        fails(ProgramError, f"'{name}' is opaque", load, circuit)


def test_too_wide_matrix_and_too_many_matrix_bytes_are_refused() -> None:
    circuit = QuantumCircuit(11)
    circuit.append(UnitaryGate(np.eye(2**11)), range(11))
    fails(ProgramError, "a unitary matrix on 11 qubits; at most 10", load, circuit)
    circuit = QuantumCircuit(10)
    for phase in (1, -1, 1j):
        circuit.append(UnitaryGate(phase * np.eye(2**10)), range(10))
    fails(LimitExceededError, "more than 33554432 bytes", load, circuit)


@pytest.mark.parametrize("angle", [NAN, INF, -INF, 10**400])
def test_angle_that_is_not_finite_is_refused(angle: float) -> None:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.rz(angle, 1)
    fails(ProgramError, r"instruction 1 \(rz\): the angle is", load, circuit)


def test_angles_and_delays_of_no_finite_value_are_refused() -> None:
    circuit = QuantumCircuit(1)
    circuit.p(NAN, 0)
    body = circuit.to_gate()
    body.definition.global_phase = 0.5
    outer = QuantumCircuit(1)
    outer.append(body, [0])
    fails(ProgramError, "the angle is nan", load, outer)
    circuit = QuantumCircuit(1)
    circuit.delay(NAN, 0, "ns")
    fails(ProgramError, "the duration is nan", load, circuit)
    circuit = QuantumCircuit(1)
    circuit.delay(circuit.add_stretch("s"), 0)
    fails(ProgramError, "'delay' with a duration", load, circuit)


@pytest.mark.parametrize(
    "opaque", [Gate("magic", 1, []), Instruction("magic", 1, 0, []), DAMPING.to_instruction()]
)
def test_opaque_operation_is_refused(opaque: Instruction) -> None:
    circuit = QuantumCircuit(1)
    circuit.append(opaque, [0])
    fails(ProgramError, f"'{opaque.name}' is opaque", load, circuit)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("save_state", 'outputs=("statevector",)'),
        ("save_statevector", 'outputs=("statevector",)'),
        ("save_statevector_dict", 'outputs=("statevector",)'),
        ("save_probabilities", 'outputs=("probabilities",)'),
        ("save_probabilities_dict", 'outputs=("probabilities",)'),
        ("save_expval", "observables="),
        ("save_expval_var", "observables="),
        ("save_amplitudes", "amplitudes="),
        ("save_amplitudes_sq", "amplitudes="),
        *((name, "no option replaces it") for name in (
            "save_density_matrix", "save_unitary", "save_superop", "save_stabilizer",
            "save_clifford", "save_matrix_product_state",
        )),
        ("set_statevector", "circuit.initialize"),
        ("set_density_matrix", "begin with gates"),
        ("set_stabilizer", "circuit.append(clifford"),
        ("roerror", "noise="),
    ],
)  # fmt: skip
def test_instruction_of_aer_is_refused_with_what_replaces_it(name: str, option: str) -> None:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.append(Instruction(name, 1, 0, []), [0])
    assert option in fails(ProgramError, f"'{name}' is opaque", load, circuit).hint


def test_instructions_of_aer_are_known_by_their_names() -> None:
    import qiskit_aer  # noqa: F401  it adds the methods

    circuit = QuantumCircuit(1)
    circuit.save_statevector()
    assert "outputs=" in fails(ProgramError, "save_statevector", load, circuit).hint
    circuit = QuantumCircuit(1)
    circuit.save_expectation_value(Pauli("Z"), [0])
    assert "observables=" in fails(ProgramError, "save_expval", load, circuit).hint


def test_exception_in_gate_definition_is_a_program_error() -> None:
    class Failing(Gate):
        def _define(self) -> None:
            raise KeyError("lost")

    circuit = QuantumCircuit(1)
    circuit.append(Failing("failing", 1, []), [0])
    fails(ProgramError, r"definition of 'failing' cannot be made: 'lost'", load, circuit)


def doubling(levels: int) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    for level in range(levels):
        outer = QuantumCircuit(1)
        for _ in range(2):
            outer.append(named(f"g{level}", circuit), [0])
        circuit = outer
    return circuit


def named(name: str, definition: QuantumCircuit) -> Gate:
    """A gate that shares its definition (`to_gate` would copy it, and all below)."""
    gate = Gate(name, 1, [])
    gate.definition = definition
    return gate


def test_exponentially_growing_definitions_are_refused_in_each_format() -> None:
    fails(LimitExceededError, "more than 1000000 operations", load, doubling(40))
    text = 'OPENQASM 2.0; include "qelib1.inc"; gate g0(t) a {rz(t) a;}\n'
    text += "".join(f"gate g{k + 1}(t) a {{g{k}(t/2) a; g{k}(t/3) a;}}\n" for k in range(40))
    circuit = QuantumCircuit.from_qasm_str(text + "qreg q[1]; g40(1) q[0];")
    fails(LimitExceededError, "more than 1000000 operations", load, circuit)


def test_definitions_of_one_name_are_distinct_and_their_depth_bounded() -> None:
    circuit = QuantumCircuit(1)
    for name in ("x", "h"):
        text = f'OPENQASM 2.0; include "qelib1.inc"; gate g a {{{name} a;}} qreg q[1]; g q[0];'
        gate = QuantumCircuit.from_qasm_str(text).data[0].operation
        circuit.append(gate, [0])
        circuit.append(gate.copy(), [0])
    program = load(circuit).program
    assert (program.names, program.ops) == (("x", "h"), bytes([0, 0, 0, 0, 1, 0, 1, 0]))
    circuit = QuantumCircuit(1)
    circuit.h(0)
    for level in range(201):
        outer = QuantumCircuit(1)
        outer.append(named(f"g{level}", circuit), [0])
        circuit = outer
    fails(ProgramError, "more than 200 definitions deep", load, circuit)


def test_barriers_beyond_operand_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.client.circuits.encoder.MAX_OPERANDS", 100)
    monkeypatch.setattr(
        "simenv.client.circuits.native.CHOICE", native.EncoderSelector()
    )  # the walk's limit
    circuit = QuantumCircuit(60)
    circuit.barrier()
    load(circuit)
    circuit.barrier()
    fails(LimitExceededError, "barriers on all qubits", load, circuit)


@pytest.mark.parametrize("value", [b"OPENQASM 2.0;", None, 5, [], {}, object()])
def test_value_that_is_not_a_circuit_is_refused(value: Any) -> None:
    fails(ProgramError, "is no circuit", load, value)


@pytest.mark.parametrize("module", ["dimod.binary.binary_quadratic_model", "dwave.system.samplers"])
def test_annealing_is_refused_with_the_reason_and_the_package(module: str) -> None:
    kind = type("BinaryQuadraticModel", (), {"__module__": module})
    derived = type("Model", (kind,), {"__module__": "of.the.user"})
    for problem in (kind(), derived()):
        error = fails(ProgramError, "annealing is not emulated", load, problem)
        assert "no physics" in error.message
        assert "dwave-samplers" in error.hint
    circuit = type("Circuit", (), {"__module__": "dwave.gate.circuit"})
    fails(ProgramError, "is no circuit", load, circuit())


def test_measurement_of_another_name_on_two_qubits_is_refused() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.append(Instruction("measure_2", 2, 2, []), [0, 1], [0, 1])
    assert "one qubit and one clbit" in fails(ProgramError, "measure_2", load, circuit).hint


GOLDEN = sorted((Path(__file__).parents[3] / "golden").glob("*.bin"))


def bell(**changes: object) -> Program:
    circuit = QuantumCircuit(2, 2)
    circuit.rx(Parameter("a"), 0)
    circuit.cx(0, 1)
    with circuit.if_test((circuit.cregs[0], 2)):
        circuit.measure([0, 1], [0, 1])
    return msgspec.structs.replace(load(circuit).program, **changes)


def u16(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "little") for number in numbers)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 9}, "format 9"),
        ({"num_qubits": 10**6}, "1000000 qubits"),
        ({"num_qubits": -1}, "-1 qubits"),
        ({"num_clbits": 3}, "for 3 clbits"),
        ({"registers": (("c", -1), ("d", 3))}, "for 2 clbits"),
        ({"registers": (("c", 1), ("c", 1))}, "makes no circuit"),
        ({"names": ("rx", "cx", "if", "unknown", "end")}, "'unknown' is unknown"),
        ({"names": ("rx", "rzz", "if", "measure", "end")}, "makes no circuit"),
        ({"names": ("rx", "h", "if", "measure", "end")}, "no 'h' has 2 qubits"),
        ({"names": ("rx",)}, "no array of 3"),
        ({"ops": u16(9)}, "row 9 of a table of 5"),
        ({"ops": b"\0"}, "no array"),
        ({"ops": u16(0, 1, 2)}, "arrays are longer"),
        ({"ops": u16(0, 1, 4, 3, 3)}, "an 'end' without a block"),
        ({"ops": u16(0, 1, 2, 3, 3)}, "a block without an end"),
        ({"ops": u16(0, 1, 2, 3, 4, 3, 2, 4)}, "tokens make none"),
        ({"qubits": u16(0, 0, 0, 0, 1)}, "duplicate"),
        ({"qubits": u16(0, 0, 7, 0, 1)}, "a bit that does not exist"),
        ({"qubits": u16(0)}, "end too early"),
        ({"num_slots": 0}, "slot 0"),
        ({"conditions": b""}, "tokens make none"),
        ({"conditions": bytes(12)}, "tokens make none"),
        ({"constants": ()}, "tokens make none"),
    ],
)
def test_inconsistent_program_arrays_are_refused(changes: dict[str, object], told: str) -> None:
    assert told in fails(ProgramError, "", to_qiskit, bell(**changes)).message


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_corrupted_program_is_decoded_or_refused_with_known_errors(path: Path) -> None:
    draw = random.Random(path.stem)
    data = path.read_bytes()
    value = refused = 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(len(changed))] = draw.choice((0, 1, 2, 255, draw.randrange(256)))
        try:
            to_qiskit(decode_program(bytes(changed)))
            value += 1
        except (msgspec.DecodeError, UnicodeDecodeError, ProgramError):
            refused += 1
    assert refused
    assert value + refused == 60


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("else", "a marker outside of its 'if'"), ("case", "a marker outside of its 'switch'"),
        ("default", "a marker outside of its 'switch'"), ("break", "a 'break' outside of a loop"),
        ("continue", "a 'continue' outside of a loop"), ("while", "tokens make none"),
        ("for", "tokens make none"), ("switch", "tokens make none"), ("store", "tokens make none"),
        ("unitary", "1 kinds of unitary, but 0 matrices"),
    ],
)  # fmt: skip
def test_misplaced_block_marker_is_refused(name: str, told: str) -> None:
    changes = {"names": (name,), "arities": bytes(6), "ops": u16(0), "qubits": b"", "clbits": b""}
    changes |= {"params": b"", "num_slots": 0, "slots": b"", "conditions": b""}
    fails(ProgramError, told, to_qiskit, bell(**changes))


def test_invalid_widths_of_variables_and_matrices_are_refused() -> None:
    for widths in ((70_000,), (-1,), (1,) * 5000):
        fails(ProgramError, "variables", to_qiskit, bell(variables=widths))
    changes = {"names": ("unitary",), "arities": u16(1, 0, 0), "ops": u16(0), "qubits": u16(0)}
    changes |= {"clbits": b"", "params": b"", "num_slots": 0, "slots": b"", "conditions": b""}
    fails(ProgramError, "16 bytes for 1 qubits", to_qiskit, bell(**changes, matrices=(bytes(16),)))
