"""The transfer simulator: equal to the density matrix engine, derivatives equal to differences."""

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from engine_runs import probabilities
from qiskit import QuantumCircuit

from noise_models.build import build as noise_model
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
    QubitCalibration,
    ZZCoupling,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import Unsupported
from simulators.simulate import simulate
from simulators.transfer.evaluate import (
    FINE,
    ChannelSet,
    Detuning,
    JointFlip,
    OutcomeDistribution,
    Precision,
    ReadTogether,
    UniformPart,
    outcomes,
)
from simulators.transfer.evolution import DualMatrix, constant
from simulators.transfer.program import ConstantTable, build
from tests.support.arrays import from_qiskit

QUBITS = 5


def device(seed: int) -> CalibrationSnapshot:
    """A line of qubits with all kinds of noise."""
    rng = np.random.default_rng(seed)
    qubits = tuple(
        QubitCalibration(
            t1_us=float(rng.uniform(20, 90)), t2_us=float(rng.uniform(15, 100)),
            p01=float(rng.uniform(0.005, 0.05)), p10=float(rng.uniform(0.005, 0.08)),
            readout_ns=700.0, excited=0.01, preparation_error=0.004,
        )
        for _ in range(QUBITS)
    )  # fmt: skip
    gates = [
        GateCalibration(name, (q,), float(rng.uniform(1e-4, 2e-3)), 35.0, 0.01)
        for q in range(QUBITS)
        for name in ("sx", "x")
    ]
    gates += [GateCalibration("rz", (q,), 0.0, 0.0) for q in range(QUBITS)]
    gates += [
        GateCalibration("cx", (q, q + 1), float(rng.uniform(5e-3, 3e-2)), 300.0 + 20 * q, 0.02)
        for q in range(QUBITS - 1)
    ]
    return CalibrationSnapshot(
        "line", QUBITS, native_gates=(NativeGate("sx", 1), NativeGate("x", 1), NativeGate("cx", 2)),
        qubits=qubits, gates=tuple(gates),
        zz=tuple(ZZCoupling((q, q + 1), 40.0) for q in range(QUBITS - 1)),
    )  # fmt: skip


def circuit(seed: int, gates: int = 40, clifford: bool = False) -> Circuit:
    """Native gates on some of the qubits, both orders of a pair, some of them measured."""
    rng = np.random.default_rng(seed)
    quantum_circuit = QuantumCircuit(QUBITS, 4)
    for _ in range(gates):
        qubit = int(rng.integers(QUBITS - 1))
        kind = int(rng.integers(4))
        if kind == 0:
            quantum_circuit.sx(qubit)
        elif kind == 1:
            angle = np.pi / 2 * rng.integers(1, 4) if clifford else rng.uniform(0, 6)
            quantum_circuit.rz(float(angle), qubit)
        elif kind == 2 and qubit:
            quantum_circuit.cx(qubit - 1, qubit)
        elif qubit:
            quantum_circuit.cx(qubit, qubit - 1)
    quantum_circuit.barrier()
    for clbit, qubit in ((2, 0), (0, 3), (3, 1)):
        quantum_circuit.measure(qubit, clbit)
    return from_qiskit(quantum_circuit)


def found(
    one: Circuit,
    noise: NoiseProgram,
    channels: list[DualMatrix] | None = None,
    detuning: Detuning = Detuning(),  # noqa: B008
    precision: Precision = FINE,
    joint: tuple[JointFlip, ...] = (),
    uniform: UniformPart = UniformPart(),  # noqa: B008
) -> OutcomeDistribution:
    table = ConstantTable()
    program = build(noise.located(one), noise, table)
    read = noise.readout
    assert read is not None
    confusion = {
        q: constant(np.array([[1 - read.p01[q], read.p10[q]], [read.p01[q], 1 - read.p10[q]]]))
        for q in program.qubits
    }
    value = channels or [constant(channel.ptm) for channel in noise.channels]
    together = [ReadTogether(each.qubits, constant(each.confusion)) for each in read.groups]
    built = ChannelSet(value, confusion, table, detuning, together, joint, uniform)
    return outcomes(program, built, precision)


