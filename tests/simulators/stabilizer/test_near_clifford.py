"""Engine `near_clifford`: exact distributions and values with Pauli noise, readout error,
conditions and every gate; seeds; active qubits; refusals."""

import math

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities, run
from noisy import Located, after_gates, p_value, program
from reference import Operation

from noise_models.channel import Channel, Readout, depolarizing, from_paulis, relaxation
from simulators.circuit import ir
from simulators.circuit.analysis.active_width import active_size
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import BindingResult, PauliSum, Request, RunControl
from simulators.errors import Stopped, Unsupported
from simulators.execution.packing import unpack
from simulators.stabilizer.near_clifford import NearCliffordEngine
from simulators.statevector.engine import StatevectorEngine

SHOTS = 20_000
BIT = ((ir.CLBIT, 0, 0),)
CLIFFORD = ("h", "s", "sx", "sdg", "x", "y")
PAIRS = ("cx", "cz", "swap", "ecr", "iswap")
BIASED = from_paulis(np.array([0.9, 0.05, 0.02, 0.03]))
_ERRORS = np.linspace(0.001, 0.0257, 15)
PAIR = from_paulis(np.array([1.0 - _ERRORS.sum(), *_ERRORS]))


def counts_of(result: BindingResult) -> dict[int, int]:
    outcomes = unpack(result.outcomes, result.outcome_width)
    return dict(zip(outcomes, np.frombuffer(result.counts, np.uint32).tolist(), strict=True))


def counted(
    circuit: Circuit, noise: NoiseProgram | None = None, shots: int = SHOTS, seed: int = 7,
    **options: object,
) -> BindingResult:  # fmt: skip
    return run(NearCliffordEngine(), circuit, Request(shots, seed), noise, **options).row(0)


def exact(circuit: Circuit, noise: NoiseProgram | None = None) -> dict[int, float]:
    request = Request(0, 1, ("probabilities",))
    return probabilities(run(DensityMatrixEngine(), circuit, request, noise).row(0))


def random_circuit(width: int, gates: int, others: int, seed: int) -> Arrays:
    """Clifford gates at random, with others at random places among them, without measurements."""
    random = np.random.default_rng(seed)
    arrays = Arrays(width, width)
    places = set(random.choice(gates, others, replace=False).tolist())
    for number in range(gates):
        pair = random.permutation(width)[:2].tolist()
        arrays.add(str(random.choice(CLIFFORD)), pair[:1])
        arrays.add(str(random.choice(PAIRS)), pair)
        if number in places:
            name = str(random.choice(["t", "tdg", "rz", "rx", "cp", "u", "rzz"]))
            gate = GATES[name]
            angles = random.uniform(0, 6, gate.params).tolist()
            arrays.add(name, pair[: gate.qubits], (), angles)
    return arrays


def pauli_rule(operation: Operation) -> list[tuple[tuple[int, ...], Channel]]:
    qubits = tuple(operation.qubits)
    if len(qubits) == 1 and operation.name in CLIFFORD:
        return [(qubits, BIASED)]
    return [(qubits, PAIR)] if len(qubits) == 2 else []


@pytest.mark.parametrize("seed", range(6))
def test_counts_with_pauli_noise_follow_the_exact_distribution(seed: int) -> None:
    circuit = random_circuit(4, 12, 5, seed).measure(range(4)).circuit()
    readout = Readout(np.array([0.02, 0.0, 0.1, 0.05]), np.array([0.05, 0.01, 0.0, 0.1]))
    noise = program(after_gates(circuit, pauli_rule), readout)
    noise = NoiseProgram(b"", noise.kinds - {"kraus"}, noise.locations, noise.channels, readout)
    assert p_value(exact(circuit, noise), counts_of(counted(circuit, noise))) > 1e-4


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_is_right(name: str) -> None:
    """Between gates that make its phases seen."""
    gate = GATES[name]
    width = max(1, gate.qubits if gate.qubits > 0 else 3)
    random = np.random.default_rng(sum(map(ord, name)))
    arrays = Arrays(width, width)
    for _ in range(2):
        for qubit in range(width):
            arrays.add("ry", [qubit], (), [float(random.uniform(0, 3))])
        qubits = range(width) if gate.qubits else ()
        arrays.add(name, list(qubits), (), random.uniform(0, 6, gate.params).tolist())
    for qubit in range(width):
        arrays.add("sx", [qubit])
    circuit = arrays.measure(range(width)).circuit()
    assert p_value(exact(circuit), counts_of(counted(circuit))) > 1e-4


