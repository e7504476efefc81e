"""A Program that is no circuit comes back as one, or as another error."""

import random
from pathlib import Path

import msgspec
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from simenv.client.circuits import load, to_qiskit
from simenv.errors import ProgramError
from simenv.model import Program, decode_program

GOLDEN = sorted((Path(__file__).parents[4] / "golden").glob("*.bin"))


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