def exact(
    actual: Circuit, noise: NoiseProgram, clbits: tuple[int, ...] = (0, 2, 3)
) -> npt.NDArray[np.float64]:
    """By the density matrix: of each outcome of these bits, the first of which is the lowest."""
    run = simulate(actual, engine="densitymatrix", noise=noise, outputs=("probabilities",), shots=0)
    places = np.zeros(1 << len(clbits), np.int64)
    for k, clbit in enumerate(clbits):
        places |= (np.arange(places.size) >> k & 1) << clbit
    expected = probabilities(run.row(0))
    return np.array([expected.get(int(place), 0.0) for place in places])


@pytest.mark.parametrize("seed", range(6))
def test_probabilities_are_those_of_the_density_matrix(seed: int) -> None:
    actual = circuit(seed)
    noise = attach_noise(actual, noise_model(device(seed)))
    result = found(actual, noise)
    assert np.abs(result.probabilities - exact(actual, noise)).max() < 1e-10
    assert result.probabilities.sum() == pytest.approx(1.0, abs=1e-12)


def read_together(seed: int, qubits: tuple[int, ...]) -> CalibrationSnapshot:
    """The device with random confusion of some qubits that are read together."""
    rng = np.random.default_rng(seed)
    columns = rng.dirichlet(np.ones(1 << len(qubits)), size=1 << len(qubits))
    group = CorrelatedReadout(qubits, tuple(map(tuple, columns.T.tolist())))
    return msgspec.structs.replace(device(seed), correlated_readout=(group,))


@pytest.mark.parametrize("qubits", [(3, 0), (0, 1, 3), (0, 2)])
def test_correlated_readout_is_that_of_the_density_matrix(qubits: tuple[int, ...]) -> None:
    """Qubit 2 is not measured: its group does not act."""
    actual = circuit(2)
    noise = attach_noise(actual, noise_model(read_together(2, qubits)))
    assert np.abs(found(actual, noise).probabilities - exact(actual, noise)).max() < 1e-10


def test_joint_flips_act_after_single_errors_and_have_their_derivatives() -> None:
    """Of pair 0, 1 both records are flipped; of 1, 2 that of 1 alone, since 2 is not measured."""
    actual = circuit(4)
    noise = attach_noise(actual, noise_model(device(4)))
    read = found(actual, noise).probabilities  # bits: qubits 3, 0, 1
    place = np.arange(8)
    for mask, p in ((0b110, 0.03), (0b100, 0.02)):
        read = (1.0 - p) * read + p * read[place ^ mask]

    def at(*values: float) -> OutcomeDistribution:
        pairs = ((0, 1), (1, 2))
        flips = tuple(
            JointFlip(q, p, k) for k, (q, p) in enumerate(zip(pairs, values, strict=True))
        )
        return found(actual, noise, joint=flips)

    result = at(0.03, 0.02)
    np.testing.assert_allclose(result.probabilities, read, atol=1e-13)
    assert result.params == (0, 1)
    for param, shift in enumerate(np.eye(2) * 1e-6):
        ways = (at(0.03 + sign * shift[0], 0.02 + sign * shift[1]) for sign in (1, -1))
        up, down = (each.probabilities for each in ways)
        difference = (up - down) / 2e-6
        assert np.abs(difference).max() > 1e-3
        np.testing.assert_allclose(result.jacobian[:, param], difference, atol=1e-8)


def test_a_uniform_part_of_the_records_has_its_derivative() -> None:
    actual = circuit(4)
    noise = attach_noise(actual, noise_model(device(4)))
    joint = (JointFlip((0, 1), 0.03, 0),)

    def at(share: float, flip: float = 0.03) -> OutcomeDistribution:
        flips = (JointFlip((0, 1), flip, 0),)
        return found(actual, noise, joint=flips, uniform=UniformPart(share, 1))

    without, result = found(actual, noise, joint=joint), at(0.2)
    np.testing.assert_allclose(
        result.probabilities, 0.8 * without.probabilities + 0.2 / 8.0, atol=1e-13
    )
    assert result.params == (0, 1)
    for param, pairs in enumerate(((at(0.2, 0.031), at(0.2, 0.029)), (at(0.201), at(0.199)))):
        up, down = (each.probabilities for each in pairs)
        np.testing.assert_allclose(result.jacobian[:, param], (up - down) / 2e-3, atol=1e-8)


