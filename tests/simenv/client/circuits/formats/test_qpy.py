"""A QPY file that is read as another circuit, or read at all when it should not be."""

import io
import struct
from pathlib import Path

import branches as br
import circuit_judge
import engine_judge
import numpy as np
import pytest
from drawing_loops import looped
from failing import fails
from hypothesis import HealthCheck, assume, given, settings
from qiskit import QuantumCircuit, qpy
from qiskit.circuit import Parameter
from qiskit.circuit.library import QFTGate, UnitaryGate

from simenv.client.circuits import load
from simenv.errors import LimitExceededError, ProgramError


def sample() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.rx(2 * Parameter("a"), 0)
    circuit.append(QFTGate(3), [0, 1, 2])
    circuit.append(UnitaryGate(np.eye(4)[[1, 0, 2, 3]]), [2, 0])
    circuit.measure(0, 1)
    with circuit.if_test((1, True)):
        circuit.x(2)
    return circuit


def dumped(*circuits: QuantumCircuit, version: int = qpy.common.QPY_VERSION) -> bytes:
    file = io.BytesIO()
    qpy.dump(list(circuits), file, version=version)
    return file.getvalue()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "circuit.qpy"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", range(13, qpy.common.QPY_VERSION + 1))
def test_qpy_file_is_loaded_as_same_program(tmp_path: Path, version: int) -> None:
    loaded = load(written(tmp_path, dumped(sample(), version=version)))
    assert (loaded.packed, loaded.parameters) == (load(sample()).packed, ("a",))


def test_loops_in_qpy_file_keep_their_outcomes(tmp_path: Path) -> None:
    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(looped())
    def changed(circuit: QuantumCircuit) -> None:
        try:
            expected = br.distribution(circuit_judge.run(circuit))
        except circuit_judge.Endless:
            assume(False)
        path = written(tmp_path, dumped(circuit))
        assert engine_judge.exact(path) == pytest.approx(expected, abs=1e-9)

    changed()


def test_qpy_file_with_several_circuits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="with 2 programs") as refused:
        load(written(tmp_path, dumped(sample(), sample())))
    assert "submit_many" in refused.value.hint


@pytest.mark.parametrize("version", [1, 12, 19, 255])
def test_unsupported_qpy_version_is_refused(tmp_path: Path, version: int) -> None:
    data = bytearray(dumped(sample()))
    data[6] = version
    fails(ProgramError, f"QPY of version {version}; 13 to", load, written(tmp_path, bytes(data)))


@pytest.mark.parametrize(
    ("offset", "format_", "value", "words"),
    [
        (5, "!I", 2**31, "2147483648 qubits"),
        (9, "!I", 70_000, "70000 clbits"),
        (25, "!Q", 2**40, "more than 1000000 operations"),
    ],
)
def test_qpy_header_size(tmp_path: Path, offset: int, format_: str, value: int, words: str) -> None:
    data = bytearray(dumped(sample()))
    (start,) = struct.unpack_from("!Q", data, 20)
    struct.pack_into(format_, data, start + offset, value)
    fails(LimitExceededError, words, load, written(tmp_path, bytes(data)))


def test_oversized_counts_in_qpy_block_are_refused(tmp_path: Path) -> None:
    data = bytearray(dumped(sample()))
    struct.pack_into("!I", data, data.index(b"f\x00\x08", data.index(b"IfElseOp")) + 3, 2**31)
    fails(LimitExceededError, "2147483648 qubits", load, written(tmp_path, bytes(data)))


def test_damaged_qpy_file_is_read_or_refused_with_known_errors(tmp_path: Path) -> None:
    data = dumped(sample())
    rng = np.random.default_rng(0)
    for _ in range(300):
        torn = bytearray(data)
        kind = rng.integers(3)
        at = int(rng.integers(6, len(torn)))
        if kind == 0:
            del torn[at:]
        elif kind == 1:
            torn[at] ^= 1 << int(rng.integers(8))
        else:
            torn[at : at + 4] = rng.bytes(4)
        try:
            load(written(tmp_path, bytes(torn)))
        except (ProgramError, LimitExceededError) as refused:
            assert str(refused)  # noqa: PT017  whatever it says, it is one of ours


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> tuple:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def test_pickle_in_matrix_is_not_loaded(tmp_path: Path) -> None:
    circuit = QuantumCircuit(1)
    circuit.append(UnitaryGate(np.eye(2)), [0])
    data = dumped(circuit)
    at = data.index(b"\x93NUMPY")
    (size,) = struct.unpack_from("!Q", data, at - 8)
    pickled = io.BytesIO()
    np.save(pickled, np.array([[Trap()]], dtype=object), allow_pickle=True)
    payload = pickled.getvalue()
    trapped = data[: at - 8] + struct.pack("!Q", len(payload)) + payload + data[at + size :]
    fails(ProgramError, "cannot be read", load, written(tmp_path, trapped))
    assert not Trap.sprung
