"""Detectors and noise of stabilizer circuits."""

from collections.abc import Sequence

import engine_runs
import msgspec
import numpy as np
import pymatching
import pytest
import stim
from arrays import Arrays
from failing import fails
from noisy import Exact, after_gates, p_value, program
from reference import Operation

from noise_models.channel import Channel, Readout, depolarizing, from_paulis, relaxation, tensor
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Request, RunControl
from simulators.errors import Stopped, Unsupported
from simulators.execution.hidden_bits import without_hidden
from simulators.execution.philox import block_seed
from simulators.simulate import counts_of
from simulators.stabilizer.decoders import SyndromeDecoder
from simulators.stabilizer.detectors import _ones, block_shots, sampled
from simulators.stabilizer.engine import StabilizerEngine

NOISE = {
    "after_clifford_depolarization": 0.01,
    "before_measure_flip_probability": 0.01,
    "after_reset_flip_probability": 0.01,
}


def code(distance: int = 3, task: str = "surface_code:rotated_memory_z") -> stim.Circuit:
    return stim.Circuit.generated(task, distance=distance, rounds=distance, **NOISE)


@pytest.mark.parametrize("task", ["surface_code:rotated_memory_z", "repetition_code:memory"])
def test_logical_error_rate_is_that_of_stim_and_pymatching(task: str) -> None:
    circuit, shots = code(3, task), 20_000
    result = sampled(circuit, SyndromeDecoder("pymatching", circuit), shots, 7, RunControl())
    events, flips = circuit.compile_detector_sampler(seed=1).sample(
        shots, separate_observables=True
    )
    matching = pymatching.Matching.from_detector_error_model(
        circuit.detector_error_model(decompose_errors=True)
    )
    expected = (matching.decode_batch(events) != flips).any(axis=1).mean()
    assert expected > 0
    error = np.sqrt(2 * expected / shots)
    assert abs(result.errors / shots - expected) < 5 * error
    rates = events.mean(axis=0)
    assert np.all(np.abs(result.detections / shots - rates) < 5 * np.sqrt(2 * rates / shots))
    assert abs(result.flips[0] / shots - flips.mean()) < 5 * np.sqrt(2 * flips.mean() / shots)


def test_bits_of_blocks_are_those_of_stim_with_their_seeds_decoded() -> None:
    circuit = code()
    size = block_shots(circuit)
    decoder = SyndromeDecoder("pymatching", circuit)
    result = sampled(circuit, decoder, size + 100, 3, RunControl(), keep=True)
    expected = [
        circuit.compile_detector_sampler(seed=block_seed(3, 0, number)).sample(
            size, separate_observables=True, bit_packed=True
        )
        for number in range(2)
    ]
    events = np.concatenate([expected[0][0], expected[1][0][:100]])
    flips = np.concatenate([expected[0][1], expected[1][1][:100]])
    assert np.array_equal(result.events, events)
    assert np.array_equal(result.observable_flips, flips)
    matching = pymatching.Matching.from_detector_error_model(
        circuit.detector_error_model(decompose_errors=True)
    )
    predicted = matching.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    assert np.array_equal(result.predictions, predicted)
    assert result.errors == (predicted != flips).any(axis=1).sum() == result.observable_errors.sum()
    fewer = sampled(circuit, decoder, 50, 3, RunControl(), keep=True)
    assert np.array_equal(fewer.events, events[:50])


@pytest.mark.parametrize("shape", [(1, 1), (128, 8), (129, 9), (1000, 17), (5, 0)])
def test_bits_are_counted_column_by_column(shape: tuple[int, int]) -> None:
    bits = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    bits[: shape[0] // 2] = 255
    width = max(0, 8 * shape[1] - 3)
    expected = np.unpackbits(bits, axis=1, bitorder="little").sum(axis=0)[:width]
    assert np.array_equal(_ones(bits, width), expected)


def test_wide_circuits_run_in_smaller_blocks() -> None:
    assert block_shots(code()) == 8192
    assert block_shots(stim.Circuit("R 40000\nM 40000")) == 1024
    assert block_shots(stim.Circuit("REPEAT 2000000 {\nM 0\n}")) == 256


def test_several_observables_are_counted_each_and_together() -> None:
    circuit = stim.Circuit(
        "X_ERROR(1) 0 1\nM 0 1 2\nOBSERVABLE_INCLUDE(0) rec[-3]\nOBSERVABLE_INCLUDE(9) rec[-2]\n"
        "OBSERVABLE_INCLUDE(3) rec[-1]\n"
    )
    result = sampled(circuit, None, 10, 1, RunControl())
    assert result.flips.tolist() == [10, 0, 0, 0, 0, 0, 0, 0, 0, 10]
    assert (result.errors, result.predictions.size) == (0, 0)


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"cannot be decoded by pymatching: .*non-deterministic"):
        SyndromeDecoder("pymatching", stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]"))
    flips_three = "X_ERROR(0.1) 0\nM 0\n" + "DETECTOR rec[-1]\n" * 3
    fails(
        Unsupported,
        "cannot be decoded by pymatching",
        SyndromeDecoder,
        "pymatching",
        stim.Circuit(flips_three),
    )


def test_run_stops_between_blocks_and_counts_shots() -> None:
    control = RunControl()
    sampled(code(), None, 20_000, 1, control)
    assert control.progress[:4] == ("shots", 20_000, 20_000, 1.0)
    control.stop()
    fails(Stopped, "", sampled, code(), None, 10, 1, control)
    with pytest.raises(Stopped):
        SyndromeDecoder("pymatching", code()).predictions(np.zeros((1, 3), np.uint8), control)


SHOTS = 40_000
LEAST_P = 1e-3
TWIRL = (("twirl", 1),)