def test_derivatives_are_those_of_differences() -> None:
    outcome = circuit(3)
    noise = attach_noise(outcome, noise_model(device(3)))
    rng = np.random.default_rng(0)
    slopes = [rng.normal(size=channel.ptm.shape) * 0.1 for channel in noise.channels]
    for slope in slopes:
        slope[0] = 0.0

    def at(values: np.ndarray) -> OutcomeDistribution:
        channels = [
            DualMatrix(np.array([channel.ptm + values[k % 3] * slope, slope]), (k % 3,))
            for k, (channel, slope) in enumerate(zip(noise.channels, slopes, strict=True))
        ]
        return found(outcome, noise, channels)

    result = at(np.zeros(3))
    assert result.params == (0, 1, 2)
    step = 1e-6
    for param in range(3):
        one_way, other = (at(sign * step * np.eye(3)[param]).probabilities for sign in (1, -1))
        difference = (one_way - other) / (2 * step)
        assert np.abs(difference).max() > 1e-3
        np.testing.assert_allclose(result.jacobian[:, param], difference, atol=1e-7)


def detuned(seed: int, share: float) -> tuple[Circuit, NoiseProgram]:
    """A circuit on the device of the same seed with T2* of this share of T2."""
    rng = np.random.default_rng(seed)
    snapshot = device(seed)
    qubits = tuple(
        msgspec.structs.replace(
            each, t2_star_us=share * (each.t2_limited_us or 0.0) * rng.uniform(0.8, 1.0)
        )
        for each in snapshot.qubits
    )
    one = circuit(seed, gates=25)
    return one, attach_noise(one, noise_model(msgspec.structs.replace(snapshot, qubits=qubits)))


@pytest.mark.parametrize("seed", range(10))
def test_probabilities_are_the_mixture_over_the_detunings(seed: int) -> None:
    """The density matrix has them by a finer quadrature. The error is that of FINE, at most."""
    actual, noise = detuned(seed, 0.6)
    assert noise.detunings is not None
    wanted, result = exact(actual, noise), found(actual, noise)
    assert 0.0 < result.error <= FINE.value
    rough = found(actual, noise, precision=Precision(1e-3, 1e-1, 4096))
    assert result.error < rough.error <= 1e-3
    assert np.abs(wanted - result.probabilities).max() < FINE.value
    assert np.abs(wanted - rough.probabilities).max() < 1e-3


def test_derivatives_by_the_factor_of_detunings_are_those_of_differences() -> None:
    actual, noise = detuned(3, 0.15)
    channels = [
        DualMatrix(np.array([channel.ptm, np.eye(len(channel.ptm)) - channel.ptm]), (0,))
        for channel in noise.channels
    ]
    precision = Precision(1e-7, 1e-7, 8192)

    def at(channel: float, factor: float) -> OutcomeDistribution:
        moved = [
            DualMatrix(np.array([each.values[0] + channel * each.values[1], each.values[1]]), (0,))
            for each in channels
        ]
        return found(actual, noise, moved, Detuning(float(np.exp(factor)), 1), precision)

    result = at(0.0, 0.1)
    assert result.params == (0, 1)
    step = 1e-3
    for param, pair in enumerate((((step, 0.1), (-step, 0.1)), ((0.0, 0.101), (0.0, 0.099)))):
        one_way, other = (at(*each).probabilities for each in pair)
        difference = (one_way - other) / (2 * step)
        assert np.abs(difference).max() > 3e-4
        np.testing.assert_allclose(result.jacobian[:, param], difference, atol=1e-5)