@pytest.mark.parametrize("name", ["s", "t", "h", "y", "cx", "cp", "swap", "u"])
@pytest.mark.parametrize("other", [False, True], ids=["if", "else"])
def test_gates_under_conditions_are_right(name: str, other: bool) -> None:
    gate, random = GATES[name], np.random.default_rng(5)
    arrays = Arrays(3, 3)
    for qubit in range(3):
        arrays.add("ry", [qubit], (), [0.4 + qubit])
    arrays.add("cx", [0, 1]).add("cx", [1, 2]).add("measure", [0], [0]).begin(*BIT)
    if other:
        arrays.add("x", [2]).add("else")
    arrays.add(name, [1, 2][: gate.qubits], (), random.uniform(0, 6, gate.params).tolist())
    arrays.add("end").add("sx", [1]).add("sx", [2])
    circuit = arrays.add("measure", [1], [1]).add("measure", [2], [2]).circuit()
    assert p_value(exact(circuit), counts_of(counted(circuit))) > 1e-4


def test_magic_state_injection_applies_t() -> None:
    """A state T|+> that is measured into another qubit, with the conditional S."""
    arrays = Arrays(2, 2).add("h", [0]).add("h", [1]).add("t", [1]).add("cx", [0, 1])
    arrays.add("measure", [1], [0]).begin(*BIT).add("s", [0]).add("end").add("tdg", [0])
    result = counted(arrays.add("h", [0]).add("measure", [0], [1]).circuit())
    assert set(counts_of(result)) == {0, 1}  # the second bit is 0: T was undone


def test_resets_and_later_uses_are_right() -> None:
    arrays = random_circuit(3, 8, 4, 3).add("measure", [0], [0]).add("reset", [1])
    arrays.add("h", [1]).add("t", [1]).add("cx", [1, 2]).add("h", [1]).add("cx", [0, 2])
    circuit = arrays.add("measure", [1], [1]).add("measure", [2], [2]).circuit()
    assert p_value(exact(circuit), counts_of(counted(circuit))) > 1e-4


def _sums(width: int, seed: int) -> tuple[PauliSum, ...]:
    random = np.random.default_rng(seed)
    labels = ["".join(random.choice(list("IXYZ"), width)) for _ in range(8)]
    return (*(PauliSum((text, "I" * width), np.array([1.5, 0.25])) for text in labels),)


def test_values_of_a_pure_state_are_exact() -> None:
    circuit, sums = random_circuit(5, 20, 6, 1).circuit(), _sums(5, 1)
    request = Request(0, 1, ("expectation",), sums)
    ours = run(NearCliffordEngine(), circuit, request).row(0).expectations
    theirs = run(StatevectorEngine(), circuit, request).row(0).expectations
    assert np.array(ours) == pytest.approx(np.array(theirs), abs=1e-9)


def test_values_with_noise_are_means_of_shots() -> None:
    circuit, sums = random_circuit(4, 12, 5, 2).circuit(), _sums(4, 2)
    noise = program(after_gates(circuit, pauli_rule))
    noise = NoiseProgram(b"", frozenset({"pauli"}), noise.locations, noise.channels)
    request = Request(0, 1, ("expectation",), sums)
    theirs = np.array(run(DensityMatrixEngine(), circuit, request, noise).row(0).expectations)
    sampled = Request(4_000, 1, ("expectation",), sums)
    ours = np.array(run(NearCliffordEngine(), circuit, sampled, noise).row(0).expectations)
    assert (np.abs(ours[:, 0] - theirs[:, 0]) < 5 * ours[:, 1] + 1e-9).all()
    assert ours[:, 1].max() < 0.05


def test_counts_do_not_depend_on_threads_and_fewer_shots_are_a_prefix() -> None:
    circuit = random_circuit(12, 60, 12, 4).measure(range(12)).circuit()
    request = Request(3_000, 5, ("memory",))
    one, three = (
        run(NearCliffordEngine(), circuit, request, threads=threads).row(0).memory
        for threads in (1, 3)
    )
    fewer = run(NearCliffordEngine(), circuit, Request(700, 5, ("memory",))).row(0).memory
    assert one == three
    assert one[: len(fewer)] == fewer


def test_a_run_ends_between_blocks() -> None:
    circuit = random_circuit(30, 300, 14, 4).measure(range(30)).circuit()

    class Stopping(RunControl):
        __slots__ = ()

        def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
            super().advance(unit, done, before=before)
            self.stop()

    with pytest.raises(Stopped):
        run(NearCliffordEngine(), circuit, Request(10**9, 1), None, Stopping())