def _clifford(*, dynamic: bool) -> Circuit:
    random = np.random.default_rng(4)
    arrays = Arrays(4, 4)
    for layer in range(4):
        for q in range(4):
            arrays.add(("h", "s", "sx", "y")[int(random.integers(4))], [q])
        arrays.add(("cx", "cz")[layer % 2], [layer % 4, (layer + 1) % 4])
        if dynamic and layer == 1:
            arrays.add("measure", [2], [3]).add("reset", [1])
            arrays.begin((ir.CLBIT, 3, 0)).add("x", [0]).add("end")
    return arrays.measure(range(3)).circuit()


def _noise(circuit: Circuit, one: Channel, pair: Channel, readout: Readout | None) -> NoiseProgram:
    conditional = [k for k in range(circuit.ops.size) if circuit.table.names[circuit.ops[k]] == "x"]

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name in ("measure", "reset"):
            return [((3,), one)]
        return [(row.qubits, pair if len(row.qubits) == 2 else one)] if row.qubits else []

    located = [item for item in after_gates(circuit, rule) if item[0] not in conditional]
    result = program([*located, (-1, (0,), one)], readout)
    return msgspec.structs.replace(result, kinds=result.kinds - {"kraus"})


def _run(
    circuit: Circuit, noise: NoiseProgram, settings: tuple = (), outputs: tuple = ("counts",)
) -> EngineResult:
    request = Request(SHOTS, 3, outputs)
    return engine_runs.run(StabilizerEngine(), circuit, request, noise, settings=settings)


ONE = from_paulis(np.array([0.9, 0.05, 0.01, 0.04]))
PAIR = from_paulis(np.random.default_rng(1).dirichlet(np.append(60, np.ones(15))))


@pytest.mark.parametrize("dynamic", [False, True])
def test_pauli_noise_has_the_exact_distribution(dynamic: bool) -> None:
    circuit = _clifford(dynamic=dynamic)
    flips = np.array([0.02, 0.0, 0.05, 0.01])
    readout = Readout(flips, flips if dynamic else flips[::-1].copy())
    noise = _noise(circuit, ONE, PAIR, readout)
    assert p_value(Exact(circuit, noise).probs, counts_of(_run(circuit, noise))) > LEAST_P


def test_other_noise_is_twirled_on_request_and_the_result_says_so() -> None:
    circuit = _clifford(dynamic=False)
    damping = relaxation(300, 2, 3)
    noise = _noise(circuit, damping, depolarizing(0.05, 2).then(tensor(damping, damping)), None)
    noise = msgspec.structs.replace(noise, kinds=frozenset({"kraus", "pauli"}))
    fails(Unsupported, "no kraus noise", _run, circuit, noise)
    result = _run(circuit, noise, TWIRL)
    twirled = tuple(channel.twirled() for channel in noise.channels)
    exact = Exact(circuit, msgspec.structs.replace(noise, channels=twirled, known_facts=None))
    assert p_value(exact.probs, counts_of(result)) > LEAST_P
    assert result.remark == "noise twirled to Paulis"


def test_what_stim_does_not_have_is_refused() -> None:
    circuit = _clifford(dynamic=True)
    noise = _noise(circuit, ONE, PAIR, Readout(np.full(4, 0.1), np.full(4, 0.2)))
    fails(Unsupported, "depends on the outcome", _run, circuit, noise)
    _run(circuit, noise, TWIRL)
    with pytest.raises(Unsupported, match="probabilities of a circuit with noise"):
        _run(circuit, _noise(circuit, ONE, PAIR, None), outputs=("probabilities",))
    place = next(k for k in range(circuit.ops.size) if circuit.table.names[circuit.ops[k]] == "x")
    with pytest.raises(Unsupported, match="noise under a condition"):
        _run(circuit, msgspec.structs.replace(program([(place, (0,), ONE)]), kinds=frozenset()))


def _corrected(circuit: Arrays, qubit: int) -> Arrays:
    """Measure a qubit into clbit 2, and flip qubit 2, whose x is noisy, if the outcome is 1."""
    circuit.add("measure", [qubit], [2]).begin((ir.CLBIT, 2, 0)).add("x", [2]).add("end")
    return circuit.add("reset", [qubit])


@pytest.mark.parametrize("outcome", ["random", "one", "zero"])
def test_noise_under_a_condition_acts_as_often_as_the_condition_holds(outcome: str) -> None:
    """On request; the errors are independent of the outcome, which results hide."""
    start = Arrays(3, 3, (("c", 2), (ir.HIDDEN_REGISTER, 1))).add("h", [0])
    if outcome == "random":
        start.add("cx", [0, 2]).add("cx", [0, 1])
    elif outcome == "one":
        start.add("x", [2]).add("h", [0]).add("y", [0])
    else:
        start.add("h", [0])
    circuit = _corrected(start, 0).add("measure", [1], [0]).add("measure", [2], [1]).circuit()
    names = [circuit.table.names[row] for row in circuit.ops.tolist()]
    place = names.index("if") + 1
    noise = program([(place, (2,), from_paulis(np.array([0.7, 0.3, 0.0, 0.0])))])
    result = without_hidden(circuit, _run(circuit, noise, TWIRL), SHOTS)
    share = {"random": 0.5, "one": 1.0, "zero": 0.0}[outcome]
    flipped = share * 0.3
    expected = {"random": {0: 0.5, 1: 0.5}, "one": {0: 1.0}, "zero": {0: 1.0}}[outcome]
    probs = {
        key | bit << 1: p * q
        for key, p in expected.items()
        for bit, q in ((0, 1.0 - flipped), (1, flipped))
        if q
    }
    assert p_value(probs, counts_of(result)) > LEAST_P