def test_weak_detunings_have_a_derivative_by_their_factor() -> None:
    """One node is enough for the other derivatives, and has none by the factor."""
    actual, noise = detuned(3, 0.5)
    precision = Precision(1e-9, 0.5, 8192)
    step = 1e-2

    def at(factor: float) -> OutcomeDistribution:
        return found(actual, noise, None, Detuning(float(np.exp(factor)), 0), precision)

    difference = (at(step).probabilities - at(-step).probabilities) / (2 * step)
    assert np.abs(difference).max() > 1e-5
    np.testing.assert_allclose(at(0.0).jacobian[:, 0], difference, rtol=1e-2, atol=1e-9)


def test_products_follow_the_chain_rule() -> None:
    rng = np.random.default_rng(1)
    one = DualMatrix(rng.normal(size=(3, 4, 4)), (0, 2))
    two = DualMatrix(rng.normal(size=(3, 4, 4)), (1, 2))
    result = one.after(two)
    a, b = one.values, two.values
    assert result.params == (0, 1, 2)
    np.testing.assert_allclose(result.values[1], a[1] @ b[0])
    np.testing.assert_allclose(result.values[2], a[0] @ b[1])
    np.testing.assert_allclose(result.values[3], a[2] @ b[0] + a[0] @ b[2])
    high = one.tensor(two)
    np.testing.assert_allclose(high.values[3], np.kron(a[2], b[0]) + np.kron(a[0], b[2]))


@pytest.mark.parametrize("seed", range(4))
def test_measurements_and_resets_amid_a_circuit_are_those_of_the_density_matrix(seed: int) -> None:
    """A measured qubit relaxes during its readout; a bit that is measured twice has the last
    outcome."""
    rng = np.random.default_rng(seed)
    quantum_circuit = QuantumCircuit(3, 3)
    for _ in range(3):
        for qubit in range(3):
            quantum_circuit.sx(qubit)
            quantum_circuit.rz(float(rng.uniform(0, 6)), qubit)
            quantum_circuit.sx(qubit)
        quantum_circuit.cx(0, 1)
        quantum_circuit.measure(int(rng.integers(3)), 0)
        quantum_circuit.cx(1, 2)
        quantum_circuit.reset(int(rng.integers(3)))
    quantum_circuit.x(1)
    quantum_circuit.measure(1, 2)
    quantum_circuit.x(1)
    quantum_circuit.measure(1, 1)
    actual = from_qiskit(quantum_circuit)
    noise = attach_noise(actual, noise_model(device(seed)))
    result = found(actual, noise).probabilities
    assert np.abs(result - exact(actual, noise, (0, 1, 2))).max() < 1e-10


def test_no_bit_is_copied_for_noise_that_no_record_depends_on() -> None:
    """Coupled qubits interact during their readouts, after which nothing reads them."""
    quantum_circuit = QuantumCircuit(3, 3)
    for qubit in range(3):
        quantum_circuit.sx(qubit)
    quantum_circuit.cx(0, 1)
    quantum_circuit.measure(range(3), range(3))
    circuit = from_qiskit(quantum_circuit)
    noise = attach_noise(circuit, noise_model(device(0)))
    assert noise.locations[-1, 0] == circuit.ops.size - 1  # after the last measurement
    assert build(circuit, noise, ConstantTable()).qubits == (0, 1, 2)


def test_what_it_cannot_run_is_refused() -> None:
    quantum_circuit = QuantumCircuit(2, 2)
    quantum_circuit.measure(0, 0)
    with quantum_circuit.if_test((0, 1)):
        quantum_circuit.x(0)
    quantum_circuit.measure(0, 1)
    result = from_qiskit(quantum_circuit)
    noise = attach_noise(result, noise_model(device(0)))
    with pytest.raises(Unsupported, match="conditions"):
        build(result, noise, ConstantTable())


def test_a_state_that_is_too_large_is_refused() -> None:
    quantum_circuit = QuantumCircuit(15, 1)
    for qubit in range(14):
        quantum_circuit.cx(qubit, qubit + 1)
    quantum_circuit.measure(14, 0)
    result = from_qiskit(quantum_circuit)
    noise = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
    table = ConstantTable()
    with pytest.raises(Unsupported, match="15 qubits"):
        outcomes(build(result, noise, table), ChannelSet([], {}, table))