def test_active_qubits_are_those_that_ticit_plans() -> None:
    """T gates on qubits that stabilizers describe cost nothing; a measured one is free again."""
    cheap = Arrays(3, 3).add("t", [0]).add("cx", [0, 1]).add("t", [1]).measure(range(3)).circuit()
    assert active_size(cheap, cheap.params).qubits == 0
    arrays = Arrays(2, 12)
    for number in range(12):  # one after the other
        arrays.add("h", [0]).add("t", [0]).add("h", [0]).add("measure", [0], [number])
        arrays.add("reset", [0])
    later = arrays.circuit()
    size = active_size(later, later.params)
    assert (size.qubits, size.rotations) == (1, 12)
    apart = Arrays(20, 20)
    for qubit in range(20):
        apart.add("h", [qubit]).add("t", [qubit]).add("h", [qubit])
    side_by_side = apart.measure(range(20)).circuit()
    size = active_size(side_by_side, side_by_side.params)
    assert size.qubits == 1  # each is a part of its own
    assert size.work < 5_000


def test_quarter_turns_are_no_rotations() -> None:
    arrays = (
        Arrays(2, 2)
        .add("u", [0], (), [math.pi / 2, 0.0, math.pi])
        .add("rzz", [0, 1], (), [math.pi / 2])
    )
    circuit = arrays.add("cp", [0, 1], (), [math.pi]).measure(range(2)).circuit()
    assert active_size(circuit, circuit.params).rotations == 0


REFUSED = {
    "too many": (lambda: _tangled(40, 4), "qubits or more would be active after"),
    "a conjunction": (
        lambda: Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).add("measure", [1], [1])
        .begin((ir.CLBIT, 0, 0), (ir.CLBIT, 1, 0), (ir.LOGIC_AND, 0, 0)).add("t", [1])
        .add("end").circuit(), "no parity"),
    "a wide matrix": (
        lambda: Arrays(3, 1).unitary(_rotation(3), [0, 1, 2]).measure([0]).circuit(),
        "active qubits of this circuit are not known"),
}  # fmt: skip


def _rotation(count: int) -> np.ndarray:
    generator = np.random.default_rng(1).normal(size=(2**count, 2**count))
    return np.linalg.qr(generator)[0].astype(np.complex128)


def _tangled(width: int, layers: int) -> Circuit:
    arrays = Arrays(width, width)
    for layer in range(layers):
        for qubit in range(width):
            arrays.add("h", [qubit]).add("t", [qubit])
        for qubit in range(width):
            arrays.add("cx", [qubit, (qubit + 2 * layer + 1) % width])
    return arrays.measure(range(width)).circuit()


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_run_is_refused_by_name(what: str) -> None:
    circuit, words = REFUSED[what]
    with pytest.raises(Unsupported, match=words) as caught:
        counted(circuit(), shots=10)
    assert caught.value.hint


def test_other_noise_is_refused_or_twirled() -> None:
    circuit = Arrays(1, 1).add("h", [0]).add("t", [0]).add("h", [0]).measure([0]).circuit()
    noise = program([(1, (0,), relaxation(1_000.0, 1.0, 1.0))])
    with pytest.raises(Unsupported, match="has no kraus noise"):
        counted(circuit, noise)
    result = counted(circuit, noise, settings=(("twirl", 1),))
    assert "twirled" in result.remark
    bent = [(1, (0,), relaxation(1_000.0, 1.0, 1.0).twirled())]
    assert p_value(exact(circuit, program(bent)), counts_of(result)) > 1e-4


def test_noise_under_a_condition_is_refused() -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).begin(*BIT).add("x", [1])
    circuit = arrays.add("end").add("measure", [1], [1]).circuit()
    located: list[Located] = [(3, (1,), depolarizing(0.1, 1))]
    noise = program(located)
    noise = NoiseProgram(b"", frozenset({"pauli"}), noise.locations, noise.channels)
    with pytest.raises(Unsupported, match="noise under a condition"):
        counted(circuit, noise)


def test_exact_values_of_samples_are_refused() -> None:
    circuit = Arrays(1, 1).add("h", [0]).add("measure", [0], [0]).add("h", [0]).circuit()
    request = Request(0, 1, ("expectation",), (PauliSum(("X",), np.ones(1)),))
    with pytest.raises(Unsupported, match="exact values"):
        run(NearCliffordEngine(), circuit, request)
